"""Bring a catalogue up to what a bucket holds, reading only the series that changed.

The bucket is listed once, in key order, beside a walk over the catalogue in the same order, study by study; series whose
versions differ are summarised again, and what the listing did not show is forgotten at the very end. A pass may be
broken off at any point: what it wrote stays right, and the next one reads only what still differs.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from storage.bucket.base import Bucket, ObjectInfo
from storage.catalogue.base import Catalogue, KnownSeries, SeriesSummary, series_place
from storage.errors import NotFound, ObjectNotFound, StorageError, StorageUnavailable
from storage.keys import SeriesKey, SeriesObject, parse_object_key

_log = logging.getLogger(__name__)

_BATCH = 128
"""Series that are read and then written in one transaction: what a broken-off pass may lose at most."""
_KNOWN_PAGE = 1000
_MOST_NOTES = 100

Summarise = Callable[[SeriesKey, ObjectInfo, "ObjectInfo | None"], Awaitable[SeriesSummary]]
"""Makes the summary of a series from its `metadata.json` and its tar, if there is one."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a pass over the bucket found and did."""

    listed: int = 0
    """Series in the bucket: those that have a `metadata.json`."""
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    unreadable: int = 0
    """Series of which the metadata cannot be read: they are counted and not found."""
    unavailable: int = 0
    """Series that the store did not give just now: what was known of them stays, and the next pass tries again."""
    tars_without_metadata: int = 0
    metadata_without_tar: int = 0
    notes: tuple[str, ...] = ()
    """The first hundred sentences on series that are not as they should be."""


async def sync(
    bucket: Bucket,
    catalogue: Catalogue,
    summarise: Summarise,
    *,
    progress: Callable[[SyncReport], None] | None = None,
    concurrency: int = 8,
    stand_back: Callable[[], Awaitable[None]] | None = None,
) -> SyncReport:
    """Make one pass over the bucket.

    Args:
        progress: called with the report so far after every batch.
        concurrency: how many series are read at the same time.
        stand_back: awaited before each series; returns when others need the processor less.

    Raises:
        StorageUnavailable: the bucket cannot be listed, or the catalogue not written; nothing has been removed then.
    """
    return await _Pass(bucket, catalogue, summarise, progress, concurrency, stand_back).run()


@dataclass(slots=True)
class _Found:
    """What the listing shows of one series."""

    metadata: ObjectInfo | None = None
    tar: ObjectInfo | None = None


@dataclass(slots=True)
class _Job:
    key: SeriesKey
    metadata: ObjectInfo
    tar: ObjectInfo | None
    is_new: bool


@dataclass(slots=True)
class _Pass:
    bucket: Bucket
    catalogue: Catalogue
    summarise: Summarise
    progress: Callable[[SyncReport], None] | None
    concurrency: int
    stand_back: Callable[[], Awaitable[None]] | None = None
    report: SyncReport = field(default_factory=SyncReport)
    jobs: list[_Job] = field(default_factory=list)
    missing: list[SeriesKey] = field(default_factory=list)

    async def run(self) -> SyncReport:
        await self.catalogue.begin_sync()
        known = _KnownStudies(self.catalogue)
        async for study_uid, found in _studies(self.bucket):
            self.missing.extend(await known.before(study_uid))
            await self._compare(study_uid, found, await known.take(study_uid))
        self.missing.extend(await known.before(None))
        await self._read_jobs()
        await self._remove_missing()
        await self.catalogue.finish_sync()
        self._tell()
        return self.report

    async def _compare(self, study_uid: str, found: dict[str, _Found], known: dict[str, KnownSeries]) -> None:
        """Sort the series of one study into unchanged, to be read, and missing."""
        for series_uid in sorted(found):
            key, one = SeriesKey(study_uid, series_uid), found[series_uid]
            if one.metadata is None:
                self._count("tars_without_metadata", f"{key}: a tar without metadata.json")
                continue
            self._count("listed")
            tar_version = one.tar.version if one.tar is not None else None
            if one.tar is None:
                self._count("metadata_without_tar", f"{key}: metadata.json without a tar")
            before = known.pop(series_uid, None)
            if before is not None and (before.metadata_version, before.tar_version) == (
                one.metadata.version,
                tar_version,
            ):
                self._count("unchanged")
                continue
            self.jobs.append(_Job(key, one.metadata, one.tar, is_new=before is None))
            if len(self.jobs) >= _BATCH:
                await self._read_jobs()
        self.missing.extend(one.key for one in known.values())

    async def _read_jobs(self) -> None:
        """Summarise what has gathered, and write it in one transaction."""
        jobs, self.jobs = self.jobs, []
        if not jobs:
            return
        gate = asyncio.Semaphore(self.concurrency)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._summary(job, gate)) for job in jobs]
        summaries = [summary for task in tasks if (summary := task.result()) is not None]
        await self.catalogue.upsert(summaries)
        await self.catalogue.advance_sync(series_place(jobs[-1].key))
        self._tell()

    async def _summary(self, job: _Job, gate: asyncio.Semaphore) -> SeriesSummary | None:
        """The summary, one with a problem, or None where what is known shall stay."""
        async with gate:
            if self.stand_back is not None:
                await self.stand_back()
            try:
                summary = await self.summarise(job.key, job.metadata, job.tar)
            except NotFound:
                return None  # removed since it was listed, or being replaced: the next pass sees which
            except StorageUnavailable as error:
                self._count("unavailable", f"{job.key}: not read: {error}")
                return _with_problem(job, f"not read yet: {error}", metadata_version="") if job.is_new else None
            except StorageError as error:
                summary = _with_problem(job, str(error))
            except Exception as error:  # noqa: BLE001  one series must not stop the others; its text may quote a patient
                _log.error("%s: %s while its metadata was read", job.key, type(error).__name__)
                summary = _with_problem(job, f"{type(error).__name__} while its metadata was read")
        self._count("added" if job.is_new else "changed")
        if summary.problem is not None:
            self._count("unreadable", f"{job.key}: {summary.problem}")
        return summary

    async def _remove_missing(self) -> None:
        """Forget what the listing did not show, if the bucket says that it is gone.

        Asked again one by one: a series that was ingested behind the listing's back is known, and was not listed.
        """
        gate = asyncio.Semaphore(self.concurrency)
        for start in range(0, len(self.missing), _BATCH):
            batch = self.missing[start : start + _BATCH]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._is_gone(key, gate)) for key in batch]
            gone = [key for key, task in zip(batch, tasks, strict=True) if task.result()]
            await self.catalogue.remove(gone)
            self.report = replace(self.report, removed=self.report.removed + len(gone))

    async def _is_gone(self, key: SeriesKey, gate: asyncio.Semaphore) -> bool:
        async with gate:
            try:
                await self.bucket.head(key.metadata)
            except ObjectNotFound:
                return True
            except StorageUnavailable as error:
                self._count("unavailable", f"{key}: not asked whether it is gone: {error}")
        return False

    def _count(self, what: str, note: str | None = None) -> None:
        notes = self.report.notes
        if note is not None and len(notes) < _MOST_NOTES:
            notes = (*notes, note)
        self.report = replace(self.report, notes=notes, **{what: getattr(self.report, what) + 1})

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.report)


