"""Who scrolls, told from requests: one viewer's six connections are one reader, and two viewers are two."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.archive.stacks import KEY, frame_of, stack_bucket, uid_of
from tests.support.buckets import RecordingBucket
from tests.support.multipart import parts_of
from tests.support.server import Client, serving

SLICES = 60
SIDE = 64
STORED = {"accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
BLOCK_BYTES = 65536
"""About eight slices, so that the series is several blocks."""


@pytest.fixture
async def bucket() -> RecordingBucket:
    return RecordingBucket(await stack_bucket(SIDE, slices=SLICES))


@pytest.fixture
async def client(bucket: RecordingBucket, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(
        bucket,
        tmp_path,
        read_ahead="on",
        read_ahead_block_bytes=BLOCK_BYTES,
        read_ahead_budget_bytes=100 * BLOCK_BYTES,
        trusted_proxies="127.0.0.1",
    ) as client:
        await client.archive.shelf.get(KEY, depth="deep")
        bucket.reset()
        yield client


async def fetch(client: Client, number: int, **headers: str) -> httpx.Response:
    path = f"/dicomweb/{KEY.stem}/instances/{uid_of(number)}/frames/1"
    response = await client.get(
        path, headers={**STORED, **{name.replace("_", "-"): text for name, text in headers.items()}}
    )
    assert response.status_code == 200
    assert parts_of(response)[0].body == frame_of(number, SIDE)
    return response


async def test_a_viewer_of_six_connections_scrolls_in_blocks(client: Client, bucket: RecordingBucket) -> None:
    left = iter(range(1, SLICES + 1))

    async def connection() -> None:
        for number in left:
            await fetch(client, number)

    await asyncio.gather(*(connection() for _ in range(6)))

    size = (await bucket.inner.head(KEY.tar)).size
    assert len(bucket.requests) <= size / BLOCK_BYTES + 4
    assert bucket.bytes_read <= 1.2 * size


async def test_two_viewers_are_not_taken_for_one_who_reads_in_order(client: Client, bucket: RecordingBucket) -> None:
    await fetch(client, 30, user_agent="one")
    await fetch(client, 31, user_agent="other")

    assert [request.verb for request in bucket.requests] == ["read", "read"]


async def test_behind_a_trusted_proxy_viewers_are_told_apart_by_whom_it_forwards_for(
    client: Client, bucket: RecordingBucket
) -> None:
    await fetch(client, 30, x_forwarded_for="192.0.2.1")
    await fetch(client, 31, x_forwarded_for="192.0.2.2")
    assert bucket.count("stream") == 0

    await fetch(client, 32, x_forwarded_for="192.0.2.2:50123")  # a proxy that tells the port of each connection

    assert bucket.count("stream") > 0


async def test_a_frame_of_a_quick_index_is_proven_out_of_blocks_too(tmp_path: Path) -> None:
    bucket = RecordingBucket(await stack_bucket(SIDE, slices=SLICES))
    async with serving(bucket, tmp_path, read_ahead="on") as client:
        await client.archive.shelf.get(KEY)
        bucket.reset()

        for number in range(SLICES, 0, -1):
            await fetch(client, number)

        assert len(bucket.requests) <= 4


async def test_off_means_a_request_for_each_frame(tmp_path: Path) -> None:
    bucket = RecordingBucket(await stack_bucket(SIDE, slices=SLICES))
    async with serving(bucket, tmp_path, read_ahead="off") as client:
        await client.archive.shelf.get(KEY, depth="deep")
        bucket.reset()

        for number in range(1, 11):
            await fetch(client, number)

        assert [request.verb for request in bucket.requests] == ["read"] * 10
