"""Taking the lock of a series, for as long as it is written to.

async with writing(bucket, key, owner="codweb ingest") as series:
    await series.commit(Change(add=(…,)))
"""

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress

from storage.bucket.base import Bucket
from storage.cod.lock import LockOwner, SeriesLock, describe_lock, handed_over, lock_sentence, read_lock
from storage.errors import ObjectExists, ObjectNotFound, SeriesLocked, StorageError
from storage.keys import SeriesKey
from storage.writing.change import Change
from storage.writing.document import pack_present
from storage.writing.prepared import Prepared, prepare
from storage.writing.stored import StoredSeries, head_or_none, read_stored
from storage.writing.writer import SeriesWriter, to_the_end

LOOK_AGAIN_SECONDS = 0.5
"""How often a lock that is waited for is looked at, on average."""

_claimed: set[tuple[int, str, str]] = set()
"""Series that a task of this process holds or tries to: (process, datastore, key of the lock), for a fork inherits what
its parent claimed. A lock in the name of this process that is not claimed was left behind."""
_claiming = threading.Lock()


@asynccontextmanager
async def writing(
    bucket: Bucket, key: SeriesKey, *, owner: str = "codweb", announce: Change | None = None, wait_seconds: float = 0.0
) -> AsyncIterator[SeriesWriter]:
    """Hold a series for writing. A lock that a dead process of this host left is taken over, and its change settled.

    Args:
        announce: what is going to be committed, the same value: the lock of a new series lists its instances, so that
            no override of empty locks applies to it.
        wait_seconds: how long another writer is waited for.

    Raises:
        SeriesLocked: another writer holds it; the message names who and since when.
        SeriesUnfinished: a broken-off change that cannot be settled; its lock stays.
        CorruptSeries: metadata.json cannot be read.
        StorageUnavailable: the bucket does not answer.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        if _claim(bucket, key):
            break
        await _wait(await describe_lock(bucket, key), deadline)
    try:
        while isinstance(writer := await _whole(_take(bucket, key, owner, announce)), str):
            await _wait(writer, deadline)
        try:
            yield writer
        except BaseException:
            with suppress(StorageError):  # what led here is the error to tell; the lock can be taken over
                await to_the_end(writer.leave())
            raise
        await to_the_end(writer.leave())
    finally:
        _claimed.discard((os.getpid(), bucket.url, key.lock))


def _claim(bucket: Bucket, key: SeriesKey) -> bool:
    """Of the tasks of one process one at a time may try; without a request to the bucket."""
    claim = (os.getpid(), bucket.url, key.lock)
    with _claiming:
        if claim in _claimed:
            return False
        _claimed.add(claim)
        return True


async def _wait(reason: str, deadline: float) -> None:
    """Raises SeriesLocked when there is no time left."""
    rest = deadline - time.monotonic()
    if rest <= 0:
        raise SeriesLocked(reason)
    await asyncio.sleep(min(rest, LOOK_AGAIN_SECONDS * random.uniform(0.5, 1.5)))  # noqa: S311  # jitter, no secret


async def _whole(taking: Awaitable[SeriesWriter | str]) -> SeriesWriter | str:
    """Take a lock or not; if cancelled meanwhile, give it back, for nobody else would."""
    task = asyncio.ensure_future(taking)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        (taken,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(taken, SeriesWriter):
            with suppress(StorageError):
                await taken.leave()
        raise


async def _take(bucket: Bucket, key: SeriesKey, owner_name: str, announce: Change | None) -> SeriesWriter | str:
    """Create the lock, or take it over; or a sentence on who holds it."""
    owner = LockOwner.this_process(owner_name)
    stored = await read_stored(bucket, key)
    announced: Prepared | None = None
    if announce is not None and announce.add and stored.is_absent:
        announced = await prepare(bucket, stored, announce)
        body = await asyncio.to_thread(announced.packed.lock, owner, announced.journal)
    else:
        packed = await asyncio.to_thread(pack_present, key, stored.document)
        body = await asyncio.to_thread(packed.lock, owner)
    try:
        lock = await SeriesLock.create(bucket, key, body)
    except ObjectExists:
        return await _take_over(bucket, key, owner)
    writer = SeriesWriter(bucket, lock, owner, stored, announced)
    try:
        if not await _is_still(bucket, stored):  # a writer was done between our reading and our lock
            await writer.look_again()
    except BaseException:
        with suppress(StorageError):
            await writer.leave()
        raise
    return writer


async def _is_still(bucket: Bucket, stored: StoredSeries) -> bool:
    metadata = await head_or_none(bucket, stored.key.metadata)
    tar = await head_or_none(bucket, stored.key.tar)
    now = (None if metadata is None else metadata.version, None if tar is None else tar.version)
    return now == (stored.metadata_version, stored.tar_version)


async def _take_over(bucket: Bucket, key: SeriesKey, owner: LockOwner) -> SeriesWriter | str:
    """The lock of a dead process of this host, its change settled; or a sentence on who holds it."""
    try:
        info, text = await read_lock(bucket, key)
    except ObjectNotFound:
        return f"{key}: another writer held the lock a moment ago; try again"
    holder = text.owner
    if holder is None or not (holder.is_dead or holder.is_this_process):
        return lock_sentence(key, holder, info.updated)
    lock = SeriesLock(key, info.version)
    try:
        await lock.rewrite(bucket, handed_over(text, owner))
    except SeriesLocked:
        return f"{key}: another process of this host has just taken over a lock that was left behind; try again"
    writer = SeriesWriter(bucket, lock, owner, StoredSeries(key, None, None, None))
    await writer.settle(text)
    return writer
