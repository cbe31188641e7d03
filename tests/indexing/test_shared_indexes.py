"""Indexes shared in the bucket: what one replica built another takes, and what is old, damaged or forbidden is not there."""

import asyncio
import gzip
import json
import logging
import os
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storage.bucket.memory import MemoryBucket
from storage.bucket.object_key import is_key
from storage.errors import StorageUnavailable
from storage.indexing.indexer import Indexer
from storage.indexing.sharing.copies import PAUSE_SECONDS, SharedIndexes
from storage.keys import (
    SeriesKey,
    parse_object_key,
    parse_shared_index_key,
    shared_index_key,
    shared_index_prefix,
)
from storage.links import ROOT
from storage.series_index.layout import FOOTER, FORMAT, HEADER_CRC, Block, Depth, Section, decode_header
from storage.series_index.reader import SeriesIndex
from storage.series_index.rerooting import write_rerooted
from storage.state import StateFolder
from tests.support.buckets import FailingBucket, RecordingBucket
from tests.support.stores import loaded, series_key

OWN = "http://here/dicomweb"
OTHER = "https://other.example:8443/a/longer/path/dicomweb"


class Replica:
    """An indexer with a state folder of its own, over a bucket that it shares with others."""

    def __init__(self, memory: MemoryBucket, folder: Path, *, root: str = OWN, share: bool = True) -> None:
        self.failing = FailingBucket(memory)
        self.bucket = RecordingBucket(self.failing)
        self.state = StateFolder(folder, memory.url)
        self.indexer = Indexer(self.bucket, self.state, root=root, share=share)

    async def built(self, key: SeriesKey, depth: Depth = "deep") -> SeriesIndex:
        await self.indexer.build(key, depth)
        return SeriesIndex(self.state.series_index(key))

    @property
    def shared(self) -> SharedIndexes:
        assert self.indexer.shared is not None
        return self.indexer.shared


@pytest.fixture
async def memory() -> MemoryBucket:
    return await loaded("append")


@pytest.fixture
def key(manifest: dict[str, Any]) -> SeriesKey:
    return series_key(manifest["stores"]["append"]["instances"][0])


@pytest.fixture
async def copy_key(memory: MemoryBucket, key: SeriesKey, tmp_path: Path) -> str:
    """The key of a copy that some replica has put into the bucket."""
    await Replica(memory, tmp_path / "first", root=OTHER).built(key)
    return shared_index_key(key, FORMAT)


async def stored(memory: MemoryBucket, key: str) -> bytes:
    return bytes((await memory.read(key)).data)


async def copies(memory: MemoryBucket) -> list[str]:
    return [info.key async for info in memory.list(".codweb/")]


async def rewrite(memory: MemoryBucket, key: str) -> None:
    """The same bytes under another version."""
    await memory.write(key, await stored(memory, key))


def json_of(index: SeriesIndex) -> bytes:
    return b",".join(index.instance_json(ordinal) for ordinal in range(index.header.count))


