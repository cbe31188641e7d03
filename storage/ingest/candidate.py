"""What an ingest remembers of a described file until its series is stored: little, for there may be a million.

The description itself, pickled by the process that made it, waits in a spool.
"""

import copyreg
import pickle
from dataclasses import dataclass
from typing import Any

from storage.cod.writing import OffsetTable
from storage.ingest.describe import Description
from storage.ingest.sources.files import FilePlace, FileState
from storage.keys import SeriesKey
from storage.spool import Spool


def _by_fields(value: Any) -> tuple[Any, ...]:  # Any: whatever its fields are
    kind = type(value)
    return kind, tuple(getattr(value, name) for name in kind.__slots__)


for _kind in (Description, FilePlace, FileState, OffsetTable, SeriesKey):
    # What dataclasses do by themselves takes 60 µs for a description, there and back again for every file.
    copyreg.pickle(_kind, _by_fields)


@dataclass(frozen=True, slots=True)
class Described:
    """A description on its way from the process that made it."""

    series: SeriesKey
    instance_uid: str
    size: int
    crc32c: int
    pickled: bytes

    @classmethod
    def of(cls, description: Description) -> "Described":
        return cls(
            description.series,
            description.instance_uid,
            description.size,
            description.crc32c,
            pickle.dumps(description, protocol=pickle.HIGHEST_PROTOCOL),
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """One file that may have to be stored; some 300 bytes."""

    number: int
    """In the order in which files were found: of two with the same UID the first counts."""
    instance_uid: str
    size: int
    crc32c: int
    kept: tuple[int, int]
    """Where its description lies in the spool."""


class Candidates:
    """Candidates by series, and the spool of their descriptions."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.groups: dict[SeriesKey, list[Candidate]] = {}

    def add(self, number: int, described: Described) -> None:
        kept = self._spool.put([described.pickled])
        candidate = Candidate(number, described.instance_uid, described.size, described.crc32c, kept)
        self.groups.setdefault(described.series, []).append(candidate)

    def description_of(self, candidate: Candidate) -> Description:
        pickled = b"".join(self._spool.get(candidate.kept))
        described: Description = pickle.loads(pickled)  # noqa: S301  # our own, from a file that has no name
        return described
