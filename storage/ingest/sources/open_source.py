"""One source file while it is open: parsed by windows, read in one go, and noticing that it changed.

Sources are the user's own files, but what lies in them, and what else lies beside them, is not trusted: nothing is read
whole unless the parser needs it, and every read is checked against the size.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

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
    """A source is not, or no longer, what it was when it was found. It never leaves the ingest."""


class Content(Protocol):
    """The bytes behind an open source: of a file, of a part of one, of an object, or unpacked ones."""

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), all of them. Raises SourceChanged if there are fewer."""

    def chunks(self) -> Iterator[bytes]:
        """All bytes, in order."""

    def check(self) -> None:
        """Raises SourceChanged if what was read may be other bytes than those that were found."""


class OpenSource:
    """An open source, read by position."""

    def __init__(self, content: Content, *, size: int, mtime: float) -> None:
        self._content = content
        self.size = size
        self.mtime = mtime
        """Seconds since the epoch."""

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), all of them. Raises SourceChanged if the source has become shorter."""
        if not 0 <= start <= stop <= self.size:
            raise ValueError(f"bytes [{start}, {stop}) of a source of {self.size}")
        return self._content.read(start, stop) if start < stop else b""

    def chunks(self) -> Iterator[bytes]:
        """The whole source, in order, in pieces of about a mebibyte."""
        return self._content.chunks()

    def check(self) -> None:
        """Raises SourceChanged if the source is not, or no longer, what it was when it was found."""
        self._content.check()

    def has_prefix(self) -> bool:
        """Whether `DICM` follows 128 bytes of any preamble."""
        stop = PREFIX_OFFSET + 4
        return self.size >= stop and self.read(PREFIX_OFFSET, stop) == b"DICM"

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


class BytesContent:
    """Bytes in memory: nothing can change them from now on."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), CHUNK_BYTES):
            yield self._data[start : start + CHUNK_BYTES]

    def check(self) -> None:
        """Nothing to check."""
