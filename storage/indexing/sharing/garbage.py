"""Removes shared indexes that nobody will read again: of series that are gone, and of formats that were given up.

An index of older versions is no garbage: the next one takes its place. Indexes of formats later than ours are never
touched; another version of this program, which may be the newer one, reads them.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from storage.bucket import Bucket, ObjectInfo
from storage.errors import ObjectNotFound
from storage.keys import SeriesKey, SeriesObject, parse_object_key, parse_shared_index_key, shared_index_prefix
from storage.series_index.layout import FORMAT
from storage.together import together

KEEP_DAYS = 30
"""Older formats are kept so long after the first index of ours: replicas of the older version may still be served."""
_BATCH = 32
"""Objects that are asked for, or deleted, at the same time."""


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What a collection found and did."""

    kept: int = 0
    """Shared indexes of our format whose series is there."""
    of_gone_series: int = 0
    """Removed: the bucket holds no metadata.json any more."""
    of_older_formats: int = 0
    """Removed: replaced by a format that has been in use for long enough."""
    removed_bytes: int = 0


async def collect_garbage(
    bucket: Bucket, *, keep_days: float = KEEP_DAYS, format: int = FORMAT, now: Callable[[], float] = time.time
) -> GarbageReport:
    """Go through the shared indexes of a datastore once; two listings, and two requests for each series that is gone.

    Args:
        keep_days: how long older formats stay after the first index of `format` was written.

    Raises:
        StorageUnavailable: the bucket cannot be listed, or refuses to delete; what was removed until then was garbage.
    """
    collection = _Collection(bucket, format)
    oldest = await collection.of_gone_series()
    if oldest is not None and now() - oldest > keep_days * 86400:
        await collection.of_older_formats()
    return collection.report


@dataclass(slots=True)
class _Collection:
    bucket: Bucket
    format: int
    report: GarbageReport = field(default_factory=GarbageReport)

    async def of_gone_series(self) -> float | None:
        """Returns when the oldest index of our format was written."""
        oldest: float | None = None
        studies = _Studies(self.bucket)
        doubtful: list[tuple[SeriesKey, ObjectInfo]] = []
        async for info in self.bucket.list(shared_index_prefix(self.format)):
            oldest = info.updated if oldest is None else min(oldest, info.updated)
            key = parse_shared_index_key(info.key)
            if key is None:
                continue
            if key.series_uid in await studies.series_of(key.study_uid):
                self.report = replace(self.report, kept=self.report.kept + 1)
                continue
            doubtful.append((key, info))
            if len(doubtful) == _BATCH:
                await self._remove_gone(doubtful)
                doubtful = []
        await self._remove_gone(doubtful)
        return oldest

    async def of_older_formats(self) -> None:
        for older in range(1, self.format):
            batch: list[ObjectInfo] = []
            async for info in self.bucket.list(shared_index_prefix(older)):
                if parse_shared_index_key(info.key) is not None:
                    batch.append(info)
                if len(batch) == _BATCH:
                    await self._remove_old(batch)
                    batch = []
            await self._remove_old(batch)

    async def _remove_gone(self, doubtful: list[tuple[SeriesKey, ObjectInfo]]) -> None:
        """Asked again one by one: a series may have come since its study was listed."""

        async def removed(key: SeriesKey, info: ObjectInfo) -> int | None:
            try:
                await self.bucket.head(key.metadata)
            except ObjectNotFound:
                await self.bucket.delete(info.key)
                return info.size
            return None

        sizes = await together(removed(key, info) for key, info in doubtful)
        gone = [size for size in sizes if size is not None]
        self.report = replace(
            self.report,
            kept=self.report.kept + len(sizes) - len(gone),
            of_gone_series=self.report.of_gone_series + len(gone),
            removed_bytes=self.report.removed_bytes + sum(gone),
        )

    async def _remove_old(self, batch: list[ObjectInfo]) -> None:
        await together(self.bucket.delete(info.key) for info in batch)
        self.report = replace(
            self.report,
            of_older_formats=self.report.of_older_formats + len(batch),
            removed_bytes=self.report.removed_bytes + sum(info.size for info in batch),
        )


class _Studies:
    """A walk over the series of a datastore beside one over its shared indexes: both are listed study by study alike."""

    def __init__(self, bucket: Bucket) -> None:
        self._listing = _series(bucket)
        self._next: SeriesKey | None = None
        self._is_begun = False
        self._study_uid = ""
        self._series_uids: set[str] = set()

    async def series_of(self, study_uid: str) -> set[str]:
        """The series of a study that have a metadata.json; studies are asked for in the order of their keys."""
        if not self._is_begun:
            self._is_begun = True
            await self._step()
        if study_uid != self._study_uid:
            self._study_uid, self._series_uids = study_uid, set()
            while self._next is not None and f"{self._next.study_uid}/" < f"{study_uid}/":
                await self._step()
            while self._next is not None and self._next.study_uid == study_uid:
                self._series_uids.add(self._next.series_uid)
                await self._step()
        return self._series_uids

    async def _step(self) -> None:
        self._next = await anext(self._listing, None)


async def _series(bucket: Bucket) -> AsyncIterator[SeriesKey]:
    async for info in bucket.list("studies/"):
        parsed = parse_object_key(info.key)
        if parsed is not None and parsed[1] is SeriesObject.METADATA:
            yield parsed[0]
