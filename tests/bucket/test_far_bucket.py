"""The far bucket of the tests: waits that repeat, streams that come piece by piece and side by side."""

import asyncio

import pytest

from storage.bucket.memory import MemoryBucket
from storage.ranges import ByteRange
from tests.support.far_bucket import FarBucket

BODY = bytes(range(256)) * 1000


@pytest.fixture
async def inner() -> MemoryBucket:
    bucket = MemoryBucket()
    await bucket.write("one", BODY)
    return bucket


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_bytes_are_those_of_the_bucket_inside(inner: MemoryBucket) -> None:
    far = FarBucket(inner, latency_seconds=0)

    streamed = [bytes(chunk) async for chunk in far.stream("one", ByteRange(10, 100_010), chunk_bytes=30_000)]

    assert b"".join(streamed) == BODY[10:100_010]
    assert (await far.read("one", ByteRange(5, 9))).data == BODY[5:9]
    assert not far.cheap_head


async def test_a_request_waits_for_its_latency_and_then_for_its_bytes(inner: MemoryBucket) -> None:
    far = FarBucket(inner, latency_seconds=0.03, bytes_per_second_per_stream=1e6)

    begun = now()
    await far.head("one")
    headed = now()
    await far.read("one", ByteRange(0, 50_000))

    assert headed - begun >= 0.03
    assert now() - headed >= 0.03 + 0.05


async def test_a_stream_brings_its_pieces_one_after_the_other(inner: MemoryBucket) -> None:
    far = FarBucket(inner, latency_seconds=0.02, bytes_per_second_per_stream=1e6)

    begun = now()
    arrived = [now() - begun async for _ in far.stream("one", ByteRange(0, 100_000), chunk_bytes=25_000)]

    assert all(at >= 0.02 + 0.025 * number for number, at in enumerate(arrived, 1))
    assert arrived[0] < arrived[-1] - 0.05


async def test_streams_do_not_share_their_bandwidth(inner: MemoryBucket) -> None:
    """Ten streams side by side take far less than the time of ten one after the other, 0.6 s."""
    far = FarBucket(inner, latency_seconds=0.01, bytes_per_second_per_stream=1e6)

    begun = now()
    await asyncio.gather(*(far.read("one", ByteRange(number, number + 50_000)) for number in range(10)))

    assert 0.06 <= now() - begun < 0.3


async def test_the_same_seed_makes_the_same_waits_in_any_order(
    inner: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(seed: int, keys: list[int]) -> dict[int, list[float]]:
        slept: list[float] = []
        far = FarBucket(inner, jitter=0.5, tail_probability=0.2, bytes_per_second_per_stream=float("inf"), seed=seed)
        found: dict[int, list[float]] = {}

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            for key in keys:
                await far.read("one", ByteRange(key, key + 1))
                found.setdefault(key, []).append(slept[0])
                slept.clear()
        return found

    keys = [*range(20), *range(20)]

    first = await waits(1, keys)

    assert first == await waits(1, keys[::-1])
    assert first != await waits(2, keys)
    assert all(one != again for one, again in first.values())
