"""One place where a DICOM file may lie, unread; and what became of those that are none."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from storage.ingest.report import RefusedFile
from storage.ingest.sources.open_source import OpenSource

MAX_NAME_CHARACTERS = 1024
"""Of a name inside an archive: a PAX record may hold a mebibyte of it."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, characters that turn the direction of writing, and bytes of a file name that are no UTF-8."""
_DRIVE = re.compile(r"[A-Za-z]:")


class Place(Protocol):
    """A file, a member of an archive or an object of a bucket, as a small frozen value that other processes can open."""

    @property
    def name(self) -> str:
        """The full name, for messages."""

    @property
    def shown(self) -> str:
        """Relative to the source it was found under: kept as `original_path`, so that no host's folders leak."""

    @property
    def size(self) -> int:
        """Bytes, as the file system, the archive or the bucket says it."""

    @property
    def stamp(self) -> str:
        """Opaque: a place of the same stamp and size holds the same bytes as when it was last read."""

    def open(self) -> AbstractContextManager[OpenSource]:
        """Open it for reading; in any process of this host, while the `Scratch` of its finding lasts.

        Raises:
            SourceChanged: it is no longer what it was when it was found.
            InstanceUnreadable: an archive holds other bytes there than it says.
            OSError: it cannot be opened.
            StorageUnavailable: its bucket does not answer (from reads too).
        """


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """Something that holds no instance by its nature, and why: nothing is missing without it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notes:
    """Everything under the sources that is no place."""

    refused: list[RefusedFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)

    def refuse(self, name: str, reason: str) -> None:
        self.refused.append(RefusedFile(printable(name), reason))

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append(SkippedFile(printable(name), reason))


def printable(name: str) -> str:
    """A name that does nothing to a terminal and can be encoded."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name)


def member_path(name: str) -> str:
    """The name of a member of an archive as a relative path below the archive: no root, no drive, no way up."""
    parts = re.split(r"[/\\]", name[-MAX_NAME_CHARACTERS:])
    kept = [part for part in parts if part not in ("", ".", "..") and not _DRIVE.fullmatch(part)]
    return printable("/".join(kept)) or "unnamed"


def system_reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
