"""Stores what is new of one series: compared with what is there, sorted, committed under its lock.

What can pass is tried again; a source file that cannot be read any more is refused alone, and the rest is stored.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from storage.bucket.base import Bucket
from storage.errors import (
    CorruptSeries,
    InstanceUnreadable,
    ObjectChanged,
    SeriesInMotion,
    SeriesLocked,
    SeriesUnfinished,
    StorageError,
    StorageUnavailable,
    TryAgain,
)
from storage.ingest.candidate import Candidates
from storage.ingest.describe import Description
from storage.ingest.job import SeriesJob
from storage.ingest.pool import Pool
from storage.ingest.report import Outcome, Progress, Report, SeriesNote
from storage.ingest.stored import is_half as is_half_stored
from storage.ingest.stored import known_instances
from storage.ingest.transcoding import BATCH_FILES, Remade, remake, series_folder
from storage.keys import SeriesKey
from storage.together import together
from storage.writing import Change, SeriesWriter, StoredSeries, look_at_lock, read_stored, writing

if TYPE_CHECKING:
    from storage.pixels.encode import Target

OnSeries = Callable[[SeriesKey], Awaitable[None]]
"""Called for each series that changed, while its lock is still held: builds what is derived from it."""

OWNER = "codweb ingest"

ATTEMPTS = 3
"""A bucket tries each request again, and the engine an upload; this is for a series that both gave up."""

FIRST_PAUSE_SECONDS = 1.0

TRANSCODING_IN_DESCRIPTIONS = 50
"""Transcoding a file takes so many times as long as describing it: processes pay sooner."""


class Writer:
    """Stores series after series; what becomes of each is in the report."""

    def __init__(
        self,
        bucket: Bucket,
        candidates: Candidates,
        report: Report,
        progress: Progress,
        *,
        on_series: OnSeries | None = None,
        wait_seconds: float = 0.0,
        is_dry: bool = False,
        target: "Target | None" = None,
        thumbnails: bool = False,
        jobs: int | None = None,
    ) -> None:
        """Write nothing yet.

        Args:
            thumbnails: make one for each series that changed.
            target: what pixels are transcoded to where that is certain to lose nothing.
            jobs: processes that transcode; None: as many as there are cores.
        """
        self._bucket = bucket
        self._candidates = candidates
        self._report = report
        self._progress = progress
        self._on_series = on_series
        self._wait_seconds = wait_seconds
        self._is_dry = is_dry
        self._target = target
        self._thumbnails = thumbnails
        self._pool: Pool | None = None
        if target is not None:
            self._pool = Pool(sum(map(len, candidates.groups.values())) * TRANSCODING_IN_DESCRIPTIONS, jobs)

    def close(self) -> None:
        """Stop what is being transcoded."""
        if self._pool is not None:
            self._pool.close()

    async def store(self, key: SeriesKey, *, same: int = 0, conflict: int = 0) -> None:
        """Store what is new of a series.

        Args:
            same: files found to be the same before this; they are in the report already.
            conflict: those in conflict.
        """
        if key not in self._candidates.groups:
            message = await self._settle(key)
            note = SeriesNote(key.study_uid, key.series_uid, Outcome.UNCHANGED, 0, 0, message, same, conflict)
            self._report.series.append(note)
            return
        job = SeriesJob(key, self._candidates)
        try:
            outcome, message = await self._became(job)
        except asyncio.CancelledError:
            if await self._is_complete(job):  # the engine has finished what it was at
                self._note(job, job.outcome, None, same=same, conflict=conflict)
            raise
        self._note(job, outcome, message, same=same, conflict=conflict)

    async def _became(self, job: SeriesJob) -> tuple[Outcome, str | None]:
        """What became of a series, and what there is to say about it."""
        try:
            with series_folder() if self._target is not None else nullcontext("") as folder:
                message = await self._tried(job, folder)
        except (SeriesLocked, CorruptSeries) as error:
            return Outcome.FAILED if job.is_held else Outcome.REFUSED, str(error)
        except SeriesUnfinished as error:
            return Outcome.FAILED, str(error)
        except StorageError as error:
            lock = f". {job.key} is unfinished: its lock stays, and whoever repeats the command completes it"
            return Outcome.FAILED, f"{error}{lock if job.is_begun else ''}"
        if job.outcome is Outcome.FAILED:
            return Outcome.FAILED, "none of its files can be read"
        return job.outcome, message

    def _note(self, job: SeriesJob, outcome: Outcome, message: str | None, *, same: int, conflict: int) -> None:
        """Put a series into the report."""
        report, new = self._report, [*job.new.values()]
        size = sum(each.size for each in new)
        if outcome not in (Outcome.REFUSED, Outcome.FAILED):
            report.new += map(job.note, new)
            report.bytes += size
        report.same += map(job.note, job.same)
        report.conflict += map(job.note, job.conflict)
        report.refused += job.refused
        same, conflict = same + len(job.same), conflict + len(job.conflict)
        uids = job.key.study_uid, job.key.series_uid
        report.series.append(SeriesNote(*uids, outcome, len(new), size, message, same, conflict))
        self._progress.advance(files=job.files - job.told_files, size=job.size - job.told_bytes)

    async def _is_complete(self, job: SeriesJob) -> bool:
        """Whether a series holds all that was to be stored, although nobody waited for it to be finished."""
        if not job.is_held:
            return False
        try:
            stored = await read_stored(self._bucket, job.key)
            known = await known_instances(self._bucket, stored)
        except StorageError:
            return False
        job.is_begun = True
        job.judge(stored, known)
        return not job.is_missing

    async def _settle(self, key: SeriesKey) -> str | None:
        """Free a series of which nothing is to be stored from the lock of a dead writer; returns what went wrong."""
        try:
            if await self._is_abandoned(key):
                async with writing(self._bucket, key, owner=OWNER):
                    pass
        except SeriesLocked:  # somebody is at work there all the same
            return None
        except StorageError as error:
            return f"its lock could not be released: {error}"
        return None

    async def _tried(self, job: SeriesJob, folder: str) -> str | None:
        """Once, and again where what went wrong may pass; returns what went wrong after the series was complete."""
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(job, folder)
            except (StorageUnavailable, SeriesUnfinished) as error:
                if attempt == ATTEMPTS or not _may_pass(error):
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter, no secret
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, job: SeriesJob, folder: str) -> str | None:
        job.is_held = False
        stored = await read_stored(self._bucket, job.key)
        is_half = is_half_stored(stored) and not self._is_dry
        job.judge(stored, {} if is_half else await known_instances(self._bucket, stored))
        if self._is_dry:
            job.is_planned = bool(job.new)
            return None
        await self._transcode(job, folder)
        change = job.change()
        if change is None and not await self._is_abandoned(job.key):
            return None
        is_done, complaints = change is None, []
        try:
            async with writing(
                self._bucket, job.key, owner=OWNER, announce=change, wait_seconds=self._wait_seconds
            ) as series:
                if is_half or _versions(series.stored) != _versions(stored):
                    job.judge(series.stored, await known_instances(self._bucket, series.stored))
                    change = job.change()
                    is_done = change is None
                job.is_held = True
                await self._commit(series, job, change)
                is_done = True
                if self._thumbnails and job.new:
                    complaints += await self._thumbnail(series)
                if self._on_series is not None and job.new:
                    complaints += await self._derived(self._on_series(job.key))
        except SeriesLocked:
            if not is_done:
                raise
        except ObjectChanged:  # what was committed is gone
            raise
        except StorageError as error:
            if not is_done:
                raise
            complaints.append(f"its lock could not be released: {error}")
        return "; ".join(complaints) or None

    async def _is_abandoned(self, key: SeriesKey) -> bool:
        """Whether a writer of this host has left its lock behind: it is taken over, and its change settled."""
        lock = await look_at_lock(self._bucket, key)
        return lock is not None and lock.owner is not None and (lock.owner.is_dead or lock.owner.is_this_process)

    async def _transcode(self, job: SeriesJob, folder: str) -> None:
        """Transcode what is new, each instance once."""
        target, pool = self._target, self._pool
        if target is None or pool is None:
            return
        waiting = [each for uid, each in job.hold().items() if uid not in job.tried]
        job.tried |= {each.instance_uid for each in waiting}
        batches = [waiting[start : start + BATCH_FILES] for start in range(0, len(waiting), BATCH_FILES)]
        at_once = asyncio.Semaphore(2 * pool.jobs)

        async def remade(batch: Sequence[Description]) -> list[Remade | None]:
            async with at_once:
                return await pool.run(remake, batch, target, folder, self._bucket.url)

        try:
            done = await together(remade(batch) for batch in batches)
        except BrokenProcessPool as error:
            raise StorageError("a process that transcoded files died; was there memory enough?") from error
        for batch in done:
            job.remade |= {each.description.instance_uid: each for each in batch if each is not None}

    async def _commit(self, series: SeriesWriter, job: SeriesJob, change: Change | None) -> None:
        """Make the change, without the files that turn out to be unreadable."""
        while change is not None:
            try:
                await series.commit(change, on_bytes=partial(self._told, job))
            except InstanceUnreadable as error:
                broken = job.reader.current
                if broken is None:
                    raise
                job.refuse(broken, error)
                change = job.change()
            except SeriesUnfinished:
                job.is_begun = True
                raise
            else:
                break
        late = job.conflicts_with_new
        if late:
            await series.commit(Change(conflicts=late))

    async def _thumbnail(self, series: SeriesWriter) -> list[str]:
        from storage.ingest.thumbnails import write_thumbnail  # numpy and codecs, which take half a second to import

        try:
            reason = await write_thumbnail(self._bucket, series)
        except SeriesUnfinished:
            raise
        except StorageError as error:
            reason = str(error)
        return [] if reason is None else [f"no thumbnail: {reason}"]

    async def _derived(self, work: Awaitable[None]) -> list[str]:
        try:
            await work
        except StorageError as error:
            return [f"its derived state could not be built: {error}"]
        return []

    def _told(self, job: SeriesJob, count: int) -> None:
        files = job.reader.reached - job.told_files
        job.told_files += files
        job.told_bytes += count
        self._progress.advance(files=files, size=count)


def _versions(stored: StoredSeries) -> tuple[str | None, str | None]:
    return stored.metadata_version, stored.tar_version


def _may_pass(error: BaseException | None) -> bool:
    """Whether something behind an error is worth another attempt."""
    while error is not None:
        if isinstance(error, TryAgain | ObjectChanged | SeriesInMotion):
            return True
        error = error.__cause__
    return False
