"""The asyncio core: what it asks of the bucket, and what a failing bucket leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from storage.bucket import Bucket, BucketOptions
from storage.bucket.memory import MemoryBucket
from storage.errors import InstanceUnreadable, SeriesInMotion, StorageUnavailable
from storage.keys import SeriesKey
from storage.library.appending import Rules
from storage.library.session import Mode, SeriesSession, open_session
from tests.ingest.reading import CT, everything
from tests.library.reading import SERIES, SLICES, STUDY, UIDS
from tests.support.buckets import FailingBucket, RecordingBucket

KEY = SeriesKey(STUDY, SERIES)
RULES = Rules()


@asynccontextmanager
async def opened(bucket: Bucket, mode: Mode = "r") -> AsyncIterator[SeriesSession]:
    async with open_session(bucket, KEY, mode=mode, options=BucketOptions()) as session:
        yield session


async def stored() -> MemoryBucket:
    """A series of three slices."""
    bucket = MemoryBucket()
    async with opened(bucket, "w") as session:
        await session.append(CT[:3], RULES)
    return bucket


async def test_reading_an_instance_costs_one_request_of_its_own_bytes() -> None:
    bucket = RecordingBucket(await stored())
    async with opened(bucket) as session:
        bucket.reset()

        assert await session.read(UIDS[1]) == SLICES[1]

    assert [(request.verb, request.key) for request in bucket.requests] == [("read", KEY.tar)]
    assert bucket.bytes_read == len(SLICES[1])


async def test_check_reads_the_tar_once_in_one_request() -> None:
    bucket = RecordingBucket(await stored())
    async with opened(bucket) as session:
        bucket.reset()

        assert await session.check() == ()

    assert [(request.verb, request.key) for request in bucket.requests] == [("stream", KEY.tar)]
    assert bucket.bytes_read == (await bucket.head(KEY.tar)).size


async def test_bucket_that_fails_on_commit_leaves_the_series_as_it_was_and_no_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("storage.writing.writer.FIRST_PAUSE_SECONDS", 0.0)
    bucket = FailingBucket(await stored())
    before = await everything(bucket)
    bucket.fail("upload", lambda key: key == KEY.tar, StorageUnavailable("no answer"))

    with pytest.raises(StorageUnavailable):
        async with opened(bucket, "a") as session:
            await session.append(CT[3:], RULES)

    bucket.heal()
    assert await everything(bucket) == before


async def test_check_of_a_bucket_that_breaks_off_is_no_verdict() -> None:
    bucket = FailingBucket(await stored())
    async with opened(bucket) as session:
        bucket.break_off(lambda key: key == KEY.tar, 3000, StorageUnavailable("reset"))

        with pytest.raises(StorageUnavailable):
            await asyncio.wait_for(session.check(), 10)


async def test_doubtful_bytes_are_in_motion_while_a_lock_exists_and_damaged_otherwise() -> None:
    bucket = await stored()
    tar = bytearray((await bucket.read(KEY.tar)).data)
    tar[2000] ^= 0xFF
    tar[8000] ^= 0xFF
    tar[14000] ^= 0xFF
    await bucket.write(KEY.tar, bytes(tar))

    async with opened(bucket) as session:
        with pytest.raises(InstanceUnreadable):
            [await session.read(uid) for uid in UIDS[:3]]
        await bucket.create(KEY.lock, b"somebody's")
        with pytest.raises(SeriesInMotion):
            [await session.read(uid) for uid in UIDS[:3]]


async def test_check_of_a_series_that_is_replaced_meanwhile_judges_the_new_one() -> None:
    bucket = FailingBucket(await stored())
    async with opened(bucket) as session:
        async with opened(bucket, "a") as writer:
            writer.remove(UIDS[:1])

        assert await session.check() == ()
        assert [instance.uid for instance in session.instances] == UIDS[1:3]
