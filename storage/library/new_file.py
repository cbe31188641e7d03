"""One file that is offered to a series: where it lies, and what its owner knows of it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from storage.ingest.sources import OpenSource
from storage.ingest.sources.open_source import BytesContent
from storage.library.hints import Hints

Source = str | os.PathLike[str] | bytes
"""A path, an address (s3://, gs://, file://), or the bytes of a P10."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file, or a folder or archive of files, and what is known of it."""

    source: Source
    hints: Hints = field(default_factory=Hints)
    """Of one file; a folder or an archive takes none."""
    dependencies: Sequence[str] = ()
    """Addresses of files that the instance stands for: they may go when it is safe to (`Series.delete_dependencies`)."""
    original_path: str | None = None
    """What is kept as its origin, instead of the address, or the name below the folder that was named."""

    def __post_init__(self) -> None:
        """Raises: TypeError, for one address where a list of them is asked for."""
        if isinstance(self.dependencies, str):
            raise TypeError("dependencies are a list of addresses: [uri], not uri")

    @property
    def name(self) -> str:
        """For messages."""
        if isinstance(self.source, bytes):
            return self.original_path or f"{len(self.source)} bytes"
        return os.fspath(self.source)


@dataclass(frozen=True, slots=True)
class BytesPlace:
    """A P10 in memory, with the face of `storage.ingest.sources.Place`."""

    name: str
    shown: str
    data: bytes
    mtime: float
    """Seconds since the epoch."""

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def stamp(self) -> str:
        return ""

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        yield OpenSource(BytesContent(self.data), size=self.size, mtime=self.mtime)
