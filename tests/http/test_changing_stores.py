"""Stores that change under the server, and derived state that is damaged: answers of one version, or none."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import Dataset

from storage.bucket.memory import MemoryBucket
from storage.errors import ObjectChanged
from storage.series_index import layout
from tests.http import ALONE, FILE, MADE, STORED, Attributes, data_set, entries_of, made_uid, store_of, value_of
from tests.support.buckets import FailingBucket
from tests.support.multipart import parts_of
from tests.support.server import Client, serving
from tests.support.stores import DATA, instance_path, loaded, series_key

ENTRY = entries_of("append")[0]
KEY = series_key(ENTRY)
SERIES = f"/dicomweb/{KEY.stem}"
METADATA = f"{SERIES}/metadata"
FRAME = f"{instance_path(ENTRY)}/frames/1"


@pytest.fixture
async def bucket() -> FailingBucket:
    return FailingBucket(await loaded("append"))


@pytest.fixture
async def client(bucket: FailingBucket, tmp_path: Path) -> AsyncIterator[Client]:
    """A server whose bucket is far away: freshness is not checked within the test."""
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(KEY, depth="deep")
        yield client


def other_format(data: bytes) -> bytes:
    """A sound file of a later format."""
    start, length, _, magic = layout.FOOTER.unpack_from(data, len(data) - layout.FOOTER.size)
    header = data[start : start + length]
    assert header.count(b"\xa6format\x01") == 1
    body = data[:start] + header.replace(b"\xa6format\x01", b"\xa6format\x63")
    return body + layout.FOOTER.pack(start, length, zlib.crc32(body), magic)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "cut within the footer": lambda data: data[:-5],
    "empty": lambda data: b"",
    "too long": lambda data: data + b"\0",
    "flipped in a block": lambda data: flipped(data, 40),
    "flipped in the middle": lambda data: flipped(data, len(data) // 2),
    "flipped in the header": lambda data: flipped(data, len(data) - 60),
    "flipped in the footer": lambda data: flipped(data, len(data) - 3),
    "of another format": other_format,
    "of something else": lambda data: b"SQLite format 3\0" + data,
    "random": lambda data: bytes(np.random.default_rng(1).integers(0, 256, len(data), np.uint8)),
}


@pytest.mark.parametrize("suffix", [".index", ".found"])
async def test_a_damaged_or_lost_index_is_rebuilt_and_never_an_error(tmp_path: Path, suffix: str) -> None:
    """Derived state may be deleted or spoilt at any time: it comes back by itself."""
    bucket = await loaded("append")
    async with serving(bucket, tmp_path) as client:
        expected = await client.get(FRAME, headers=ALONE)
        attributes = (await client.get(METADATA)).json()
        path = client.archive.state.series_index(KEY).with_suffix(suffix)
    sound = path.read_bytes()
    for name, damage in {"deleted": None, **DAMAGES}.items():
        if damage is None:
            path.unlink()
        elif suffix == ".index" or damage is not other_format:
            path.write_bytes(damage(sound))

        async with serving(bucket, tmp_path, wait=False) as client:
            frame, metadata = await client.get(FRAME, headers=ALONE), await client.get(METADATA)

        assert frame.content == expected.content, name
        assert metadata.json() == attributes, name


async def replace(
    bucket: MemoryBucket | FailingBucket, store: str, *, parts: tuple[str, ...] = ("tar", "metadata")
) -> None:
    """Put the same series of another store into the place of this one."""
    root = DATA / "cod" / store / "dicomweb"
    for part in parts:
        key = getattr(KEY, part)
        await bucket.write(key, (root / key).read_bytes())


def in_series(store: str) -> dict[str, dict[str, object]]:
    """The oracle's instances of the series in a store, by UID."""
    return {entry["key"]: entry for entry in entries_of(store) if series_key(entry) == KEY}


async def seen(client: Client) -> dict[str, Attributes]:
    found = (await client.get(METADATA)).json()
    return {value_of(each, "00080018"): each for each in found}


