"""Series indexes at hand: built once, checked for freshness, rebuilt when they are of no use."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from storage.bucket.memory import MemoryBucket
from storage.errors import CorruptSeries, SeriesNotFound, StorageUnavailable
from storage.indexing.indexer import Indexer
from storage.indexing.shelf import LOOK_SECONDS, IndexShelf
from storage.keys import SeriesKey
from storage.series_index.layout import Depth
from storage.series_index.reader import SeriesIndex, UnusableIndex
from storage.state import StateFolder
from tests.support.buckets import FailingBucket, RecordingBucket
from tests.support.stores import loaded, series_key


class CountingIndexer(Indexer):
    """Counts builds, and can be made to wait in the middle of one."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.built: list[tuple[SeriesKey, Depth]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def build(self, key: SeriesKey, depth: Depth) -> None:
        self.built.append((key, depth))
        await self.gate.wait()
        await super().build(key, depth)


class Shelf:
    """A shelf over a store in memory, with its parts."""

    def __init__(self, bucket: MemoryBucket, folder: Path, key: SeriesKey, revalidate_seconds: float = 30) -> None:
        self.memory = bucket
        self.failing = FailingBucket(bucket)
        self.bucket = RecordingBucket(self.failing)
        self.state = StateFolder(folder, bucket.url)
        self.indexer = CountingIndexer(self.bucket, self.state, root="http://x/dicomweb")
        self.key = key
        self.shelf = IndexShelf(self.bucket, self.state, self.indexer, revalidate_seconds=revalidate_seconds)

    @property
    def file(self) -> Path:
        return self.state.series_index(self.key)


@pytest.fixture
async def parts(manifest: dict[str, Any], tmp_path: Path) -> Shelf:
    key = series_key(manifest["stores"]["append"]["instances"][0])
    return Shelf(await loaded("append"), tmp_path, key)


def again(parts: Shelf, revalidate_seconds: float = 30) -> Shelf:
    """As after a restart: another shelf over the same bucket and state."""
    return Shelf(parts.memory, parts.state.path.parent, parts.key, revalidate_seconds)


async def test_many_who_ask_at_once_share_one_build(parts: Shelf) -> None:
    indexes = await asyncio.gather(*(parts.shelf.get(parts.key) for _ in range(20)))

    assert len(parts.indexer.built) == 1
    assert len({id(index) for index in indexes}) == 1


async def test_cancelling_one_waiter_does_not_cancel_the_others(parts: Shelf) -> None:
    parts.indexer.gate.clear()
    first, second = (asyncio.create_task(parts.shelf.get(parts.key)) for _ in range(2))
    await asyncio.sleep(0.01)

    first.cancel()
    parts.indexer.gate.set()

    assert (await second).header.count > 0
    assert len(parts.indexer.built) == 1


async def test_a_failed_build_is_forgotten_and_tried_again(parts: Shelf) -> None:
    parts.failing.fail("read", lambda key: True, StorageUnavailable("down"), times=1)

    with pytest.raises(StorageUnavailable):
        await parts.shelf.get(parts.key)

    assert (await parts.shelf.get(parts.key)).header.count > 0


async def test_a_series_that_the_bucket_does_not_hold_is_not_found(parts: Shelf) -> None:
    with pytest.raises(SeriesNotFound):
        await parts.shelf.get(SeriesKey("1.2.3", "4.5.6"))


