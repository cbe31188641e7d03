"""One series held for writing: changes committed under its lock.

The order of a commit is tar → index.sqlite → metadata.json. Until the tar is replaced nothing has happened; from then on
the lock, which is the journal, says how to go on, whoever goes on: this process at once, or the next one that takes the
lock over from a dead owner on its own host. An append leaves every old range of the tar as it is, so readers see the old
state until metadata.json is new; a rewrite moves things, and readers find out by the UIDs in the tar and wait.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

from storage.bucket.base import Bucket, ObjectInfo, Piece
from storage.cod.lock import Journal, LockOwner, LockText, SeriesLock, handed_over
from storage.cod.writing import PackedSeries, build_tar_index
from storage.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    SeriesLocked,
    SeriesUnfinished,
    StorageError,
    StorageUnavailable,
)
from storage.keys import SeriesKey, SeriesObject
from storage.writing.change import Change
from storage.writing.document import pack_present
from storage.writing.prepared import Prepared, pack, prepare
from storage.writing.recovery import Side, remove_objects, settle, write_index
from storage.writing.stored import StoredSeries, head_or_none, read_stored
from storage.writing.tar_pieces import OnBytes, tar_pieces

UPLOAD_ATTEMPTS = 3
"""A bucket tries each request again by itself; this is for an upload that it had to give up."""

FIRST_PAUSE_SECONDS = 1.0


async def to_the_end(work: Awaitable[None]) -> None:
    """Wait for something that must not be left half done, and only then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # a second one: the first is raised below
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: to be cancelled is what the caller hears
        raise


