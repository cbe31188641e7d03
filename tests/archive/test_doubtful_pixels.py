"""Pixels that cannot be told for certain: an error with its reason, at every address that leads to them."""

from pathlib import Path

import pytest

from storage.bucket.memory import MemoryBucket
from storage.checking import Finding, check_datastore
from storage.checking.findings import Kind
from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.support.enhanced import enhanced_store
from tests.support.multipart import parts_of
from tests.support.pydicom_frames import frames_by_pydicom
from tests.support.server import serving
from tests.support.stores import DATA

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
ENCAPSULATED = (DATA / "p10" / "emri_small_jpeg_2k_lossless.dcm").read_bytes()


def without_delimiter() -> bytes:
    """Encapsulated pixel data whose end is not there."""
    return ENCAPSULATED[:-8]


def under_another_syntax() -> bytes:
    """Native pixel data, and a transfer syntax that says it is RLE."""
    data = (DATA / "p10" / "CT_small.dcm").read_bytes()
    assert data.count(b"1.2.840.10008.1.2.1\0") == 1
    return data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")


def cut_before_pixels() -> bytes:
    return (DATA / "p10" / "rtplan_truncated.dcm").read_bytes()


async def stored(data: bytes, folder: Path) -> tuple[MemoryBucket, str]:
    """A datastore of one file, and the address of its instance."""
    (folder / "file.dcm").write_bytes(data)
    bucket = MemoryBucket("doubtful")
    report = await ingest([folder / "file.dcm"], bucket)
    [note] = report.new
    return bucket, f"/dicomweb/{SeriesKey(note.study_uid, note.series_uid).stem}/instances/{note.instance_uid}"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (without_delimiter(), "/frames"),
        (without_delimiter(), "/frames/1"),
        (without_delimiter(), "/frames/11"),
        (without_delimiter(), "/bulkdata/7FE00010"),
        (under_another_syntax(), "/frames"),
        (under_another_syntax(), "/frames/1"),
        (cut_before_pixels(), "/frames"),
        (cut_before_pixels(), "/frames/1"),
    ],
)
@pytest.mark.parametrize("depth", ["quick", "deep"])
async def test_what_is_in_doubt_is_500_and_neither_absent_nor_empty(
    tmp_path: Path, data: bytes, path: str, depth: str
) -> None:
    """A failure to read is never a 404, and least of all a 200 without parts."""
    bucket, address = await stored(data, tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        if depth == "deep":
            await client.get(f"{address}/metadata")

        response = await client.get(address + path, headers=STORED)

        assert (response.status_code, response.json()["error"]) == (500, "InstanceUnreadable")
        assert (await client.get(address, headers={"accept": "application/dicom"})).content == data


@pytest.mark.parametrize("data", [without_delimiter(), under_another_syntax(), cut_before_pixels()])
async def test_check_names_what_is_in_doubt(tmp_path: Path, data: bytes) -> None:
    bucket, _ = await stored(data, tmp_path)

    assert [finding.kind for finding in await _findings(bucket)] == [Kind.DOUBTFUL_FRAMES]


async def test_check_finds_the_attributes_of_a_large_instance_in_its_metadata() -> None:
    """Such an instance has no quick index; what metadata.json stores of it is there all the same."""
    bucket = MemoryBucket("large")
    for key, data in enhanced_store(4_000).items():
        await bucket.write(key, data)

    [lossy] = [finding for finding in await _findings(bucket) if finding.kind is Kind.LOSSY_METADATA]

    assert "52009230" not in lossy.detail  # the writer stored the groups; it left out Modality and the like
    assert "00080060" in lossy.detail


async def _findings(bucket: MemoryBucket) -> list[Finding]:
    return [finding async for finding in check_datastore(bucket, all_bytes=True)]


async def test_bulk_data_of_wide_big_endian_samples_are_the_frames_one_after_the_other(tmp_path: Path) -> None:
    """32-bit samples in OW: swapping words of 16 bits would send every sample with its halves exchanged."""
    path = DATA / "p10" / "rtdose_expb.dcm"
    bucket, address = await stored(path.read_bytes(), tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        response = await client.get(f"{address}/bulkdata/7FE00010", headers=STORED)

    [part] = parts_of(response)
    assert part.body == b"".join(frames_by_pydicom(path))


async def test_bulk_data_of_big_endian_samples_of_no_certain_order_are_refused(tmp_path: Path) -> None:
    """OB is never swapped, and samples of 16 bits in it may be stored either way (PS3.5 §A.3)."""
    words = (DATA / "p10" / "emri_small_big_endian.dcm").read_bytes()
    data = words.replace(b"\x7f\xe0\x00\x10OW", b"\x7f\xe0\x00\x10OB")
    assert data != words
    bucket, address = await stored(data, tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        response = await client.get(f"{address}/bulkdata/7FE00010", headers=STORED)

    assert (response.status_code, response.json()["error"]) == (500, "InstanceUnreadable")
