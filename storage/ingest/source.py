"""One source file: opening it safely, parsing it by windows, and noticing that it changed.

Sources are the user's own files, but what lies in them, and what else lies beside them, is not trusted: only regular
files are opened, nothing is read whole unless the parser needs it, and every read is checked against the size.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable

FIRST_READ_BYTES = 64 << 10
"""Enough for most headers; a parser that misses bytes gets twice as many each time."""

MAX_WINDOW_BYTES = 2 << 30
"""How much of one file is ever held at once (a deflated data set needs all of it)."""

CHUNK_BYTES = 1 << 20

PREFIX_OFFSET = 128
"""Length of the preamble, PS3.10 §7.1; `DICM` follows."""

Parsed = TypeVar("Parsed")


class SourceChanged(Exception):
    """A source file is not, or no longer, what it was when it was planned. It never leaves this package."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a changed file from an unchanged one without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @property
    def mtime(self) -> float:
        """Seconds since the epoch."""
        return self.mtime_ns / 1e9


class OpenSource:
    """An open regular file, read by position."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path
        self.state = _state(os.fstat(descriptor))

    def expect(self, state: FileState) -> None:
        """Raises SourceChanged if the file is not, or no longer, in this state."""
        if _state(os.fstat(self._descriptor)) != state:
            raise SourceChanged(f"{self._path} changed while it was being ingested")

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), all of them. Raises SourceChanged if the file has become shorter."""
        parts = []
        while start < stop:
            part = os.pread(self._descriptor, stop - start, start)
            if not part:
                raise SourceChanged(f"{self._path} became shorter while it was being ingested")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self) -> Iterator[bytes]:
        """The whole file, in order."""
        for start in range(0, self.state.size, CHUNK_BYTES):
            yield self.read(start, min(start + CHUNK_BYTES, self.state.size))

    def has_prefix(self) -> bool:
        """Whether `DICM` follows 128 bytes of any preamble."""
        stop = PREFIX_OFFSET + 4
        return self.state.size >= stop and self.read(PREFIX_OFFSET, stop) == b"DICM"

    def parse(self, window: Window, parser: Callable[[], Parsed]) -> Parsed:
        """Run a parser of `window`, reading what it misses; it starts again with each read, so it must be pure.

        Raises:
            InstanceUnreadable: from the parser, or because it needs more than `MAX_WINDOW_BYTES`.
        """
        wanted = FIRST_READ_BYTES
        held = 0
        while True:
            try:
                return parser()
            except MissingBytes as missing:
                stop = min(max(missing.stop, missing.start + wanted), window.size)
                held += stop - missing.start
                if held > MAX_WINDOW_BYTES:
                    raise InstanceUnreadable(f"more than {MAX_WINDOW_BYTES} bytes are needed to read it") from None
                window.add(missing.start, self.read(missing.start, stop))
                wanted *= 2


@contextmanager
def open_source(path: str) -> Iterator[OpenSource]:
    """Open a regular file for reading; a FIFO or device is refused without waiting for it.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        yield OpenSource(descriptor, path)
    finally:
        os.close(descriptor)


def _state(result: os.stat_result) -> FileState:
    return FileState(result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns)
