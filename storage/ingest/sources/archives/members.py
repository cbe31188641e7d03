"""The members of archives as places: a plain one is read where it lies, a deflated one is inflated when it is opened."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

from storage.errors import InstanceUnreadable
from storage.ingest.sources.archives.inflate import inflated
from storage.ingest.sources.files import FileState, OpenFile, StretchContent, opened
from storage.ingest.sources.open_source import BytesContent, OpenSource

MEMORY_BYTES = 64 << 20
"""An inflated member up to this size is held in memory while it is open, a larger one in a file without a name."""


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A stretch of a file: a member of a tar, or one that a zip stores plain."""

    path: str
    """The file that is opened: the archive, or what was unpacked of it."""
    state: FileState
    """Of that file."""
    name: str
    shown: str
    stamp: str
    start: int
    size: int
    mtime: float
    crc32: int | None
    """Proven when it is opened, where the archive knows it: a zip."""

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        with opened(self.path) as file:
            file.expect(self.state)
            content = StretchContent(file, self.state, self.start, self.size)
            if self.crc32 is not None:
                _prove(content, self.crc32)
            yield OpenSource(content, size=self.size, mtime=self.mtime)


@dataclass(frozen=True, slots=True)
class DeflatedMember:
    """A member of a zip that is compressed by DEFLATE."""

    path: str
    state: FileState
    """Of the archive."""
    name: str
    shown: str
    stamp: str
    start: int
    packed_size: int
    size: int
    mtime: float
    crc32: int | None

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        with opened(self.path) as archive:
            archive.expect(self.state)
            stop = self.start + self.packed_size
            chunks = inflated(archive.read, self.start, stop, size=self.size, crc32=self.crc32)
            if self.size <= MEMORY_BYTES:
                data = b"".join(chunks)
                archive.expect(self.state)
                yield OpenSource(BytesContent(data), size=self.size, mtime=self.mtime)
                return
            with TemporaryFile() as temporary:
                temporary.writelines(chunks)
                temporary.flush()
                archive.expect(self.state)
                file = OpenFile(temporary.fileno(), self.name)
                content = StretchContent(file, file.state, 0, self.size)
                yield OpenSource(content, size=self.size, mtime=self.mtime)


def _prove(content: StretchContent, crc32: int) -> None:
    checksum = 0
    for chunk in content.chunks():
        checksum = zlib.crc32(chunk, checksum)
    if checksum != crc32:
        raise InstanceUnreadable("the archive is damaged here: the CRC-32 of its directory is another one")
