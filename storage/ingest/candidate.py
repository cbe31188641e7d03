"""What an ingest remembers of a described file until its series is stored: little, for there may be a million.

The description itself, pickled by the process that made it, waits in a spool.
"""

import pickle
from dataclasses import dataclass

from storage.ingest.describe import Description
from storage.ingest.described import Described
from storage.keys import SeriesKey
from storage.spool import Spool


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
