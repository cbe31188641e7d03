"""Series that others wrote, sound and damaged: what was readable stays readable, or nothing is touched."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from storage.bucket import Bucket
from storage.bucket.memory import MemoryBucket
from storage.cod.metadata import parse_series_metadata
from storage.cod.tar import lay_out, member_header, padding_bytes
from storage.cod.writing import PackedSeries, moved_entry, series_members
from storage.errors import CorruptSeries, SeriesLocked, SeriesUnfinished
from storage.keys import SeriesKey, SeriesObject, parse_object_key
from storage.writing import Change, look_at_lock, unlock, writing
from tests.support.stores import loaded
from tests.writing.builders import KEY, attributes_of, file_of, instance_of, made, objects_of, slice_file, told, uid_of

NEW_UID = "1.2.826.0.1.3680043.10.1234.99.7"
SOUND = ["v1", "v1_upgraded", "append", "append_plainjson", "custom_fields", "deid", "thumbs", "v2_default", "v2_raw"]
QUIRKS = ["quirk_preamble", "quirk_preamble_append", "quirk_edit", "quirk_double_append_existing"]


def stored_keys(objects: Mapping[str, bytes]) -> list[SeriesKey]:
    """The series that have metadata and instances."""
    found = (parse_object_key(key) for key in sorted(objects))
    keys = [each[0] for each in found if each is not None and each[1] is SeriesObject.METADATA]
    return [key for key in keys if document_of(objects, key)["cod"]["instances"]]


def document_of(objects: Mapping[str, bytes], key: SeriesKey) -> dict[str, Any]:
    text = objects[key.metadata]
    text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
    document: dict[str, Any] = json.loads(text, parse_constant=str)  # NaN, no JSON, becomes "NaN" in what we write
    return document


def readable(objects: Mapping[str, bytes], key: SeriesKey) -> dict[str, bytes]:
    """By UID: what the ranges of metadata.json name, as far as it is whole."""
    found = {}
    for uid, entry in document_of(objects, key)["cod"]["instances"].items():
        start, end = entry["headers"]["start_byte"], entry["headers"]["end_byte"]
        size = entry.get("size") or end - start
        data = objects[key.tar][start : start + size]
        if data[128:132] == b"DICM" and len(data) == size:
            found[uid] = data
    return found


def tar_names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


async def append(bucket: Bucket, key: SeriesKey) -> None:
    data = slice_file(NEW_UID, 7, key=key)
    change = Change(add=(instance_of(data, NEW_UID, attributes_of(NEW_UID, 7, key=key)),))
    async with writing(bucket, key, owner="test") as series:
        await series.commit(change)


@pytest.mark.parametrize("store", SOUND)
async def test_an_append_keeps_every_entry_and_every_field_as_it_was_stored(store: str) -> None:
    bucket = await loaded(store)
    before = await objects_of(bucket)
    for key in stored_keys(before):
        await append(bucket, key)

        after = await objects_of(bucket)
        old, new = document_of(before, key), document_of(after, key)
        assert new["cod"]["instances"].pop(NEW_UID)["version"] == "2.0"
        assert new == old  # each entry of each version, the head, the fields of users, the thumbnail
        assert list(new["cod"]["instances"]) == list(old["cod"]["instances"])
        assert readable(after, key) == readable(before, key) | {NEW_UID: slice_file(NEW_UID, 7, key=key)}
        assert tar_names(after[key.tar]) == [*tar_names(before[key.tar]), f"instances/{NEW_UID}.dcm"]
        series = told(after, key)
        assert series.indexed.keys() == series.entries.keys()
        assert {name for name in before if name.startswith(key.stem)} <= after.keys()


@pytest.mark.parametrize("store", SOUND)
async def test_a_removal_moves_the_others_and_says_so_and_nothing_else(store: str) -> None:
    bucket = await loaded(store)
    before = await objects_of(bucket)
    for key in stored_keys(before):
        first, *rest = document_of(before, key)["cod"]["instances"]
        if not rest:
            continue

        async with writing(bucket, key) as series:
            await series.commit(Change(remove=frozenset({first})))

        after = await objects_of(bucket)
        wanted = readable(before, key)
        del wanted[first]
        assert readable(after, key) == wanted
        assert sorted(tar_names(after[key.tar])) == sorted(f"instances/{uid}.dcm" for uid in rest)
        old, new = document_of(before, key), document_of(after, key)
        for document in (old, new):
            document.pop("thumbnail", None)
            document["cod"]["instances"].pop(first, None)
            for entry in document["cod"]["instances"].values():
                del entry["headers"]
        assert new == old
        assert not [name for name in after if name.startswith(f"{key.stem}/thumbnail")]


@pytest.mark.parametrize("store", QUIRKS)
async def test_an_append_to_a_damaged_series_loses_nothing_or_touches_nothing(store: str) -> None:
    bucket = await loaded(store)
    before = await objects_of(bucket)
    for key in stored_keys(before):
        refusal = ""
        try:
            await append(bucket, key)
        except CorruptSeries as error:
            refusal = str(error)
        if refusal:
            assert str(key) in refusal
            assert await objects_of(bucket) == before
            print(f"{store}: refused: {refusal}")
            continue
        after = await objects_of(bucket)
        whole = readable(before, key)
        assert readable(after, key) == whole | {NEW_UID: slice_file(NEW_UID, 7, key=key)}
        assert set(tar_names(after[key.tar])) >= {f"instances/{uid}.dcm" for uid in (*whole, NEW_UID)}
        print(f"{store}: {len(whole)} instances stay, tar lists {len(tar_names(after[key.tar]))}")
        before = after


@pytest.mark.parametrize("store", ["lock", "lock_torn"])
async def test_a_lock_of_the_published_library_is_left_alone_until_somebody_unlocks(store: str) -> None:
    bucket = await loaded(store)
    before = await objects_of(bucket)
    [key] = [key for key in stored_keys(before) if key.lock in before]

    with pytest.raises(SeriesLocked, match="the lock does not say by whom"):
        await append(bucket, key)
    assert await objects_of(bucket) == before

    report = await look_at_lock(bucket, key)
    assert report is not None
    assert (report.owner, report.has_journal, report.is_alive) == (None, False, None)
    if store == "lock_torn":
        with pytest.raises(SeriesUnfinished, match="do not agree"):
            await unlock(bucket, report, owner="test")
        assert await objects_of(bucket) == before
    await unlock(bucket, report, owner="test", is_forced=store == "lock_torn")
    assert key.lock not in await objects_of(bucket)

    whole = readable(before, key)
    if store == "lock":
        await append(bucket, key)
        assert readable(await objects_of(bucket), key).keys() == {*whole, NEW_UID}
        return
    with pytest.raises(CorruptSeries):  # its metadata is new, its tar old: nothing may be built on that
        await append(bucket, key)
    after = await objects_of(bucket)
    assert {name: data for name, data in before.items() if name != key.lock} == after


@pytest.mark.parametrize("layout", ["ab0o", "a0o0b", "a0b0o"])
async def test_members_that_metadata_does_not_name_come_along_from_behind_zeros(layout: str) -> None:
    """A tar that was put together from others: `o` is in no metadata.json, and its bytes may be the only ones."""
    bucket, numbers = MemoryBucket(f"orphans-{layout}"), {"a": 1, "b": 2, "o": 3}
    async with writing(bucket, KEY, owner="test") as series:
        await series.commit(Change(add=(made(1), made(2))))
    document = parse_series_metadata(bytes((await bucket.read(KEY.metadata)).data), KEY)
    tar, places = b"", {}
    for letter in layout:
        if letter == "0":
            tar += bytes(10240)
            continue
        uid, data = uid_of(numbers[letter]), file_of(numbers[letter])
        member = lay_out([(uid, len(data), 1.0)], begin=len(tar)).members[0]
        tar += member_header(member) + data + bytes(padding_bytes(member.size))
        places[uid] = member
    await bucket.write(KEY.tar, tar + bytes(10240))
    entries = [(uid, moved_entry(entry.stored, places[uid])) for uid, entry in document.entries.items()]
    await bucket.write(KEY.metadata, PackedSeries(series_members(KEY), entries).metadata)

    async with writing(bucket, KEY, owner="test") as series:
        await series.commit(Change(add=(made(4),)))

    with tarfile.open(fileobj=io.BytesIO(bytes((await bucket.read(KEY.tar)).data))) as listed:
        files = {member.name: listed.extractfile(member) for member in listed}
        found = {name: file.read() for name, file in files.items() if file is not None}
    assert found == {f"instances/{uid_of(number)}.dcm": file_of(number) for number in (1, 2, 3, 4)}