class _KnownStudies:
    """The walk over the catalogue, a study at a time, a little ahead of the listing at most."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._page: list[KnownSeries] = []
        self._next = 0
        self._is_over = False
        self._after = ""

    async def before(self, study_uid: str | None) -> list[SeriesKey]:
        """Step over the studies that sort before `study_uid`, to the end for None; answer their series."""
        stepped: list[SeriesKey] = []
        while (one := await self._peek()) is not None and (
            study_uid is None or f"{one.key.study_uid}/" < f"{study_uid}/"
        ):
            stepped.append(one.key)
            self._next += 1
        return stepped

    async def take(self, study_uid: str) -> dict[str, KnownSeries]:
        """The series of this study, by UID, if the walk has come to it."""
        taken: dict[str, KnownSeries] = {}
        while (one := await self._peek()) is not None and one.key.study_uid == study_uid:
            taken[one.key.series_uid] = one
            self._next += 1
        return taken

    async def _peek(self) -> KnownSeries | None:
        if self._next == len(self._page) and not self._is_over:
            self._page = await self._catalogue.known(after=self._after, limit=_KNOWN_PAGE)
            self._next = 0
            self._is_over = not self._page
            if self._page:
                self._after = series_place(self._page[-1].key)
        return self._page[self._next] if self._next < len(self._page) else None


async def _studies(bucket: Bucket) -> AsyncIterator[tuple[str, dict[str, _Found]]]:
    """The listing, gathered by study: the objects of one series do not lie together in it.

    `…/series/1.2.3.tar` and `…/series/1.2.4/metadata.json` may sort between `…/series/1.2.tar` and its metadata.
    """
    study_uid: str | None = None
    found: dict[str, _Found] = {}
    async for info in bucket.list("studies/"):
        parsed = parse_object_key(info.key)
        if parsed is None:
            continue
        key, kind = parsed
        if key.study_uid != study_uid:
            if study_uid is not None:
                yield study_uid, found
            study_uid, found = key.study_uid, {}
        if kind is SeriesObject.METADATA:
            found.setdefault(key.series_uid, _Found()).metadata = info
        elif kind is SeriesObject.TAR:
            found.setdefault(key.series_uid, _Found()).tar = info
    if study_uid is not None:
        yield study_uid, found


def _with_problem(job: _Job, problem: str, *, metadata_version: str | None = None) -> SeriesSummary:
    version = job.metadata.version if metadata_version is None else metadata_version
    return unreadable(job.key, version, job.tar.version if job.tar is not None else None, problem)


def unreadable(key: SeriesKey, metadata_version: str, tar_version: str | None, problem: str) -> SeriesSummary:
    """The summary of a series whose metadata cannot be read: it is counted, and found by nobody."""
    return SeriesSummary(
        key=key,
        metadata_version=metadata_version,
        tar_version=tar_version,
        is_deid=False,
        instance_count=0,
        sop_class_uids=(),
        attributes={},
        depth="quick",
        problem=problem,
    )
