"""What an ingest did, as values: for the table on a terminal and for `--json`.

File names appear, for they are the user's own; attribute values never do.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """What became of one series."""

    STORED = "stored"
    """It was not there before."""
    APPENDED = "appended"
    """Instances were added to it."""
    UNCHANGED = "unchanged"
    """All that was offered is in it already, or in conflict with what is."""
    PLANNED = "planned"
    """Would be stored, or added to: nothing is written in a dry run."""
    REFUSED = "refused"
    """Another writer is at it, or what is stored is damaged; nothing was touched."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class InstanceNote:
    """One source file and the instance that it holds."""

    path: str
    study_uid: str
    series_uid: str
    instance_uid: str


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """One source file that was not stored, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SeriesNote:
    """One series and what became of it."""

    study_uid: str
    series_uid: str
    outcome: Outcome
    instances: int
    """New ones; of a series that was refused or failed, those that were to be stored."""
    bytes: int
    """Of their P10 files, without the tar around them."""
    message: str | None = None
    """Why it was refused or failed; or what went wrong after it was stored."""
    same: int = 0
    conflict: int = 0


@dataclass(slots=True)
class Report:
    """The sum of one ingest; it grows while the ingest runs."""

    new: list[InstanceNote] = field(default_factory=list)
    same: list[InstanceNote] = field(default_factory=list)
    """Files whose bytes are stored already, or were taken from another file."""
    conflict: list[InstanceNote] = field(default_factory=list)
    """Files of a SOP Instance UID that is stored, or was taken, with other bytes: those stay."""
    refused: list[RefusedFile] = field(default_factory=list)
    skipped: list[RefusedFile] = field(default_factory=list)
    """What holds no instance by its nature: a DICOMDIR, a link in an archive."""
    series: list[SeriesNote] = field(default_factory=list)
    bytes: int = 0
    """Of the P10 files that were stored (in a dry run: would be)."""
    seconds: float = 0.0
    bytes_read: int = 0
    """Of the sources that were opened; those that are known from an earlier run are not."""

    @property
    def is_clean(self) -> bool:
        """Whether everything that was offered is stored."""
        bad = (Outcome.REFUSED, Outcome.FAILED)
        return not (self.conflict or self.refused) and all(note.outcome not in bad for note in self.series)


class Progress(Protocol):
    """Who wants to hear how far an ingest is."""

    def begin(self, task: str, *, files: int, size: int | None) -> None:
        """A stretch of work begins: so many files, so many bytes (None: not counted)."""

    def expect(self, *, files: int = 0, size: int = 0) -> None:
        """So many more files, or bytes, belong to the present stretch: they have just been found."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """So many more files, or bytes, of the present stretch are done."""


class SilentProgress:
    """Nobody wants to hear it."""

    def begin(self, task: str, *, files: int, size: int | None) -> None:
        """Nothing to show."""

    def expect(self, *, files: int = 0, size: int = 0) -> None:
        """Nothing to show."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Nothing to show."""