class SeriesWriter:
    """A series whose lock this process holds; made by `writing`. Not shared between tasks."""

    def __init__(
        self,
        bucket: Bucket,
        lock: SeriesLock,
        owner: LockOwner,
        stored: StoredSeries,
        announced: Prepared | None = None,
    ) -> None:
        self.stored = stored
        """The series as it is now; new after each commit."""
        self._bucket = bucket
        self._lock = lock
        self._owner = owner
        self._announced = announced
        """What the body of the lock announces, journal included."""
        self._has_journal = announced is not None
        self._is_left = False
        self._has_committed = False
        self._inherited: LockText | None = None
        """What a dead writer announced, if it had not come so far: a store may finish its upload all the same."""

    @property
    def key(self) -> SeriesKey:
        return self.stored.key

    async def commit(self, change: Change, *, on_bytes: OnBytes | None = None) -> StoredSeries:
        """Make a change: all of it or nothing.

        Raises:
            InstanceExists, InstanceNotFound, ValueError: the change does not fit what is stored; nothing was touched.
            InstanceUnreadable: the bytes of a new instance are not those that were described; nothing is changed.
            CorruptSeries: what is stored is damaged; nothing was touched.
            SeriesLocked: the lock was taken from us; nothing is changed.
            SeriesUnfinished: the bucket failed in the middle; the lock stays, and the next writer settles it.
            StorageUnavailable: the bucket failed; nothing is changed.
        """
        change.check(self.stored)
        if not change.touches_tar:
            await self._commit_metadata(change)
        elif not change.add and (
            change.is_rewrite or (change.remove and len(change.remove) == len(self.stored.entries))
        ):
            await self._commit_removal()
        else:
            await self._commit_tar(change, on_bytes)
        self._announced = None  # what was prepared was made from a tar, and from metadata, that are gone
        self._has_committed = True
        self.stored = await read_stored(self._bucket, self.key)
        return self.stored

    async def leave(self) -> None:
        """Give the lock back, unless a change is unfinished.

        Raises:
            SeriesLocked: it is no longer ours.
            ObjectChanged: what was committed is gone: the upload of a dead writer took its place after all.
            StorageUnavailable: the bucket failed.
        """
        if self._is_left:
            return
        is_late = self._inherited is not None and await self._settle_late(self._inherited)
        await self._lock.release(self._bucket)
        if is_late and self._has_committed:
            raise ObjectChanged(
                f"{self.key}: the upload of a writer that died ended late and took the place of our tar; try again"
            )

    async def settle(self, text: LockText) -> Side:
        """Finish what the writer before us began, as its lock says. Raises as `storage.writing.recovery.settle`."""
        self._is_left = True  # until it is done, whoever comes next shall know what we know
        side = await settle(self._bucket, self.key, text)
        await self.look_again()
        self._is_left = False
        self._inherited = text if side is Side.BEFORE and text.journal is not None else None
        return side

    async def look_again(self) -> None:
        """Read what is stored, and let the lock announce nothing but that."""
        self.stored = await read_stored(self._bucket, self.key)
        self._announced = None
        await self._hold()

    async def _settle_late(self, text: LockText) -> bool:
        """Bring the series to the other side if the dead writer's tar appeared after all, while we held the lock."""
        tar = await head_or_none(self._bucket, self.key.tar)
        if (None if tar is None else tar.version) == self.stored.tar_version:
            return False
        await self._rewrite(handed_over(text, self._owner))
        self._is_left = True
        await settle(self._bucket, self.key, text)
        self._is_left = False
        return True

    async def _commit_metadata(self, change: Change) -> None:
        """One object, replaced at once: no journal, and none that would bring an older one back."""
        packed = await pack(self._bucket, self.stored, change, None)
        if self._has_journal:
            await self._hold()
        else:
            await self._lock.verify(self._bucket)
        if change.rebuilds_index and self.stored.tar is not None and self.stored.document is not None:
            await write_index(self._bucket, self.key, self.stored.tar, self.stored.document)
        await self._write_metadata(packed)

    async def _commit_removal(self) -> None:
        journal = Journal(self.stored.tar_version, 0, is_removal=True)
        packed = await asyncio.to_thread(pack_present, self.key, self.stored.document)
        await self._rewrite(packed.lock(self._owner, journal))
        await self._or_leave(remove_objects(self._bucket, self.key))

    async def _commit_tar(self, change: Change, on_bytes: OnBytes | None) -> None:
        prepared = self._announced
        if prepared is None or prepared.change is not change:
            prepared = await prepare(self._bucket, self.stored, change)
        tar = await self._upload(prepared, on_bytes)
        await self._or_leave(self._write_rest(prepared, tar))
        if self.stored.document is not None and self.stored.document.thumbnail is not None and (
            change.remove or change.is_rewrite
        ):  # fmt: skip
            for kind in (SeriesObject.THUMBNAIL_VIDEO, SeriesObject.THUMBNAIL_IMAGE):
                with suppress(StorageError):  # the change is made, and nothing names it any more
                    await self._bucket.delete(self.key.object_key(kind))

    async def _upload(self, prepared: Prepared, on_bytes: OnBytes | None) -> ObjectInfo:
        """Replace the tar; begun again if the bucket gave up and the old one is still there."""
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, UPLOAD_ATTEMPTS + 1):
            progress = _Progress(on_bytes)
            try:
                return await self._bucket.upload(self.key.tar, self._pieces(prepared, progress.tell))
            except ObjectChanged as error:
                tar = await self._tar_after_failure(prepared)  # of an attempt before: its end came late
                if tar is not None:
                    return tar
                raise SeriesLocked(f"{self.key}: its tar was replaced while we held its lock") from error
            except StorageUnavailable:
                progress.take_back()
                tar = await self._tar_after_failure(prepared)
                if tar is not None:
                    return tar
                if attempt == UPLOAD_ATTEMPTS:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter, no secret
                pause *= 2
            except asyncio.CancelledError:
                if self._has_journal:  # the bucket may have finished all the same
                    await to_the_end(self._settle_cancelled(prepared))
                raise
        raise AssertionError("the last attempt returns or raises")

    async def _tar_after_failure(self, prepared: Prepared) -> ObjectInfo | None:
        """The new tar, if it is there although the bucket said otherwise; None if the old one is."""
        if not self._has_journal:
            return None
        try:
            tar = await head_or_none(self._bucket, self.key.tar)
        except StorageUnavailable as error:
            self._is_left = True
            raise SeriesUnfinished(self._unfinished(error)) from error
        if (None if tar is None else tar.version) == prepared.journal.tar_before:
            return None
        if tar is None or tar.size != prepared.journal.tar_size:
            self._is_left = True
            raise SeriesUnfinished(self._unfinished("its tar is another one"))
        return tar

    async def _settle_cancelled(self, prepared: Prepared) -> None:
        tar = await self._tar_after_failure(prepared)
        if tar is not None:
            await self._or_leave(self._write_rest(prepared, tar))

    async def _pieces(self, prepared: Prepared, on_bytes: OnBytes) -> AsyncIterator[Piece]:
        """The new tar; then, before it takes its place, the journal."""
        async for piece in tar_pieces(prepared.plan, self.stored.tar, on_bytes):
            yield piece
        if self._announced is prepared:
            await self._lock.verify(self._bucket)
        else:
            await self._rewrite(await asyncio.to_thread(prepared.packed.lock, self._owner, prepared.journal))
            self._announced = prepared

    async def _write_rest(self, prepared: Prepared, tar: ObjectInfo) -> None:
        index = await asyncio.to_thread(build_tar_index, prepared.plan.layout, tar_mtime=tar.updated)
        await self._bucket.write(self.key.object_key(SeriesObject.INDEX), index)
        await self._lock.verify(self._bucket)
        await self._write_metadata(prepared.packed)

    async def _write_metadata(self, packed: PackedSeries) -> None:
        """Only in the place of the metadata that the change was made from: whoever ignores locks is noticed here."""
        body = await asyncio.to_thread(lambda: packed.metadata)
        try:
            if self.stored.metadata_version is None:
                await self._bucket.create(self.key.metadata, body)
            else:
                await self._bucket.replace(self.key.metadata, body, version=self.stored.metadata_version)
        except (ObjectExists, ObjectChanged, ObjectNotFound) as error:
            raise SeriesLocked(f"{self.key}: another writer replaced metadata.json while we held its lock") from error

    async def _or_leave(self, work: Awaitable[None]) -> None:
        """Do what follows a replaced tar. It cannot be taken back, so a failure leaves the lock with its journal."""
        self._is_left = True

        async def finish() -> None:
            await work
            self._is_left = False

        try:
            await to_the_end(finish())
        except StorageError as error:
            raise SeriesUnfinished(self._unfinished(error)) from error

    def _unfinished(self, reason: object) -> str:
        return (
            f"{self.key} is unfinished: {reason}. Its lock stays and says what is missing: "
            "repeat the command on this host, and it is completed"
        )

    async def _hold(self) -> None:
        """A body that announces nothing: the series as it is."""
        packed = await asyncio.to_thread(pack_present, self.key, self.stored.document)
        await self._rewrite(await asyncio.to_thread(packed.lock, self._owner))
        self._has_journal = False

    async def _rewrite(self, body: bytes) -> None:
        """To the end: a lock whose new version nobody knows could not be given back."""
        self._has_journal = True
        self._announced = None
        await to_the_end(self._lock.rewrite(self._bucket, body))


class _Progress:
    """Tells bytes onward, and takes them back when an upload begins again."""

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self._on_bytes = on_bytes
        self._told = 0

    def tell(self, count: int) -> None:
        self._told += count
        if self._on_bytes is not None:
            self._on_bytes(count)

    def take_back(self) -> None:
        self.tell(-self._told)
