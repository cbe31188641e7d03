"""Attributes that stand behind encapsulated pixel data: private ones, digital signatures (PS3.3 §C.12.1.1.3)."""

from pathlib import Path

import pytest

from storage.bucket.memory import MemoryBucket
from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.dicom.builders import element, sequence
from tests.support.buckets import RecordingBucket
from tests.support.multipart import parts_of
from tests.support.server import serving
from tests.support.stores import DATA

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
VALUE = bytes(range(250)) * 8
TAIL = (
    element(0x7FE10010, "LO", b"ACME")
    + element(0x7FE11001, "OB", VALUE)
    + sequence(0xFFFAFFFA, [], undefined=True)  # ends as the pixel data does
)
TABLES = {
    "693_J2KR.dcm": "one frame",
    "emri_small_RLE.dcm": "an empty offset table, a fragment to a frame",
    "syn_j2k_bot_1frag.dcm": "a basic offset table",
    "syn_j2k_bot_3frag.dcm": "a basic offset table, three fragments to a frame",
    "syn_j2k_eot.dcm": "an extended offset table",
    "syn_j2k_single_3frag.dcm": "one frame of three fragments",
}
"""However the end of the last frame is known, or is not."""


async def stored(name: str, tail: bytes, folder: Path) -> tuple[MemoryBucket, SeriesKey, str]:
    (folder / "file.dcm").write_bytes((DATA / "p10" / name).read_bytes() + tail)
    bucket = MemoryBucket("tail")
    [note] = (await ingest([folder / "file.dcm"], bucket)).new
    return bucket, SeriesKey(note.study_uid, note.series_uid), note.instance_uid


@pytest.mark.parametrize("name", TABLES)
async def test_they_are_in_deep_metadata_and_their_bulk_data_can_be_read(tmp_path: Path, name: str) -> None:
    bucket, key, instance_uid = await stored(name, TAIL, tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        await client.archive.shelf.get(key, depth="deep")

        [attributes] = (await client.get(f"/dicomweb/{key.stem}/instances/{instance_uid}/metadata")).json()
        response = await client.get(attributes["7FE11001"]["BulkDataURI"], headers=STORED)

    assert attributes["7FE10010"] == {"vr": "LO", "Value": ["ACME"]}
    assert attributes["FFFAFFFA"] == {"vr": "SQ"}
    assert [part.body for part in parts_of(response)] == [VALUE]


@pytest.mark.parametrize("name", TABLES)
async def test_frames_end_where_the_pixel_data_does(tmp_path: Path, name: str) -> None:
    plain_bucket, key, instance_uid = await stored(name, b"", tmp_path)
    bucket, _, _ = await stored(name, TAIL, tmp_path)
    bodies = []

    for number, each in enumerate((plain_bucket, bucket)):
        async with serving(each, tmp_path / f"state{number}") as client:
            response = await client.get(f"/dicomweb/{key.stem}/instances/{instance_uid}/frames", headers=STORED)
            bodies.append([part.body for part in parts_of(response)])

    assert bodies[0] == bodies[1]


async def test_looking_for_them_costs_nothing_where_the_last_fragment_ends_the_file(tmp_path: Path) -> None:
    memory, key, _ = await stored("693_J2KR.dcm", b"", tmp_path)
    size = (tmp_path / "file.dcm").stat().st_size
    bucket = RecordingBucket(memory)
    async with serving(bucket, tmp_path / "state") as client:
        bucket.reset()

        await client.archive.shelf.get(key, depth="deep")

    assert size > 64 * 1024
    assert bucket.count("read", ".tar") == 1


async def test_what_cannot_be_read_behind_the_pixels_does_not_spoil_the_instance(tmp_path: Path) -> None:
    """Another writer may have stored it; our ingest refuses such a file."""
    memory, key, instance_uid = await stored("693_J2KR.dcm", TAIL, tmp_path)
    tar = bytes((await memory.read(key.tar)).data)
    assert tar.count(TAIL) == 1
    await memory.write(key.tar, tar.replace(TAIL, b"\xff" * len(TAIL)))
    async with serving(memory, tmp_path / "state") as client:
        await client.archive.shelf.get(key, depth="deep")

        [attributes] = (await client.get(f"/dicomweb/{key.stem}/instances/{instance_uid}/metadata")).json()
        frame = await client.get(f"/dicomweb/{key.stem}/instances/{instance_uid}/frames/1", headers=STORED)

    assert "00080018" in attributes
    assert "7FE11001" not in attributes
    assert frame.status_code == 200