async def test_a_replica_takes_what_another_built_in_two_rounds_and_reads_neither_metadata_nor_tar(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    replica = Replica(memory, tmp_path / "second")

    index = await replica.built(key, "quick")

    assert index.header.depth == "deep"
    assert [(request.verb, request.key) for request in replica.bucket.requests] == [
        ("head", key.metadata),
        ("head", key.tar),
        ("head", copy_key),
        ("stream", copy_key),
    ]


async def test_a_replica_that_wants_a_deep_index_takes_it_as_well(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    replica = Replica(memory, tmp_path / "second")

    await replica.built(key, "quick")
    await replica.built(key, "deep")

    assert replica.bucket.count(key_suffix=".tar") == replica.bucket.count("head", ".tar")
    assert replica.bucket.count("upload") == 0


@pytest.mark.parametrize("store", ["append", "v2_raw", "v2_default_be"])
@pytest.mark.parametrize("root", [OWN, "http://[::1]:1"])
async def test_what_is_taken_is_byte_for_byte_what_an_own_build_writes(
    store: str, root: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    memory = await loaded(store)
    first = Replica(memory, tmp_path / "first", root=OTHER)
    second = Replica(memory, tmp_path / "second", root=root)
    alone = Replica(memory, tmp_path / "alone", root=root, share=False)
    for key in {series_key(entry) for entry in manifest["stores"][store]["instances"]}:
        await first.built(key)

        taken, own = await second.built(key, "quick"), await alone.built(key)

        assert taken.path.read_bytes() == own.path.read_bytes(), key
        assert taken.identity == own.identity
    assert second.bucket.count("read") == 0


async def test_a_copy_names_no_host(memory: MemoryBucket, copy_key: str, tmp_path: Path) -> None:
    file = tmp_path / "copy.index"
    file.write_bytes(await stored(memory, copy_key))

    copy = SeriesIndex(file)

    text = json_of(copy)
    assert text.count(b'"BulkDataURI":"' + ROOT.encode() + b"/studies/") == text.count(b'"BulkDataURI":"') > 0
    assert b"://" not in text
    assert copy.header.root == ROOT
    assert OTHER.encode() not in file.read_bytes()


async def test_a_copy_lies_where_no_listing_of_the_series_meets_it(copy_key: str, key: SeriesKey) -> None:
    assert copy_key == f".codweb/indexes/v{FORMAT}/{key.study_uid}/{key.series_uid}.index"
    assert is_key(copy_key)
    assert not copy_key.startswith("studies/")
    assert parse_object_key(copy_key) is None
    assert parse_shared_index_key(copy_key) == key
    assert copy_key.startswith(shared_index_prefix(FORMAT, key.study_uid))


@pytest.mark.parametrize("rewritten", ["metadata", "tar"])
async def test_a_copy_of_other_versions_is_replaced_by_what_is_built_anew(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path, rewritten: str
) -> None:
    before = await stored(memory, copy_key)
    await rewrite(memory, key.metadata if rewritten == "metadata" else key.tar)
    second, third = (Replica(memory, tmp_path / name) for name in ("second", "third"))

    built = await second.built(key)
    taken = await third.built(key, "quick")

    assert second.bucket.count("read", "metadata.json") == 1
    assert await stored(memory, copy_key) != before
    assert third.bucket.count("read") == 0
    assert taken.identity == built.identity


async def test_a_copy_is_not_taken_when_the_tar_is_gone(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    await memory.delete(key.tar)

    index = await Replica(memory, tmp_path / "second").built(key, "quick")

    assert index.header.tar_version is None
    assert index.at(0).problem is not None


async def test_an_appended_series_is_served_with_its_new_instances(
    memory: MemoryBucket, key: SeriesKey, tmp_path: Path
) -> None:
    """The copy in the bucket is that of the series as it was, one instance shorter."""
    whole = await stored(memory, key.metadata)
    document = json.loads(gzip.decompress(whole))
    appended_uid, _ = document["cod"]["instances"].popitem()
    await memory.write(key.metadata, gzip.compress(json.dumps(document).encode()))
    before = await Replica(memory, tmp_path / "first").built(key)
    await memory.write(key.metadata, whole)

    index = await Replica(memory, tmp_path / "second").built(key, "quick")

    assert set(index.uids) == {*before.uids, appended_uid}
    assert appended_uid not in before.uids


async def test_every_flipped_byte_and_every_cut_of_a_copy_is_noticed(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    replica = Replica(memory, tmp_path / "second")
    tar = await memory.head(key.tar)
    versions = (await memory.head(key.metadata)).version, tar.version
    data = await stored(memory, copy_key)
    place = tmp_path / "second" / "taken.index"
    ends = {*range(len(data) - FOOTER.size, len(data)), *range(40)}

    for position in sorted({*range(0, len(data), 61), *ends}):
        for damaged in (flipped(data, position), data[:position]):
            copy = await memory.write(copy_key, damaged)

            assert not await replica.shared.take(copy, key, versions, place, OWN), position

    assert not place.exists()
    assert leftovers(tmp_path / "second") == []
    assert await replica.shared.take(await memory.write(copy_key, data), key, versions, place, OWN)


async def test_a_summary_out_of_a_damaged_copy_is_the_right_one_or_none(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    replica = Replica(memory, tmp_path / "second")
    tar = await memory.head(key.tar)
    versions = (await memory.head(key.metadata)).version, tar.version
    data = await stored(memory, copy_key)
    right = await replica.shared.summary(await memory.head(copy_key), key, versions)
    header_start = FOOTER.unpack(data[-FOOTER.size :])[0]

    for position in [*range(0, header_start - 4, 211), *range(header_start - 4, len(data))]:
        told = await replica.shared.summary(await memory.write(copy_key, flipped(data, position)), key, versions)

        # the checksum of the whole file, in the footer, is the one thing that the end of a file does not need
        is_needed = position >= header_start - 4 and not len(data) - 12 <= position < len(data) - 8
        assert told == (None if is_needed else right), position
    assert right is not None
    for length in range(0, len(data), 97):
        copy = await memory.write(copy_key, data[:length])
        assert await replica.shared.summary(copy, key, versions) is None


async def test_a_damaged_copy_is_built_anew_and_replaced(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    sound = await stored(memory, copy_key)
    await memory.write(copy_key, flipped(sound, len(sound) // 2))

    index = await Replica(memory, tmp_path / "second", root=OTHER).built(key)

    assert index.header.depth == "deep"
    assert await stored(memory, copy_key) == sound


async def test_an_index_that_contradicts_itself_under_a_right_checksum_is_not_taken(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    """Whoever may write here may also write metadata.json; still, no such file may end in a crash."""
    data = await stored(memory, copy_key)
    start, length, _, magic = FOOTER.unpack(data[-FOOTER.size :])
    header = decode_header(data[start : start + length])
    far = Section(len(data), 100)
    versions = header.metadata_version, header.tar_version
    replica = Replica(memory, tmp_path / "second")
    changes: list[dict[str, Any]] = [
        {"rows": far},
        {"uids": Section(-5, 5)},
        {"count": header.count + 1},
        {"blocks": []},
        {"blocks": [Block(0, 1, 1 << 40, 0, Section(0, 20), None)]},
        {"records": Section(0, header.records.length)},
        {"blocks": [msgspec.structs.replace(header.blocks[0], raw_length=header.blocks[0].raw_length - 1)]},
        {"uids": Section(0, header.uids.length)},
        {"root": OWN},
        {"depth": "quick"},
        {"is_deid": True},
        {"study_uid": "1.2.3"},
        {"format": FORMAT + 1},
    ]
    for change in changes:
        encoded = msgspec.msgpack.encode(msgspec.structs.replace(header, **change))
        body = data[: start - HEADER_CRC.size] + HEADER_CRC.pack(zlib.crc32(encoded)) + encoded
        crafted = body + FOOTER.pack(start, len(encoded), zlib.crc32(body), magic)
        copy = await memory.write(copy_key, crafted)

        place = tmp_path / "second" / "taken.index"
        assert not await replica.shared.take(copy, key, versions, place, OWN), change
        assert not place.exists()


async def test_a_copy_of_another_series_under_this_key_is_not_taken(manifest: dict[str, Any], tmp_path: Path) -> None:
    memory = await loaded("v2_raw")
    one, other = sorted({series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]})[:2]
    first = Replica(memory, tmp_path / "first")
    await first.built(one)
    await memory.write(shared_index_key(other, FORMAT), await stored(memory, shared_index_key(one, FORMAT)))

    index = await Replica(memory, tmp_path / "second").built(other, "quick")

    assert index.key == other
    assert index.header.depth == "quick"


async def test_quick_indexes_are_not_shared_and_replace_nothing(
    memory: MemoryBucket, key: SeriesKey, tmp_path: Path
) -> None:
    """metadata.json tells the same at the same price, and a deep one of another replica must stay."""
    early = Replica(memory, tmp_path / "early")
    quick = await early.built(key, "quick")
    assert await copies(memory) == []
    await Replica(memory, tmp_path / "deep").built(key)
    deep = await stored(memory, shared_index_key(key, FORMAT))

    await early.shared.put(quick)
    await early.shared.offer(quick)
    await early.built(key, "quick")

    assert await stored(memory, shared_index_key(key, FORMAT)) == deep
    assert early.bucket.count("upload") + early.bucket.count("write") == 0


async def test_indexes_of_a_deidentified_store_are_not_shared(manifest: dict[str, Any], tmp_path: Path) -> None:
    """They are made with the key of the state folder: another replica hides UIDs behind other ones."""
    memory = await loaded("deid")
    for key in {series_key(entry) for entry in manifest["stores"]["deid"]["instances"]}:
        replica = Replica(memory, tmp_path)
        index = await replica.built(key)
        await replica.shared.offer(index)

        assert index.header.is_deid
        assert await copies(memory) == []


async def test_nothing_is_shared_unless_asked(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    replica = Replica(memory, tmp_path / "alone", share=False)

    assert (await replica.built(key, "quick")).header.depth == "quick"
    await replica.built(key)

    assert [request for request in replica.bucket.requests if request.key.startswith(".codweb")] == []


async def test_a_bucket_that_is_read_only_costs_one_warning_and_is_tried_again_later(
    manifest: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = await loaded("v2_raw")
    keys = sorted({series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]})[:3]
    refusing, later = Replica(memory, tmp_path), Replica(memory, tmp_path)
    refusing.failing.fail("upload", lambda key: True, StorageUnavailable("403"))
    caplog.set_level(logging.WARNING)

    for key in keys[:2]:
        assert (await refusing.built(key)).header.depth == "deep"

    assert refusing.bucket.count("upload") == 1
    assert ["cannot be shared" in record.message for record in caplog.records] == [True]
    pause = refusing.state.path / "sharing.paused"
    os.utime(pause, (pause.stat().st_mtime - PAUSE_SECONDS - 1,) * 2)
    await later.built(keys[2])
    assert await copies(memory) == [shared_index_key(keys[2], FORMAT)]


@pytest.mark.parametrize("verb", ["head", "stream"])
async def test_copies_that_cannot_be_read_are_passed_over(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    """S3 answers 403 for a missing object to whom may not list: no reason to fail."""
    replica = Replica(memory, tmp_path / "second")
    replica.failing.fail(verb, lambda key: key.startswith(".codweb"), StorageUnavailable("403"))

    assert (await replica.built(key, "quick")).header.depth == "quick"
    assert len(caplog.records) == 1


async def test_a_copy_that_breaks_off_leaves_nothing_behind(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    replica = Replica(memory, tmp_path / "second")
    replica.failing.break_off(lambda key: True, 100, StorageUnavailable("reset"))

    assert (await replica.built(key, "quick")).header.depth == "quick"
    assert leftovers(tmp_path / "second") == []


async def test_a_copy_that_is_replaced_before_it_is_read_is_passed_over(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    data = await stored(memory, copy_key)
    replica = Replica(memory, tmp_path / "second")

    def replace(verb: str, key: str) -> None:
        if verb == "stream":
            with pytest.raises(StopIteration):  # a bucket in memory writes without waiting for anything
                memory.write(copy_key, data).send(None)

    replica.failing.before_each(replace)

    assert (await replica.built(key, "quick")).header.count > 0


async def test_of_replicas_that_build_the_same_at_once_all_are_right(
    memory: MemoryBucket, key: SeriesKey, tmp_path: Path
) -> None:
    replicas = [Replica(memory, tmp_path / str(number)) for number in range(3)]

    indexes = await asyncio.gather(*(replica.built(key) for replica in replicas))

    assert len({index.identity for index in indexes}) == 1
    late = await Replica(memory, tmp_path / "late").built(key, "quick")
    assert late.identity == indexes[0].identity


async def test_an_index_from_before_sharing_is_offered_once(
    memory: MemoryBucket, key: SeriesKey, tmp_path: Path
) -> None:
    index = await Replica(memory, tmp_path, share=False).built(key)
    replica = Replica(memory, tmp_path)

    await replica.shared.offer(index)
    await replica.shared.offer(index)

    assert replica.bucket.count("upload") == 1
    assert await copies(memory) == [shared_index_key(key, FORMAT)]


async def test_an_offer_replaces_a_copy_of_older_versions(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    await rewrite(memory, key.tar)
    index = await Replica(memory, tmp_path / "alone", share=False).built(key)
    replica = Replica(memory, tmp_path / "alone")

    await replica.shared.offer(index)

    assert replica.bucket.count("upload") == 1


async def test_what_the_first_touch_found_out_is_not_shared(
    memory: MemoryBucket, key: SeriesKey, copy_key: str, tmp_path: Path
) -> None:
    """It belongs to one quick index, and lies beside it."""
    await Replica(memory, tmp_path / "second").built(key, "quick")

    assert not list((tmp_path / "second").rglob("*.found"))
    assert await copies(memory) == [copy_key]


@pytest.mark.parametrize("depth", ["quick", "deep"])
async def test_an_index_of_either_depth_may_get_another_root(
    manifest: dict[str, Any], tmp_path: Path, depth: Depth
) -> None:
    """Byte for byte what a build for that root writes, blocks that are missing and instances that are broken included."""
    memory = await loaded("lock_torn")
    here, there = (Replica(memory, tmp_path / name, root=name, share=False) for name in (OWN, "http://there"))
    for key in {series_key(entry) for entry in manifest["stores"]["lock_torn"]["instances"]}:
        index, expected = await here.built(key, depth), await there.built(key, depth)

        write_rerooted(index, tmp_path / "rerooted.index", "http://there")

        assert (tmp_path / "rerooted.index").read_bytes() == expected.path.read_bytes()


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x20]) + data[position + 1 :]


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith((".shared-", ".building-"))]
