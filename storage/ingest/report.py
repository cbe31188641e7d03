"""What an ingest did, as values: for the table on a terminal and for `--json`.

File names appear, for they are the user's own; attribute values never do.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from storage.keys import SeriesKey


class Outcome(StrEnum):
    """What became of one series."""

    STORED = "stored"
    PLANNED = "planned"
    """Would be stored: nothing is written in a dry run."""
    REFUSED = "refused"
    """The datastore holds it already, or another writer is at it; nothing was touched."""
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
    bytes: int
    """Of the P10 files, without the tar around them."""
    message: str | None = None
    """Why it was refused or failed; or what went wrong after it was stored."""

    @classmethod
    def of(
        cls, series: SeriesKey, outcome: Outcome, *, instances: int, size: int, message: str | None = None
    ) -> "SeriesNote":
        return cls(series.study_uid, series.series_uid, outcome, instances, size, message)


@dataclass(slots=True)
class Report:
    """The sum of one ingest; it grows while the ingest runs."""

    new: list[InstanceNote] = field(default_factory=list)
    same: list[InstanceNote] = field(default_factory=list)
    """Further files with the same bytes as one that was taken."""
    conflict: list[InstanceNote] = field(default_factory=list)
    """Further files with the same SOP Instance UID and other bytes: the first one won."""
    refused: list[RefusedFile] = field(default_factory=list)
    series: list[SeriesNote] = field(default_factory=list)
    bytes: int = 0
    """Of the P10 files that were stored (in a dry run: would be)."""
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether everything that was offered is stored."""
        good = (Outcome.STORED, Outcome.PLANNED)
        return not (self.conflict or self.refused) and all(note.outcome in good for note in self.series)


class Progress(Protocol):
    """Who wants to hear how far an ingest is."""

    def begin(self, task: str, *, files: int, size: int | None) -> None:
        """A stretch of work begins: so many files, so many bytes (None: not counted)."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """So many more files, or bytes, of the present stretch are done."""


class SilentProgress:
    """Nobody wants to hear it."""

    def begin(self, task: str, *, files: int, size: int | None) -> None:
        """Nothing to show."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Nothing to show."""
