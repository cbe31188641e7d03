"""The lock of a series: one winner, a name for the others, and no write without it."""

import asyncio
import gzip
import json
import os
import re
import tracemalloc
from pathlib import Path

import pytest

from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.cod.lock import LockOwner, SeriesLock, describe_lock, parse_lock
from storage.cod.writing import PackedSeries, series_members
from storage.errors import ObjectExists, SeriesLocked
from storage.keys import SeriesKey

SERIES = SeriesKey("1.2.826.0.1.1", "1.2.826.0.1.2")


def body() -> bytes:
    return PackedSeries(series_members(SERIES), []).lock(LockOwner.this_process())


async def test_lock_names_its_holder() -> None:
    bucket = MemoryBucket()

    await SeriesLock.create(bucket, SERIES, body())

    with pytest.raises(ObjectExists):
        await SeriesLock.create(bucket, SERIES, body())
    told = await describe_lock(bucket, SERIES)
    assert re.search(rf"codweb ingest \(process {os.getpid()} on host .* since 20", told)


async def test_one_of_sixteen_gets_the_lock(tmp_path: Path) -> None:
    for bucket in (MemoryBucket(), FolderBucket(tmp_path)):
        results = await asyncio.gather(
            *(SeriesLock.create(bucket, SERIES, body()) for _ in range(16)), return_exceptions=True
        )

        assert sum(isinstance(result, ObjectExists) for result in results) == 15
        await bucket.close()


async def test_released_lock_can_be_taken_again() -> None:
    bucket = MemoryBucket()

    lock = await SeriesLock.create(bucket, SERIES, body())
    await lock.release(bucket)

    assert await SeriesLock.create(bucket, SERIES, body())


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_lost_lock_is_noticed_and_not_deleted(is_replaced: bool) -> None:
    bucket = MemoryBucket()
    lock = await SeriesLock.create(bucket, SERIES, body())
    await bucket.delete(SERIES.lock)
    if is_replaced:
        await bucket.create(SERIES.lock, b"somebody else's")

    with pytest.raises(SeriesLocked):
        await lock.verify(bucket)
    with pytest.raises(SeriesLocked):
        await lock.release(bucket)

    if is_replaced:
        assert (await bucket.read(SERIES.lock)).data == b"somebody else's"


def test_lock_of_the_published_library_counts_and_names_nobody(data_folder: Path) -> None:
    locks = sorted((data_folder / "cod").rglob(".gradient.lock"))

    assert len(locks) >= 2
    assert [parse_lock(path.read_bytes()).owner for path in locks] == [None] * len(locks)


def test_lock_body_is_what_the_published_library_would_parse() -> None:
    parsed = json.loads(gzip.decompress(body()))

    assert parsed["study_uid"] == SERIES.study_uid
    assert parsed["series_uid"] == SERIES.series_uid
    assert parsed["cod"] == {"instances": {}}
    assert parsed["codweb"]["pid"] == os.getpid()


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\x1f\x8b",
        b"\x1f\x8bnonsense",
        b"[" * 100_000,
        gzip.compress(b'{"codweb":' + b"[" * 100_000),
        b'{"codweb":{"owner":"\xff"}}',
        b'{"codweb":{"owner":1}}',
        b'{"codweb":[]}',
    ],
)
async def test_unreadable_lock_is_still_a_lock(hostile: bytes) -> None:
    bucket = MemoryBucket()
    await bucket.create(SERIES.lock, hostile)

    assert parse_lock(hostile).owner is None
    with pytest.raises(ObjectExists):
        await SeriesLock.create(bucket, SERIES, body())
    assert "does not say by whom" in await describe_lock(bucket, SERIES)


def test_lock_bomb_is_inflated_within_bounds() -> None:
    bomb = gzip.compress(bytes(64 << 20), compresslevel=9)
    tracemalloc.start()
    try:
        assert parse_lock(bomb).owner is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 40 << 20  # of 64 MiB


async def test_control_characters_of_a_lock_do_not_reach_the_terminal() -> None:
    bucket = MemoryBucket()
    owner = {"owner": "\x1b[31mevil\n", "host": "h" * 1000, "boot_id": "", "pid": 1, "since": "\r"}
    await bucket.create(SERIES.lock, json.dumps({"codweb": owner}).encode())

    message = await describe_lock(bucket, SERIES)

    assert message.isprintable()
    assert len(message) < 1000
