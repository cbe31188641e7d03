"""Descriptors and threads of a folder: none lost, none closed under a running call."""

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from storage.bucket.folder import FolderBucket
from storage.bucket.folder.threads import DiskThreads
from storage.errors import (
    ObjectNotFound,
    StorageError,
)
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, LARGE, in_pieces, listed, streamed


async def test_no_verb_keeps_a_descriptor_open(bucket: FolderBucket, no_descriptor_is_lost: None) -> None:
    version = (await bucket.write(KEY, DATA)).version
    await bucket.read(KEY)
    await streamed(bucket, KEY, ByteRange(0, 100), 10)
    await bucket.head(KEY)
    await listed(bucket)
    await bucket.replace(KEY, DATA, version=version)
    failing = [
        bucket.read("absent"),
        bucket.read("studies"),
        bucket.read(KEY, version="another"),
        bucket.create(KEY, b""),
        bucket.replace(KEY, b"", version="another"),
        bucket.write(f"{KEY}/below", b""),
        bucket.upload(KEY, in_pieces([b"x"], ZeroDivisionError())),
    ]
    for attempt in failing:
        with pytest.raises((StorageError, ZeroDivisionError)):
            await attempt
    await bucket.delete(KEY)
    await bucket.close()


async def test_a_cancelled_read_closes_its_descriptor_only_after_the_thread_has_ended(
    bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch, no_descriptor_is_lost: None
) -> None:
    await bucket.write(KEY, DATA)
    started, release = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def preadv(descriptor: int, *arguments: object) -> int:
        started.set()
        release.wait(10)
        outcomes.append(os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else KEY)
        return 0

    monkeypatch.setattr(os, "preadv", preadv)
    bucket._no_wait = 0
    reading = asyncio.create_task(bucket.read(KEY))
    await asyncio.to_thread(started.wait, 10)

    reading.cancel()
    await asyncio.sleep(0.02)
    reading.cancel()
    await asyncio.sleep(0.02)
    assert not reading.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert len(outcomes) == 1
    assert outcomes[0].endswith(KEY)
    await bucket.close()


async def test_a_cancelled_call_that_has_not_begun_never_runs() -> None:
    threads = DiskThreads()
    release = threading.Event()
    ran: list[int] = []
    blockers = [asyncio.create_task(threads.run(lambda: release.wait(10))) for _ in range(16)]
    waiting = asyncio.create_task(threads.run(lambda: ran.append(1)))
    await asyncio.sleep(0.02)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    await asyncio.gather(*blockers)
    await threads.close()

    assert ran == []


async def test_small_cached_reads_stay_on_the_event_loop(bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 KiB of a file just written: no thread is asked, which would cost more than the read."""
    await bucket.write(KEY, LARGE)
    threads: set[str] = set()
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        threads.add(threading.current_thread().name)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    bucket._no_wait = 8

    answer = await bucket.read(KEY, ByteRange(1000, 1000 + 512 * 1024))

    assert bytes(answer.data) == LARGE[1000 : 1000 + 512 * 1024]
    assert threads == {threading.current_thread().name}


async def test_a_deleted_folder_of_a_series_is_absent_and_not_an_error(bucket: FolderBucket, root: Path) -> None:
    await bucket.write(KEY, DATA)
    (root / KEY).unlink()
    (root / KEY).parent.rmdir()

    with pytest.raises(ObjectNotFound):
        await bucket.read(KEY)
    assert await listed(bucket, "studies/1.2.3/series/") == []
