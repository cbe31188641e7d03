"""Writing under the lock: whole series or none, whoever else writes, whatever breaks, and however sources move."""

import asyncio
import gzip
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.bucket import Bucket, open_bucket
from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.errors import StorageUnavailable
from storage.ingest import Outcome, ingest
from storage.keys import SeriesKey
from tests.ingest.reading import (
    CT,
    entries_of,
    everything,
    key_of,
    made,
)
from tests.support.buckets import FailingBucket


async def test_stored_series_is_refused_and_not_touched() -> None:
    bucket = MemoryBucket()
    await ingest(CT[:2], bucket)
    before = [info async for info in bucket.list("")]

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.REFUSED]
    assert "is in the datastore already" in str(report.series[0].message)
    assert report.new == []
    assert [info async for info in bucket.list("")] == before


async def test_tar_without_metadata_is_not_overwritten() -> None:
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:1], MemoryBucket()))
    await bucket.write(key.tar, b"somebody's bytes")

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.REFUSED]
    assert await everything(bucket) == {key.tar: b"somebody's bytes"}


async def test_locked_series_is_refused_and_its_holder_named() -> None:
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:1], MemoryBucket()))
    owner = {"owner": "somebody", "host": "elsewhere", "boot_id": "", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}
    await bucket.create(key.lock, gzip.compress(json.dumps({"codweb": owner}).encode()))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.REFUSED]
    assert "somebody (process 7 on host elsewhere) since 2026-01-01" in str(report.series[0].message)
    assert set(await everything(bucket)) == {key.lock}


async def test_lock_lists_the_instances_to_come_and_is_gone_afterwards() -> None:
    """The published library overrides locks that are old and empty; ours is never empty."""
    bucket = FailingBucket(MemoryBucket())
    seen: list[tuple[str, set[str]]] = []
    inner = bucket.inner
    assert isinstance(inner, MemoryBucket)

    def look(verb: str, key: str) -> None:
        if verb in ("upload", "write"):
            seen.append((key.rsplit("/", 1)[1], {name.rsplit("/", 1)[1] for name in inner._objects}))

    bucket.before_each(look)
    locks: list[bytes] = []

    async def on_series(key: SeriesKey) -> None:
        locks.append(bytes((await bucket.read(key.lock)).data))

    report = await ingest(CT, bucket, on_series=on_series)

    key = key_of(report)
    tar = f"{key.series_uid}.tar"
    assert seen == [
        (tar, {".gradient.lock"}),
        ("index.sqlite", {".gradient.lock", tar}),
        ("metadata.json", {".gradient.lock", tar, "index.sqlite"}),
    ]
    objects = await everything(bucket)
    assert key.lock not in objects
    body = json.loads(gzip.decompress(locks[0]))
    assert body.pop("codweb")["pid"] == os.getpid()
    assert body == json.loads(gzip.decompress(objects[key.metadata]))


async def test_failure_before_the_tar_leaves_nothing() -> None:
    bucket = FailingBucket(MemoryBucket())
    bucket.fail("upload", lambda key: True, StorageUnavailable("throttled"))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert "throttled" in str(report.series[0].message)
    assert await everything(bucket) == {}


@pytest.mark.parametrize("step", ["index.sqlite", "metadata.json"])
async def test_failure_behind_the_tar_leaves_the_lock_and_no_visible_series(step: str) -> None:
    bucket = FailingBucket(MemoryBucket())
    bucket.fail("write", lambda key: key.endswith(step), StorageUnavailable("gone"))

    report = await ingest(CT, bucket)
    bucket.heal()
    again = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert "its lock was left in place" in str(report.series[0].message)
    key = key_of(report)
    objects = await everything(bucket)
    assert {key.lock, key.tar} <= set(objects)
    assert key.metadata not in objects
    assert [note.outcome for note in again.series] == [Outcome.REFUSED]
    assert f"process {os.getpid()}" in str(again.series[0].message)