async def test_a_rewritten_series_is_answered_anew_in_everything(tmp_path: Path) -> None:
    """Rule 27: never `immutable`. Instances come, go and are compressed again."""
    bucket = await loaded("append")
    assert in_series("v2_default").keys() < in_series("append").keys()
    async with serving(bucket, tmp_path, revalidate_seconds=0) as client:
        before = await client.get(METADATA)
        assert set(await seen(client)) == set(in_series("append"))

        await replace(bucket, "v2_default")

        after = await client.get(METADATA, headers={"if-none-match": before.headers.get("etag", '"none"')})
        assert after.status_code == 200
        assert set(await seen(client)) == set(in_series("v2_default"))
        for uid in in_series("append"):
            response = await client.get(f"{SERIES}/instances/{uid}/frames/1", headers=STORED)
            if uid in in_series("v2_default"):
                assert response.headers["content-type"].endswith("transfer-syntax=1.2.840.10008.1.2.4.90")
                assert parts_of(response)[0].body.startswith(b"\xff\x4f\xff\x51")
            else:
                assert response.status_code == 404
        rows = (await client.get(f"{SERIES}/instances")).json()
        assert {value_of(row, "00080018") for row in rows} == set(in_series("v2_default"))


async def test_with_a_stale_index_frames_of_a_rewritten_tar_are_new_or_refused_but_never_wrong(
    client: Client, bucket: FailingBucket
) -> None:
    """Every read names the version of the tar that it expects."""
    assert (await client.get(FRAME, headers=ALONE)).headers["content-type"].endswith("=1.2.840.10008.1.2.1")

    await replace(bucket, "v2_default")

    for _ in range(2):
        response = await client.get(FRAME, headers=ALONE)
        if response.status_code != 200:
            assert response.status_code == 503
            assert "retry-after" in response.headers
    assert response.status_code == 200
    assert response.headers["content-type"].endswith("=1.2.840.10008.1.2.4.90")
    assert response.content.startswith(b"\xff\x4f\xff\x51")


@pytest.mark.parametrize(
    "name", ["frame", "frame in a multipart", "file", "file in a multipart", "bulk data", "series"]
)
async def test_after_an_append_old_ranges_are_served_on_without_a_hitch(
    client: Client, bucket: FailingBucket, name: str
) -> None:
    """An append changes the version of the tar and none of the bytes that were there."""
    path, headers = {
        "frame": (FRAME, ALONE),
        "frame in a multipart": (FRAME, STORED),
        "file": (instance_path(ENTRY), FILE),
        "file in a multipart": (instance_path(ENTRY), {}),
        "bulk data": (f"{instance_path(ENTRY)}/bulkdata/7FE00010", ALONE),
        "series": (SERIES, {}),
    }[name]
    expected = await client.get(path, headers=headers)
    tar, metadata = [bytes((await bucket.read(key)).data) for key in (KEY.tar, KEY.metadata)]

    await bucket.write(KEY.tar, tar + bytes(10240))
    await bucket.write(KEY.metadata, metadata)
    response = await client.get(path, headers=headers)

    assert (expected.status_code, response.status_code) == (200, 200)
    if response.headers["content-type"].startswith("multipart"):
        assert [part.body for part in parts_of(response)] == [part.body for part in parts_of(expected)]
    else:
        assert response.content == expected.content


FRAME_PIXELS = 160
"""Rows and columns: frames 1 and 3 lie further apart than one request reaches."""


def filled(byte: int, *, rows: int = FRAME_PIXELS) -> Dataset:
    """A multi-frame instance, every byte of its pixels the same."""
    made = data_set(NumberOfFrames=3, Rows=rows, Columns=rows)
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelData = bytes([byte]) * (2 * rows * rows * 3)
    return made


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """Two versions of one series, as the objects of their stores."""

    async def make(byte: int) -> dict[str, bytes]:
        return await objects_of(await store_of([filled(byte)], tmp_path_factory.mktemp("filled")))

    return [asyncio.run(make(byte)) for byte in (0x11, 0x22)]


def swap_at_read(bucket: FailingBucket, other: dict[str, bytes], nth: int) -> None:
    """Put other objects into the bucket just before the nth read of a tar."""
    reads = 0

    def hook(verb: str, key: str) -> None:
        nonlocal reads
        reads += verb in ("read", "stream") and key.endswith(".tar")
        if reads == nth:
            reads += 1000
            for name, data in other.items():
                _at_once(bucket.inner, name, data)

    bucket.before_each(hook)


def _at_once(bucket: object, key: str, data: bytes) -> None:
    """A bucket in memory writes without waiting for anything."""
    assert isinstance(bucket, MemoryBucket)
    with pytest.raises(StopIteration):
        bucket.write(key, data).send(None)


async def objects_of(bucket: MemoryBucket) -> dict[str, bytes]:
    return {info.key: bytes((await bucket.read(info.key)).data) async for info in bucket.list("")}


