"""What lies in the bucket after an ingest, read by tarfile, pydicom, sqlite3 and plain json."""

import asyncio
import base64
import gzip
import hashlib
import json
import sqlite3
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import zstandard

from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.ingest.reading import (
    CT,
    NAMES,
    P10,
    REFUSED,
    attributes_of,
    entries_of,
    everything,
    key_of,
    read_quietly,
)

NO_TABLE = {
    "syn_deflated_mf.dcm": "frames of a deflated data set are no ranges of the file",
    "syn_float_pixels.dcm": "the published library keeps tables of Pixel Data only",
    "syn_double_float_pixels.dcm": "the published library keeps tables of Pixel Data only",
    "syn_j2k_bot_3frag.dcm": "three fragments to a frame",
    "syn_j2k_nobot_2frag.dcm": "two fragments to a frame",
    "syn_j2k_nobot_mixedfrag.dcm": "two fragments to one of the frames",
    "syn_j2k_bot_short.dcm": "the Basic Offset Table contradicts NumberOfFrames",
    "syn_seg_1bit_unaligned.dcm": "frames do not begin at whole bytes",
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
async def test_every_file_is_stored_bit_for_bit_and_described(name: str, manifest: dict[str, Any]) -> None:
    source = (P10 / name).read_bytes()
    oracle = manifest["p10"][name]
    bucket = MemoryBucket()

    report = await ingest([P10 / name], bucket)

    assert report.is_clean
    objects = await everything(bucket)
    key = SeriesKey(oracle["study"], oracle["series"])
    assert key_of(report) == key
    assert set(objects) == {key.tar, key.metadata, key.stem + "/index.sqlite"}
    ((instance_uid, entry),) = entries_of(objects, key).items()
    assert instance_uid == oracle["sop"]
    assert entry["headers"] == {"start_byte": 1536, "end_byte": 1536 + len(source)}
    assert objects[key.tar][1536 : 1536 + entry["size"]] == source
    assert entry["crc32c"] == oracle["crc32c"]
    assert entry["has_pixeldata"] == (oracle["pixel_keyword"] == "PixelData")
    check_frames(name, entry["offset_tables"], source, oracle)


def check_frames(name: str, table: dict[str, list[int]], source: bytes, oracle: dict[str, Any]) -> None:
    """A table is exact, and missing only where it cannot be."""
    if oracle["number_of_frames"] in (None, 0, 1) or name in NO_TABLE:
        assert table == {}
        return
    ranges = list(zip(table["CustomOffsetTable"], table["CustomOffsetTableLengths"], strict=True))
    assert [hashlib.sha256(source[start : start + length]).hexdigest() for start, length in ranges] == [
        frame["sha256"] for frame in oracle["frames"]
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
async def test_attributes_are_those_that_pydicom_reads(name: str) -> None:
    bucket = MemoryBucket()
    report = await ingest([P10 / name], bucket)
    ((_, entry),) = entries_of(await everything(bucket), key_of(report)).items()

    attributes = attributes_of(entry)

    dataset = read_quietly(P10 / name)
    expected = {f"{tag:08X}" for part in (dataset, dataset.file_meta) for tag in part.keys()}
    expected -= {tag for tag in expected if tag.endswith("0000")} | {"FFFCFFFC"}
    assert set(attributes) == expected
    assert attributes["00020010"] == {"vr": "UI", "Value": [dataset.file_meta.TransferSyntaxUID]}
    for tag, keyword in (("0020000D", "StudyInstanceUID"), ("00080016", "SOPClassUID")):
        assert attributes[tag]["Value"] == [dataset[keyword].value]
    for attribute in attributes.values():
        assert set(attribute) <= {"vr", "Value", "BulkDataURI", "InlineBinary"}
        if "BulkDataURI" in attribute:
            assert set(attribute["BulkDataURI"]) == {"uri", "head"}
            assert attribute["BulkDataURI"]["uri"] == entry["uri"]


async def test_head_of_a_bulk_value_is_its_beginning(manifest: dict[str, Any]) -> None:
    name = "syn_bulk_elements.dcm"
    source = (P10 / name).read_bytes()
    offset = manifest["p10"][name]["pixel_value_offset"]
    bucket = MemoryBucket()
    report = await ingest([P10 / name], bucket)

    ((_, entry),) = entries_of(await everything(bucket), key_of(report)).items()

    head = attributes_of(entry)["7FE00010"]["BulkDataURI"]["head"]
    assert head == source[offset : offset + 512].decode("utf-8", "replace")


async def test_entry_has_the_keys_of_the_published_library_in_its_order(data_folder: Path) -> None:
    (path,) = (data_folder / "cod" / "append").rglob("metadata.json")
    theirs = next(iter(json.loads(gzip.decompress(path.read_bytes()))["cod"]["instances"].values()))
    bucket = MemoryBucket("archive")

    report = await ingest([CT[0]], bucket)

    ((uid, ours),) = entries_of(await everything(bucket), key_of(report)).items()
    assert list(ours) == list(theirs)
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
    assert ours["uri"] == f"memory://archive/{key_of(report).tar}://instances/{uid}.dcm"
    assert ours["version"] == "2.0"
    assert ours["original_path"] == "syn_ct_1.dcm"
    frame = base64.b64decode(ours["metadata"])
    assert zstandard.get_frame_parameters(frame).content_size > 0
    assert zstandard.frame_content_size(frame) == len(zstandard.decompress(frame))


async def test_whole_series_lies_in_a_folder_as_a_tar_that_everybody_lists(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)

    report = await ingest(CT, bucket)

    assert report.is_clean
    key = key_of(report)
    tar = tmp_path / key.tar
    listed = await asyncio.to_thread(subprocess.run, ["tar", "tf", tar], capture_output=True, text=True, check=True)
    entries = entries_of(await everything(bucket), key)
    assert len(entries) == 6
    assert listed.stdout.splitlines() == [f"instances/{uid}.dcm" for uid in entries]
    by_uid = {read_quietly(path).SOPInstanceUID: path for path in CT}
    with tarfile.open(tar) as archive:
        for member, (uid, entry) in zip(archive.getmembers(), entries.items(), strict=True):
            content = archive.extractfile(member)
            assert content is not None
            data = content.read()
            assert data == by_uid[uid].read_bytes()
            assert (member.offset_data, member.size) == (entry["headers"]["start_byte"], entry["size"])
            assert (member.uid, member.gid, member.uname, member.gname, member.mode) == (0, 0, "", "", 0o644)
            assert entry["crc32c"] == base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
            assert read_quietly(data).SOPInstanceUID == uid


async def test_index_has_the_shape_of_the_published_one(tmp_path: Path, data_folder: Path) -> None:
    (theirs,) = (data_folder / "cod" / "append").rglob("index.sqlite")
    bucket = FolderBucket(tmp_path)

    report = await ingest(CT, bucket)

    key = key_of(report)
    ours = tmp_path / key.stem / "index.sqlite"
    assert shape_of(ours) == shape_of(theirs)
    with sqlite3.connect(ours) as index, tarfile.open(tmp_path / key.tar) as archive:
        rows = index.execute(
            "SELECT path || '/' || name, offsetheader, offset, size, mtime FROM files WHERE path != '' ORDER BY offset"
        ).fetchall()
        assert rows == [(f"/{m.name}", m.offset, m.offset_data, m.size, m.mtime) for m in archive.getmembers()]
        assert index.execute("SELECT name FROM files WHERE path = ''").fetchall() == [("instances",)]
        (stat,) = index.execute("SELECT value FROM metadata WHERE key = 'tarstats'").fetchone()
        assert json.loads(stat)["st_size"] == (tmp_path / key.tar).stat().st_size
    index.close()


def shape_of(path: Path) -> tuple[object, ...]:
    """Tables, columns, column types, stored types, and the metadata keys of an index."""
    index = sqlite3.connect(path)
    names = index.execute(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
    ).fetchall()
    columns = {name: index.execute(f"PRAGMA table_info({name})").fetchall() for kind, name in names if kind == "table"}
    types = ", ".join(f"typeof({column[1]})" for column in columns["files"])
    stored = set(index.execute(f"SELECT DISTINCT {types} FROM files").fetchall())
    keys = index.execute("SELECT key FROM metadata ORDER BY 1").fetchall()
    versions = index.execute("SELECT * FROM versions ORDER BY 1").fetchall()
    index.close()
    return names, columns, stored, keys, versions
