"""A file on a disk as a place, and a stretch of bytes of one: what a plain archive is made of."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from storage.ingest.sources.open_source import CHUNK_BYTES, OpenSource, SourceChanged
from storage.ingest.sources.place import printable


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a changed file from an unchanged one without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = field(default=0, compare=False)
    """Of the inode: moves with every write, whatever time `cp -p`, tar and unzip give a file afterwards. It also moves
    when a file gets another name or mode, so it counts for what was read in an earlier run and not within one."""

    @property
    def mtime(self) -> float:
        """Seconds since the epoch."""
        return self.mtime_ns / 1e9

    @property
    def stamp(self) -> str:
        return f"{self.device:x}-{self.inode:x}-{self.mtime_ns:x}-{self.ctime_ns:x}"


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A regular file."""

    path: str
    """As it is opened: any bytes that a file system takes."""
    shown: str
    state: FileState

    @property
    def name(self) -> str:
        return printable(self.path)

    @property
    def size(self) -> int:
        return self.state.size

    @property
    def stamp(self) -> str:
        return self.state.stamp

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        with opened(self.path) as file:
            file.expect(self.state)
            content = StretchContent(file, self.state, 0, self.state.size)
            yield OpenSource(content, size=self.state.size, mtime=self.state.mtime)


class OpenFile:
    """An open regular file, read by position."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.name = printable(path)
        self.state = self._state_now()

    def expect(self, state: FileState) -> None:
        """Raises SourceChanged if the file is not, or no longer, in this state."""
        if self._state_now() != state:
            raise SourceChanged(f"{self.name} changed while it was being ingested")

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), all of them. Raises SourceChanged if the file has become shorter."""
        parts = []
        while start < stop:
            part = os.pread(self.descriptor, stop - start, start)
            if not part:
                raise SourceChanged(f"{self.name} became shorter while it was being ingested")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_up_to(self, start: int, length: int) -> bytes:
        """At most `length` bytes: fewer at the end of the file."""
        return self.read(start, max(start, min(start + length, self.state.size)))

    def _state_now(self) -> FileState:
        result = os.fstat(self.descriptor)
        return FileState(result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)


class StretchContent:
    """Bytes [start, start + size) of an open file that must stay as it is."""

    def __init__(self, file: OpenFile, state: FileState, start: int, size: int) -> None:
        self._file = file
        self._state = state
        self._start = start
        self._size = size

    def read(self, start: int, stop: int) -> bytes:
        return self._file.read(self._start + start, self._start + stop)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self._size, CHUNK_BYTES):
            yield self.read(start, min(start + CHUNK_BYTES, self._size))

    def check(self) -> None:
        self._file.expect(self._state)


@contextmanager
def opened(path: str) -> Iterator[OpenFile]:
    """Open a regular file for reading; a FIFO or device is refused without waiting for it.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:
        raise OSError(f"no name of a file: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        yield OpenFile(descriptor, path)
    finally:
        os.close(descriptor)