@pytest.mark.parametrize("step", [".tar", "index.sqlite", "metadata.json"])
async def test_crash_between_two_steps_leaves_no_visible_series(step: str) -> None:
    """A process that dies does nothing more: what counts is what lay there at that moment."""
    bucket = FailingBucket(MemoryBucket())
    inner = bucket.inner
    assert isinstance(inner, MemoryBucket)
    at_crash: list[set[str]] = []

    class Crash(BaseException):
        pass

    def crash(verb: str, key: str) -> None:
        if verb in ("upload", "write") and key.endswith(step):
            at_crash.append(set(inner._objects))
            raise Crash

    bucket.before_each(crash)

    with pytest.raises(Crash):
        await ingest(CT, bucket)

    (keys,) = at_crash
    assert any(key.endswith(".gradient.lock") for key in keys)
    assert not any(key.endswith("metadata.json") for key in keys)


async def test_lock_taken_away_while_writing_stops_the_writer() -> None:
    bucket = FailingBucket(MemoryBucket())
    inner = bucket.inner
    assert isinstance(inner, MemoryBucket)

    def steal(verb: str, key: str) -> None:
        if verb == "upload":
            del inner._objects[next(name for name in inner._objects if name.endswith(".gradient.lock"))]

    bucket.before_each(steal)

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert not any(key.endswith(("metadata.json", "index.sqlite")) for key in await everything(bucket))


async def test_complete_series_whose_lock_cannot_be_released_is_stored_and_says_so() -> None:
    bucket = FailingBucket(MemoryBucket())
    bucket.fail("delete", lambda key: True, StorageUnavailable("gone"))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    assert "its lock could not be released" in str(report.series[0].message)


async def test_failed_hook_neither_loses_the_series_nor_keeps_the_lock() -> None:
    async def on_series(key: SeriesKey) -> None:
        raise StorageUnavailable("no room for the index")

    bucket = MemoryBucket()
    report = await ingest(CT, bucket, on_series=on_series)

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    assert "no room for the index" in str(report.series[0].message)
    assert key_of(report).lock not in await everything(bucket)


@pytest.mark.parametrize("make", [MemoryBucket, FolderBucket])
async def test_one_of_sixteen_ingests_of_a_series_wins(make: Callable[..., Bucket], tmp_path: Path) -> None:
    bucket = make() if make is MemoryBucket else make(tmp_path)

    reports = await asyncio.gather(*(ingest(CT, bucket) for _ in range(16)))

    outcomes = [report.series[0].outcome for report in reports]
    assert sorted(outcomes) == [Outcome.REFUSED] * 15 + [Outcome.STORED]
    objects = await everything(bucket)
    key = key_of(reports[0])
    assert set(objects) == {key.tar, key.metadata, key.stem + "/index.sqlite"}
    assert len(entries_of(objects, key)) == 6


def rewrite_in_place(path: Path) -> None:
    """Other bytes, same size and times: only the checksum tells."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    path.with_name("other").rename(path)


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [rewrite_in_place, replace, cut, grow, remove])
@pytest.mark.parametrize("verb", ["head", "create", "upload"])
async def test_source_that_changes_is_noticed_and_nothing_is_left(
    change: Callable[[Path], None], verb: str, tmp_path: Path
) -> None:
    """Changed after it was planned (head), described (create), or under the lock (upload)."""
    (tmp_path / "in").mkdir()
    paths = [Path(shutil.copy(path, tmp_path / "in")) for path in CT]
    bucket = FailingBucket(open_bucket(tmp_path / "out", create=True))
    pending = [paths[3]]

    def move(seen: str, key: str) -> None:
        if seen == verb and pending:
            change(pending.pop())

    bucket.before_each(move)

    report = await ingest(paths, bucket)

    if verb == "head" and change is rewrite_in_place:  # described as it is by then: stored so, and nothing is wrong
        assert [note.outcome for note in report.series] == [Outcome.STORED]
        return
    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert paths[3].name in str(report.series[0].message)
    assert await everything(bucket) == {}


async def test_large_file_streams_in_bounded_memory(tmp_path: Path) -> None:
    path = made(tmp_path / "large.dcm", "1.2.3.4")
    with path.open("ab") as file:  # Pixel Data, OW, 64 MiB
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + (64 << 20).to_bytes(4, "little"))
        file.truncate(file.tell() + (64 << 20))
    bucket = open_bucket(tmp_path / "out", create=True)

    tracemalloc.start()
    try:
        report = await ingest([path], bucket)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert report.is_clean
    assert report.bytes == path.stat().st_size
    assert peak < 24 << 20
