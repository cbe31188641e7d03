"""Background work stands back while somebody waits, and still gets done."""

import asyncio
import time
from pathlib import Path

import pytest

from storage import courtesy as module
from storage.bucket.memory import MemoryBucket
from storage.courtesy import Courtesy
from storage.errors import StorageUnavailable
from tests.support.buckets import FailingBucket
from tests.support.server import serving
from tests.support.stores import loaded


async def test_nobody_waits_so_work_goes_on_at_once() -> None:
    courtesy = Courtesy()
    with courtesy:
        pass

    async with asyncio.timeout(0.1):
        await courtesy.stand_back()


async def test_work_goes_on_when_the_last_of_those_who_wait_has_left() -> None:
    courtesy = Courtesy()
    with courtesy:
        with courtesy:
            work = asyncio.create_task(courtesy.stand_back())
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert not work.done()

    async with asyncio.timeout(0.1):
        await work


async def test_work_gets_its_turn_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.05)
    courtesy = Courtesy()
    with courtesy:
        begun = time.monotonic()
        await courtesy.stand_back()

    assert 0.04 < time.monotonic() - begun < 5


async def test_an_answer_that_fails_is_waited_for_no_longer() -> None:
    courtesy = Courtesy()
    with pytest.raises(KeyError), courtesy:
        raise KeyError

    async with asyncio.timeout(0.1):
        await courtesy.stand_back()


async def test_the_sync_reads_no_series_while_an_answer_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 5)
    memory = await loaded("v2_default")
    bucket = FailingBucket(memory)
    read: list[str] = []
    bucket.before_each(lambda verb, key: read.append(key) if verb == "read" else None)
    async with serving(bucket, tmp_path, wait=False) as client:
        read.clear()
        with client.archive.courtesy:
            sync = asyncio.create_task(client.archive.sync())
            await asyncio.sleep(0.2)
            assert read == []
        report = await sync

    assert report.added > 0
    assert len(read) == report.added


async def test_a_bucket_that_does_not_answer_at_start_is_told_and_served_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = FailingBucket(MemoryBucket("away"))
    bucket.fail("list", lambda key: True, StorageUnavailable("the cable is out"), times=1)
    async with serving(bucket, tmp_path, wait=False) as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 200
    assert "memory://away cannot be read now: the cable is out" in caplog.text
