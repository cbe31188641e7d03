"""Writes one planned series into a bucket: all of it or nothing, under the lock.

    lock (lists the instances to come) → tar → index.sqlite → metadata.json → derived state → lock released

Readers find a series by its metadata.json, so until that is written the series does not exist for them. The lock is
checked before each write. When something breaks before the tar can have been written, the lock is released and nothing
is left; later than that the lock stays, because only it says that what lies there is unfinished.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime

import google_crc32c

from storage.bucket.base import Bucket
from storage.cod.lock import LockOwner, SeriesLock, acquire_lock, describe_lock
from storage.cod.tar import TarLayout, lay_out, member_header, padding_bytes
from storage.cod.writing import NewEntry, build_tar_index, encode_series
from storage.errors import ObjectNotFound, SeriesExists, SeriesLocked, StorageError
from storage.ingest.describe import Description, describe_files
from storage.ingest.plan import PlannedSeries, SourceFile
from storage.ingest.report import Progress, RefusedFile
from storage.ingest.source import CHUNK_BYTES, SourceChanged, open_source
from storage.keys import SeriesKey, SeriesObject

OnSeries = Callable[[SeriesKey], Awaitable[None]]
"""Called for each stored series while its lock is still held: builds what is derived from it."""


@dataclass(frozen=True, slots=True)
class WrittenSeries:
    """What was stored of a planned series."""

    files: tuple[SourceFile, ...]
    refused: tuple[RefusedFile, ...]
    """Files whose header could be read and whose data set could not."""
    complaint: str | None = None
    """What went wrong after the series was complete: it can be read, its derived state is missing or its lock left."""

    @property
    def size(self) -> int:
        return sum(file.state.size for file in self.files)


class SeriesUnfinished(Exception):
    """A series broke off after its tar may have been written: its lock stays. It never leaves this package."""


async def refuse_existing(bucket: Bucket, series: SeriesKey) -> None:
    """Make sure that nothing of a series is stored and nobody is storing it.

    Raises:
        SeriesLocked: its lock exists.
        SeriesExists: its metadata.json or its tar does.
    """
    if await _exists(bucket, series.lock):
        raise SeriesLocked(await describe_lock(bucket, series))
    await _refuse_stored(bucket, series)


async def _refuse_stored(bucket: Bucket, series: SeriesKey) -> None:
    for key in (series.metadata, series.tar):
        if await _exists(bucket, key):
            raise SeriesExists(
                f"{series} is in the datastore already ({key.rpartition('/')[2]}); "
                "this release adds nothing to a stored series"
            )


async def _exists(bucket: Bucket, key: str) -> bool:
    try:
        await bucket.head(key)
    except ObjectNotFound:
        return False
    return True


async def write_series(
    bucket: Bucket, planned: PlannedSeries, pool: Executor, *, progress: Progress, on_series: OnSeries | None = None
) -> WrittenSeries:
    """Store a series that the bucket does not hold yet.

    Raises:
        SeriesExists, SeriesLocked: nothing was touched.
        SourceChanged: a source file is not what it was; nothing is left behind.
        SeriesUnfinished: the tar may have been written; the lock was left in place.
        StorageUnavailable: nothing is left behind, unless the lock could not be deleted either.
    """
    await refuse_existing(bucket, planned.key)
    descriptions, refused = await describe_files(planned, bucket.url, pool)
    if not descriptions:
        return WrittenSeries((), refused)
    job = _Job(bucket, planned.key, descriptions, progress)
    body = await asyncio.to_thread(job.encode, LockOwner.this_process())
    lock = await _acquire(bucket, planned.key, body)
    try:
        await _refuse_stored(bucket, planned.key)  # again, for now nobody else can be writing it
        await job.write(lock)
    except BaseException as error:
        if not job.is_tar_complete:
            await lock.release(bucket)
        elif isinstance(error, Exception):
            raise SeriesUnfinished(
                f"{planned.key} is unfinished: {error}. Some of its objects may be there, "
                f"so its lock was left in place: check them, then remove {planned.key.lock}"
            ) from error
        raise
    complaint = await _finish(bucket, lock, on_series)
    return WrittenSeries(tuple(each.file for each in descriptions), refused, complaint)


async def _acquire(bucket: Bucket, series: SeriesKey, body: bytes) -> SeriesLock:
    """Take the lock; a cancellation meanwhile gives it back, for nobody else would."""
    acquiring = asyncio.ensure_future(acquire_lock(bucket, series, body))
    try:
        return await asyncio.shield(acquiring)
    except asyncio.CancelledError:
        await (await acquiring).release(bucket)
        raise


async def _finish(bucket: Bucket, lock: SeriesLock, on_series: OnSeries | None) -> str | None:
    """Build what is derived and release the lock; the series is complete, so a failure is only a complaint."""
    complaints = []
    try:
        if on_series is not None:
            await on_series(lock.series)
    except StorageError as error:
        complaints.append(f"its derived state could not be built: {error}")
    finally:
        try:
            await lock.release(bucket)
        except StorageError as error:
            complaints.append(f"its lock could not be released: {error}")
    return "; ".join(complaints) or None


class _Job:
    """The objects of one series while they are being written."""

    def __init__(self, bucket: Bucket, series: SeriesKey, files: tuple[Description, ...], progress: Progress) -> None:
        self._bucket = bucket
        self._series = series
        self._files = files
        self._progress = progress
        self._layout: TarLayout = lay_out(
            [(each.file.instance_uid, each.size, each.file.state.mtime) for each in files]
        )
        self._modified = datetime.now(UTC)
        self.is_tar_complete = False
        """Whether all of the tar has been handed to the bucket: from then on it may exist, whatever the bucket says.
        Before, it cannot: uploads are atomic."""

    def encode(self, owner: LockOwner | None) -> bytes:
        """metadata.json, or with an owner the lock that announces it."""
        entries = (
            NewEntry(
                instance_uid=each.file.instance_uid,
                member=member,
                crc32c=each.crc32c,
                has_pixeldata=each.has_pixeldata,
                metadata=each.metadata,
                offset_table=each.offset_table,
                original_path=each.file.shown,
            )
            for each, member in zip(self._files, self._layout.members, strict=True)
        )
        return encode_series(
            self._series, entries, datastore_url=self._bucket.url, modified=self._modified, owner=owner
        )

    async def write(self, lock: SeriesLock) -> None:
        """Write the three objects in their order, each only while the lock is ours."""
        await lock.verify(self._bucket)
        tar = await self._bucket.upload(self._series.tar, self._tar_chunks())
        index = await asyncio.to_thread(build_tar_index, self._layout, tar_mtime=tar.updated)
        await lock.verify(self._bucket)
        await self._bucket.write(self._series.object_key(SeriesObject.INDEX), index)
        metadata = await asyncio.to_thread(self.encode, None)
        await lock.verify(self._bucket)
        await self._bucket.write(self._series.metadata, metadata)

    async def _tar_chunks(self) -> AsyncIterator[bytes]:
        """The tar from its first byte to its last, straight from the source files, at most a chunk in memory."""
        for each, member in zip(self._files, self._layout.members, strict=True):
            yield member_header(member)
            async for chunk in _verified_chunks(each):
                yield chunk
                self._progress.advance(size=len(chunk))
            yield bytes(padding_bytes(member.size))
            self._progress.advance(files=1)
        self.is_tar_complete = True
        yield self._layout.end_of_archive


async def _verified_chunks(described: Description) -> AsyncIterator[bytes]:
    """The bytes of a source file; raises SourceChanged at its end at the latest if they are not those described."""
    checksum = 0
    path = described.file.path
    try:
        with open_source(path) as source:
            source.expect(described.file.state)
            for start in range(0, described.size, CHUNK_BYTES):
                chunk = await asyncio.to_thread(source.read, start, min(start + CHUNK_BYTES, described.size))
                checksum = google_crc32c.extend(checksum, chunk)
                yield chunk
            source.expect(described.file.state)
    except OSError as error:
        raise SourceChanged(f"{path} can no longer be read: {error.strerror or error}") from error
    if checksum != described.crc32c:
        raise SourceChanged(f"{path} changed while it was being ingested")
