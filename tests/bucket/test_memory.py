"""The bucket in memory keeps the contract; so do the wrappers that tests put around it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.bucket import Bucket, Piece, open_bucket
from storage.bucket.memory import MemoryBucket, _Stored
from storage.errors import ObjectChanged, StorageUnavailable
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, BucketContract, Place, stored, streamed
from tests.support.buckets import FailingBucket, RecordingBucket, Request, SlowBucket


class MemoryPlace:
    def __init__(self) -> None:
        self.memory = MemoryBucket("test")
        self._puts = 0

    @property
    def bucket(self) -> Bucket:
        return self.memory

    def put(self, key: str, data: bytes) -> None:
        self._puts += 1
        self.memory._objects[key] = _Stored(data, f"put-{self._puts}", time.time())

    def get(self, key: str) -> bytes | None:
        stored = self.memory._objects.get(key)
        return None if stored is None else stored.data

    def keys(self) -> list[str]:
        return list(self.memory._objects)

    def broken(self, key: str) -> Bucket:
        failing = FailingBucket(self.memory)
        failing.fail(None, key.__eq__, StorageUnavailable(key))
        return failing


class RecordedPlace(MemoryPlace):
    @property
    def bucket(self) -> Bucket:
        return RecordingBucket(self.memory)


class TestMemoryBucket(BucketContract):
    def make_place(self, folder: Path) -> Place:
        return MemoryPlace()


class TestWrappedBucket(BucketContract):
    def make_place(self, folder: Path) -> Place:
        return RecordedPlace()


async def test_a_name_in_memory_is_one_bucket_for_the_whole_process() -> None:
    await open_bucket("memory://test-one").write(KEY, DATA)

    again = open_bucket("memory://test-one")
    other = open_bucket("memory://test-other")

    assert bytes((await again.read(KEY)).data) == DATA
    assert [info async for info in other.list("")] == []
    assert again.url == "memory://test-one"


async def test_a_memory_bucket_looks_remote_unless_told() -> None:
    assert not MemoryBucket().cheap_head
    assert MemoryBucket(cheap_head=True).cheap_head


async def test_a_stream_from_memory_breaks_off_when_the_object_is_replaced_or_deleted() -> None:
    for change in ("replace", "delete"):
        bucket = MemoryBucket()
        await bucket.write(KEY, DATA)
        stream = bucket.stream(KEY, ByteRange(0, 100), chunk_bytes=50)
        assert bytes(await anext(stream)) == DATA[:50]

        await (bucket.write(KEY, DATA) if change == "replace" else bucket.delete(KEY))

        with pytest.raises(ObjectChanged):
            await anext(stream)


async def test_a_recording_bucket_remembers_requests_and_bytes() -> None:
    bucket = RecordingBucket(MemoryBucket())
    await bucket.write(KEY, DATA)
    await bucket.read(KEY, ByteRange(10, 30))
    await bucket.read(KEY)
    await streamed(bucket, KEY, ByteRange(0, 1000), 300)

    assert bucket.requests == [
        Request("write", KEY),
        Request("read", KEY, 10, 30),
        Request("read", KEY),
        Request("stream", KEY, 0, 1000),
    ]
    assert bucket.bytes_read == 20 + len(DATA) + 1000
    assert (bucket.count(), bucket.count("read"), bucket.count("read", ".json")) == (4, 2, 0)
    bucket.reset()
    assert (bucket.count(), bucket.bytes_read) == (0, 0)


async def test_a_failing_bucket_fails_as_often_as_told() -> None:
    bucket = FailingBucket(MemoryBucket())
    await bucket.write(KEY, DATA)
    bucket.fail("read", lambda key: key.endswith(".tar"), StorageUnavailable("throttled"), times=2)

    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="throttled"):
            await bucket.read(KEY)

    assert (await bucket.head(KEY)).size == len(DATA)
    assert bytes((await bucket.read(KEY)).data) == DATA


async def test_a_failing_bucket_breaks_a_stream_off_underway() -> None:
    bucket = FailingBucket(MemoryBucket())
    await bucket.write(KEY, DATA)
    bucket.break_off(KEY.__eq__, 250, StorageUnavailable("connection lost"))
    received = b""

    with pytest.raises(StorageUnavailable, match="connection lost"):
        async for chunk in bucket.stream(KEY, ByteRange(0, 1000), chunk_bytes=100):
            received += chunk

    assert received == DATA[:200]
    bucket.heal()
    assert await streamed(bucket, KEY, ByteRange(0, 1000), 100) == DATA[:1000]


async def test_a_failing_bucket_breaks_an_upload_off_underway() -> None:
    bucket = FailingBucket(MemoryBucket())
    await bucket.write(KEY, DATA)
    whole = await stored(bucket, KEY, 0, len(DATA))
    bucket.break_off_upload(KEY.__eq__, len(DATA) + 3, StorageUnavailable("connection lost"), times=1)
    taken: list[int] = []

    async def pieces() -> AsyncIterator[Piece]:
        for number, piece in enumerate((whole, b"new", b"er")):
            taken.append(number)
            yield piece

    with pytest.raises(StorageUnavailable, match="connection lost"):
        await bucket.upload(KEY, pieces())

    assert taken == [0, 1, 2]
    assert bytes((await bucket.read(KEY)).data) == DATA
    await bucket.upload(KEY, pieces())
    assert bytes((await bucket.read(KEY)).data) == DATA + b"newer"


async def test_a_failing_bucket_lets_a_test_act_between_two_reads() -> None:
    place = MemoryPlace()
    place.put(KEY, DATA)
    bucket = FailingBucket(place.memory)
    version = (await bucket.read(KEY)).version
    bucket.before_each(lambda verb, key: place.put(key, b"another"))

    with pytest.raises(ObjectChanged):
        await bucket.read(KEY, version=version)


async def test_a_slow_bucket_takes_its_time() -> None:
    bucket = SlowBucket(MemoryBucket(cheap_head=True), latency_seconds=0.02, bytes_per_second=len(DATA) / 0.03)
    await bucket.write(KEY, DATA)

    before = time.perf_counter()
    await bucket.read(KEY)

    assert time.perf_counter() - before >= 0.045
    assert not bucket.cheap_head