def fills_of(answer: httpx.Response) -> set[int]:
    """The bytes that the pixels of an answer consist of; of files, which have headers, their ends."""
    is_multipart = answer.headers["content-type"].startswith("multipart")
    bodies = [part.body for part in parts_of(answer)] if is_multipart else [answer.content]
    return {byte for body in bodies for byte in (body if b"DICM" not in body[:132] else body[-2 * FRAME_PIXELS**2 :])}


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("form", ["multipart", "alone", "file", "bulk data", "series"])
async def test_an_answer_is_of_one_version_even_when_the_tar_is_replaced_between_two_reads(
    tmp_path: Path, versions: list[dict[str, bytes]], nth: int, form: str
) -> None:
    old, new = versions
    instance = f"/dicomweb/{MADE.stem}/instances/{made_uid(0)}"
    path, headers = {
        "multipart": (f"{instance}/frames/3,1,2,3", STORED),
        "alone": (f"{instance}/frames/3", ALONE),
        "file": (instance, FILE),
        "bulk data": (f"{instance}/bulkdata/7FE00010", ALONE),
        "series": (f"/dicomweb/{MADE.stem}", {}),
    }[form]
    bucket = FailingBucket(MemoryBucket())
    for key, data in old.items():
        await bucket.write(key, data)
    async with serving(bucket, tmp_path) as client:
        before = await client.get(path, headers=headers)
        swap_at_read(bucket, new, nth)

        answers = [await client.get(path, headers=headers) for _ in range(5)]

        assert fills_of(before) == {0x11}
        for response in answers:
            assert response.status_code in (200, 503)
            if response.status_code == 503:
                assert "retry-after" in response.headers
            else:
                assert fills_of(response) in ({0x11}, {0x22})
                assert (response.headers["etag"] == before.headers["etag"]) == (fills_of(response) == {0x11})
        assert [response.status_code for response in answers].count(503) <= 1
        assert fills_of(answers[-1]) == {0x22}


def folder(parent: Path, byte: int) -> Path:
    made = parent / str(byte)
    made.mkdir()
    return made


async def test_a_long_answer_breaks_off_when_the_tar_is_replaced_in_its_middle(tmp_path: Path) -> None:
    """Frames go out in batches; those of the new tar must not follow those of the old one."""
    old, new = [await store_of([filled(byte, rows=1750)], folder(tmp_path, byte)) for byte in (0x11, 0x22)]
    frames = f"/dicomweb/{MADE.stem}/instances/{made_uid(0)}/frames"
    async with serving(bucket := FailingBucket(old), tmp_path / "state") as client:
        await client.archive.shelf.get(MADE, depth="deep")
        objects = await objects_of(new)
        appended = {
            key: data + bytes(10240) if key.endswith(".tar") else data for key, data in (await objects_of(old)).items()
        }

        swap_at_read(bucket, appended, 2)
        whole = await client.get(frames, headers=STORED)
        bucket.heal()
        swap_at_read(bucket, objects, 2)
        with pytest.raises(ObjectChanged):
            await client.get(frames, headers=STORED)

        assert [set(part.body) for part in parts_of(whole)] == [{0x11}] * 3


async def test_a_series_that_disagrees_with_its_tar_is_503_under_a_lock_and_500_without(tmp_path: Path) -> None:
    """The lock says that somebody is at work: trying again helps; without it nothing will."""
    gone = f"{SERIES}/instances/{min(in_series('append').keys() - in_series('v2_default').keys())}"
    for name, status in (("locked", 503), ("unlocked", 500)):
        bucket = await loaded("append")
        await replace(bucket, "v2_default", parts=("tar",))
        if name == "locked":
            await bucket.write(KEY.lock, b"somebody's")
        async with serving(bucket, tmp_path / name) as client:
            for path in (f"{gone}/frames/1", gone, SERIES, f"/dicomweb/studies/{KEY.study_uid}"):
                response = await client.get(path)

                assert response.status_code == status, (path, response.text)
                assert ("retry-after" in response.headers) == (status == 503)


async def test_a_lock_alone_keeps_nobody_from_reading(tmp_path: Path) -> None:
    """Readers need no lock; what is proven is served."""
    bucket = await loaded("append")
    await bucket.write(KEY.lock, b"somebody's")
    async with serving(bucket, tmp_path) as client:
        for path in (FRAME, instance_path(ENTRY), SERIES, METADATA):
            assert (await client.get(path)).status_code == 200