async def test_a_restart_finds_the_index_on_disk(parts: Shelf) -> None:
    await parts.shelf.get(parts.key, depth="deep")

    restarted = again(parts)
    index = await restarted.shelf.get(parts.key)

    assert index.header.depth == "deep"
    assert restarted.indexer.built == []
    assert {request.verb for request in restarted.bucket.requests} == {"head"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other format", "no index at all", "gone"])
async def test_a_file_that_is_of_no_use_is_built_again(parts: Shelf, damage: str) -> None:
    await parts.shelf.get(parts.key)
    data = bytearray(parts.file.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "other format":
        data[0] ^= 1
    altered = {"cut": data[:-40], "empty": b"", "no index at all": b"x" * 500, "gone": b""}.get(damage, data)
    parts.file.write_bytes(altered)
    if damage == "gone":
        parts.file.unlink()

    restarted = again(parts)
    index = await restarted.shelf.get(parts.key)

    assert index.header.count > 0
    assert restarted.indexer.built == [(parts.key, "quick")]


def test_no_cut_and_no_flipped_bit_of_an_index_passes(tmp_path: Path, parts: Shelf) -> None:
    asyncio.run(parts.shelf.get(parts.key))
    data = parts.file.read_bytes()
    victim = tmp_path / "victim.index"
    for position in range(0, len(data), 97):
        for altered in (data[:position], data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]):
            victim.write_bytes(altered)
            with pytest.raises(UnusableIndex):
                SeriesIndex(victim)


async def test_an_old_index_is_served_once_more_while_it_is_checked_behind_the_answer(parts: Shelf) -> None:
    """Design §2 Freshness: entries older than the setting are served and revalidated by one shared check."""
    shelf = again(parts, revalidate_seconds=0.000001)
    before = await shelf.shelf.get(parts.key)
    metadata = bytes((await parts.memory.read(parts.key.metadata)).data)
    await parts.memory.write(parts.key.metadata, metadata)  # the same bytes, another version
    await asyncio.sleep(0.01)

    served = await shelf.shelf.get(parts.key)
    for _ in range(100):
        await asyncio.sleep(0.01)
        if shelf.shelf.opened(parts.key) is not before:
            break

    assert served is before
    renewed = shelf.shelf.opened(parts.key)
    assert renewed is not None
    assert renewed.header.metadata_version != before.header.metadata_version


async def test_with_zero_seconds_the_bucket_is_asked_first(parts: Shelf) -> None:
    shelf = again(parts, revalidate_seconds=0)
    before = await shelf.shelf.get(parts.key)
    metadata = bytes((await parts.memory.read(parts.key.metadata)).data)
    await parts.memory.write(parts.key.metadata, metadata)

    after = await shelf.shelf.get(parts.key)

    assert after.header.metadata_version != before.header.metadata_version


async def test_within_the_seconds_the_bucket_is_not_asked(parts: Shelf) -> None:
    await parts.shelf.get(parts.key)
    parts.bucket.reset()

    await parts.shelf.get(parts.key)

    assert parts.bucket.requests == []


async def test_a_deep_index_that_another_process_put_in_place_is_seen_within_a_second(parts: Shelf) -> None:
    quick = await parts.shelf.get(parts.key)
    await again(parts).shelf.get(parts.key, depth="deep")

    at_once = await parts.shelf.get(parts.key)
    await asyncio.sleep(LOOK_SECONDS + 0.05)
    later = await parts.shelf.get(parts.key)

    assert at_once is quick
    assert later.header.depth == "deep"
    assert parts.indexer.built == [(parts.key, "quick")]


async def test_an_index_for_another_version_that_another_process_put_in_place_is_used_and_checked(parts: Shelf) -> None:
    before = await parts.shelf.get(parts.key)
    metadata = bytes((await parts.memory.read(parts.key.metadata)).data)
    await parts.memory.write(parts.key.metadata, metadata)  # the same bytes, another version
    await again(parts).shelf.get(parts.key)
    await asyncio.sleep(LOOK_SECONDS + 0.05)
    parts.bucket.reset()

    after = await parts.shelf.get(parts.key)
    await asyncio.sleep(0.05)

    assert after.header.metadata_version != before.header.metadata_version
    assert [request.verb for request in parts.bucket.requests] == ["head", "head"]
    assert parts.indexer.built == [(parts.key, "quick")]


async def test_an_open_index_whose_file_was_deleted_goes_on_answering(parts: Shelf) -> None:
    index = await parts.shelf.get(parts.key)
    parts.file.unlink()
    await asyncio.sleep(LOOK_SECONDS + 0.05)

    assert await parts.shelf.get(parts.key) is index


async def test_no_more_indexes_stay_open_than_allowed(manifest: dict[str, Any], tmp_path: Path) -> None:
    memory = await loaded("v2_raw")
    first, second, third = sorted({series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]})[2:5]
    state = StateFolder(tmp_path, memory.url)
    indexer = Indexer(memory, state, root="http://x/dicomweb")
    shelf = IndexShelf(memory, state, indexer, revalidate_seconds=30, open_indexes=2)

    for key in (first, second, first, third):
        await shelf.get(key)

    assert [shelf.opened(key) is not None for key in (first, second, third)] == [True, False, True]


async def test_a_torn_line_of_the_log_is_passed_over(parts: Shelf, manifest: dict[str, Any]) -> None:
    index = await parts.shelf.get(parts.key)
    deep = Shelf(parts.memory, parts.state.path.parent / "deep", parts.key)
    locator = (await deep.shelf.get(parts.key, depth="deep")).at(0).locator
    assert locator is not None
    index.found.remember(0, "1.2.840.10008.1.2.1", locator)
    log = parts.file.with_suffix(".found")
    log.write_bytes(log.read_bytes() + b"\x40\x00\x00\x00torn")

    reopened = SeriesIndex(parts.file)

    assert reopened.at(0).locator == locator
    assert reopened.at(1).locator is None


async def test_the_log_of_another_index_is_not_taken(parts: Shelf) -> None:
    index = await parts.shelf.get(parts.key)
    deep = Shelf(parts.memory, parts.state.path.parent / "deep", parts.key)
    locator = (await deep.shelf.get(parts.key, depth="deep")).at(0).locator
    assert locator is not None
    index.found.remember(0, "1.2.840.10008.1.2.1", locator)
    metadata = bytes((await parts.memory.read(parts.key.metadata)).data)
    await parts.memory.write(parts.key.metadata, metadata)

    rebuilt = await again(parts).shelf.get(parts.key)

    assert rebuilt.at(0).locator is None


async def test_metadata_that_cannot_be_read_is_taken_apart_once_for_each_version(
    parts: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb costs seconds to refuse; a viewer asks again and again."""
    sound = bytes((await parts.memory.read(parts.key.metadata)).data)
    await parts.memory.write(parts.key.metadata, b"\x1f\x8b broken")
    for _ in range(3):
        with pytest.raises(CorruptSeries):
            await parts.shelf.get(parts.key)
    monkeypatch.setattr("storage.indexing.indexer.parse_series_metadata", None)
    with pytest.raises(CorruptSeries):
        await parts.shelf.get(parts.key)
    monkeypatch.undo()

    await parts.memory.write(parts.key.metadata, sound)

    assert (await parts.shelf.get(parts.key)).header.count > 0
