"""The face of a catalogue: the rows of studies and series that a search reads. SQLite stands behind it.

A catalogue is derived: it may be deleted at any time, and `storage.catalogue.sync` fills it again from the bucket.
It holds no instance rows; an instance search narrows to series here and goes on in the series' own index.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from storage.catalogue.query import Page, Query
from storage.keys import SeriesKey

Depth = Literal["quick", "deep"]
"""What a summary was made from: `metadata.json` alone, or the P10 headers in the tar."""


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """What the catalogue is told about one series."""

    key: SeriesKey
    """The UIDs of the outside world: rows take StudyInstanceUID and SeriesInstanceUID from here and nowhere else."""
    metadata_version: str
    """Version of `metadata.json`; empty when a later sync shall read the series again whatever it finds."""
    tar_version: str | None
    is_deid: bool
    instance_count: int
    sop_class_uids: tuple[str, ...]
    """Every SOP Class UID of the series' instances."""
    attributes: Mapping[int, bytes]
    """One finished Annex F value by tag (`b'{"vr":"LO","Value":["x"]}'`), for the tags of `storage.levels`."""
    depth: Depth
    problem: str | None = None
    """Why the series could not be read: such a series is counted and never found by a search."""


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """What a catalogue holds of a series besides its attributes."""

    key: SeriesKey
    metadata_version: str
    tar_version: str | None
    depth: Depth
    is_deid: bool
    instance_count: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """How much the catalogue holds, and whether that is everything."""

    studies: int
    """Studies that a search can find."""
    series: int
    """Series that a search can find."""
    problems: int
    """Series that are there and cannot be read."""
    complete: bool
    """Whether a sync has ever seen the whole bucket: until then an empty answer proves nothing."""
    cursor: str | None
    """Up to which place (`series_place`) the running or interrupted sync has come; None when none is under way."""


def series_place(key: SeriesKey) -> str:
    """The place of a series in the order of a catalogue walk: that of a bucket's listing, study by study.

    The slash matters: `1.2/` sorts after `1.2.3/`, though `1.2` sorts before `1.2.3`.
    """
    return f"{key.study_uid}/{key.series_uid}"


class Catalogue(Protocol):
    """Studies and series by their attributes.

    Raises, everywhere: `StorageUnavailable` when the database fails, or a search takes longer than it may.
    """

    async def search(self, query: Query) -> Page:
        """Answer a search for studies or series (PS3.18 §10.6); for instances see `narrow`.

        Studies come newest first (StudyDate, StudyTime descending, then StudyInstanceUID), series in the order of
        their studies, then by SeriesNumber and SeriesInstanceUID: a total order, so that pages neither overlap nor
        leave gaps.
        Conditions on series attributes in a search for studies must all hold in one series of the study.
        """

    def narrow(self, query: Query) -> AsyncIterator[list[SeriesKey]]:
        """The series in which instances may match, in pages, in the order of a search for series.

        Only conditions of the study and series level are applied, and SOPClassUID as far as the series is concerned;
        the caller tests the instances themselves. `limit` and `offset` are the caller's too.
        """

    async def series_of_study(self, study_uid: str) -> list[SeriesKey]:
        """All series of a study by SeriesNumber, then UID; those with a problem come last. Unknown study: empty."""

    async def contains_study(self, study_uid: str) -> bool:
        """Whether the catalogue knows a series of this study, be it one with a problem."""

    async def contains_series(self, key: SeriesKey) -> bool:
        """Whether the catalogue knows this series, be it one with a problem."""

    async def upsert(self, summaries: Sequence[SeriesSummary]) -> None:
        """Add series or replace what is known of them, all or none."""

    async def remove(self, keys: Sequence[SeriesKey]) -> None:
        """Forget series, all or none; unknown ones are no error."""

    async def known(self, *, after: str = "", limit: int = 1000) -> list[KnownSeries]:
        """A walk over everything held, in ascending order of `series_place`, from behind `after`."""

    async def status(self) -> Status:
        """Counts and completeness, from counters: cheap at any size."""

    async def begin_sync(self) -> None:
        """Note that a pass over the bucket begins."""

    async def advance_sync(self, cursor: str) -> None:
        """Note up to which place the pass has come."""

    async def finish_sync(self) -> None:
        """Note that a pass has seen the whole bucket: the catalogue is complete from now on."""

    async def close(self) -> None:
        """Give back connections and threads; the catalogue is not used afterwards."""
