"""Instances made byte by byte, as new ones of a series; and what lies in a bucket, told by tarfile, gzip, json, sqlite3."""

import base64
import gzip
import io
import json
import sqlite3
import struct
import tarfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import zstandard

from storage.bucket.base import Bucket
from storage.cod.entry_parts import compress_attributes
from storage.keys import SeriesKey
from storage.writing import NewInstance
from tests.support.enhanced import element

KEY = SeriesKey("1.2.826.0.1.3680043.10.1234.99.1", "1.2.826.0.1.3680043.10.1234.99.2")
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
SIDE = 8

Objects = Mapping[str, bytes]


def uid_of(number: int) -> str:
    """Equally long ones, so that slices of one side are equally long too."""
    return f"{KEY.series_uid}.{1000 + number}"


def slice_file(instance_uid: str, value: int, *, side: int = SIDE, key: SeriesKey = KEY) -> bytes:
    """A P10 file of side × side pixels of 16 bits, all of this value; files of one side are of one size."""
    meta = element(0x00020002, "UI", CT.encode()) + element(0x00020003, "UI", instance_uid.encode())
    meta += element(0x00020010, "UI", EXPLICIT.encode())
    head = b"".join(
        (
            element(0x00080016, "UI", CT.encode()),
            element(0x00080018, "UI", instance_uid.encode()),
            element(0x00080060, "CS", b"CT"),
            element(0x0020000D, "UI", key.study_uid.encode()),
            element(0x0020000E, "UI", key.series_uid.encode()),
            element(0x00200013, "IS", b"%06d" % value),
            element(0x00280002, "US", struct.pack("<H", 1)),
            element(0x00280004, "CS", b"MONOCHROME2"),
            element(0x00280010, "US", struct.pack("<H", side)),
            element(0x00280011, "US", struct.pack("<H", side)),
            element(0x00280100, "US", struct.pack("<H", 16)),
            element(0x00280101, "US", struct.pack("<H", 16)),
            element(0x00280102, "US", struct.pack("<H", 15)),
            element(0x00280103, "US", struct.pack("<H", 0)),
        )
    )
    pixels = element(0x7FE00010, "OW", struct.pack("<H", value) * (side * side))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + head + pixels


def attributes_of(instance_uid: str, value: int, *, side: int = SIDE, key: SeriesKey = KEY) -> dict[str, Any]:
    """Its DICOM JSON; InstanceNumber is the value of its pixels, so metadata tells of which bytes it is."""
    stated: dict[str, tuple[str, str | int]] = {
        "00020010": ("UI", EXPLICIT),
        "00080016": ("UI", CT),
        "00080018": ("UI", instance_uid),
        "00080060": ("CS", "CT"),
        "0020000D": ("UI", key.study_uid),
        "0020000E": ("UI", key.series_uid),
        "00200013": ("IS", value),
        "00280002": ("US", 1),
        "00280004": ("CS", "MONOCHROME2"),
        "00280010": ("US", side),
        "00280011": ("US", side),
        "00280100": ("US", 16),
        "00280101": ("US", 16),
        "00280102": ("US", 15),
        "00280103": ("US", 0),
    }
    attributes: dict[str, Any] = {tag: {"vr": vr, "Value": [each]} for tag, (vr, each) in stated.items()}
    return attributes | {"7FE00010": {"vr": "OW", "BulkDataURI": {"uri": "gs://elsewhere/x.tar", "head": ""}}}


def instance_of(data: bytes, instance_uid: str, attributes: object, *, chunk_bytes: int = 1 << 20) -> NewInstance:
    """Any bytes as a new instance."""

    async def read() -> AsyncIterator[bytes | memoryview]:
        for start in range(0, len(data), chunk_bytes):
            yield memoryview(data)[start : start + chunk_bytes]

    return NewInstance(
        instance_uid=instance_uid,
        size=len(data),
        mtime=1_700_000_000.25,
        crc32c=google_crc32c.value(data),
        has_pixeldata=True,
        metadata=compress_attributes(json.dumps(attributes).encode()),
        offset_table=None,
        original_path=f"/incoming/{instance_uid}.dcm",
        read=read,
    )


def made(number: int, value: int | None = None, *, side: int = SIDE, key: SeriesKey = KEY) -> NewInstance:
    """Slice `number`; another `value` than the number: other bytes of the same UID and size."""
    uid, shown = uid_of(number), number if value is None else value
    return instance_of(slice_file(uid, shown, side=side, key=key), uid, attributes_of(uid, shown, side=side, key=key))


def file_of(number: int, value: int | None = None, *, side: int = SIDE) -> bytes:
    return slice_file(uid_of(number), number if value is None else value, side=side)


def with_other_bytes(new: NewInstance, data: bytes) -> NewInstance:
    """An instance whose source changed after it was described."""
    return replace(new, read=instance_of(data, new.instance_uid, {}).read)


async def objects_of(bucket: Bucket) -> dict[str, bytes]:
    return {info.key: bytes((await bucket.read(info.key)).data) async for info in bucket.list("")}


@dataclass(frozen=True, slots=True)
class Told:
    """A series as other readers than ours find it."""

    files: dict[str, bytes]
    """P10s by UID, in the order of the tar, by its headers."""
    stated: dict[str, bytes]
    """P10s by UID, in the order of metadata.json, by its ranges."""
    document: dict[str, Any]
    indexed: dict[str, tuple[int, int]]
    """By UID: offset and size, of index.sqlite."""

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        instances: dict[str, dict[str, Any]] = self.document["cod"]["instances"]
        return instances

    def value_of(self, uid: str) -> int:
        """InstanceNumber, as metadata.json has it."""
        attributes = json.loads(zstandard.decompress(base64.b64decode(self.entries[uid]["metadata"])))
        return int(attributes["00200013"]["Value"][0])


def told(objects: Objects, key: SeriesKey = KEY) -> Told:
    """Read a series. Fails where crc32c, index.sqlite or the padding of the tar is not as it must be."""
    tar = objects[key.tar]
    text = objects[key.metadata]
    document = json.loads(gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text)
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            extracted = archive.extractfile(member)
            assert extracted is not None
            assert member.name not in files
            files[member.name] = extracted.read()
    assert len(tar) % 10240 == 0
    assert tar.endswith(bytes(1024))
    stated = {}
    for uid, entry in document["cod"]["instances"].items():
        start = entry["headers"]["start_byte"]
        stated[uid] = tar[start : start + entry["size"]]
        if entry["crc32c"]:
            assert google_crc32c.value(stated[uid]).to_bytes(4, "big") == base64.b64decode(entry["crc32c"])
    return Told(
        files={name.removeprefix("instances/").removesuffix(".dcm"): data for name, data in files.items()},
        stated=stated,
        document=document,
        indexed=_indexed(objects[f"{key.stem}/index.sqlite"], tar, files),
    )


def _indexed(database: bytes, tar: bytes, files: Mapping[str, bytes]) -> dict[str, tuple[int, int]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(database)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute('SELECT name, "offset", size FROM files WHERE path = ?', ("/instances",)).fetchall()
        [(tarstats,)] = connection.execute("SELECT value FROM metadata WHERE key = 'tarstats'").fetchall()
    finally:
        connection.close()
    assert json.loads(tarstats)["st_size"] == len(tar)
    for name, start, size in rows:
        assert tar[start : start + size] == files[f"instances/{name}"]
    return {name.removesuffix(".dcm"): (start, size) for name, start, size in rows}


def assert_holds(objects: Objects, model: Mapping[str, bytes], key: SeriesKey = KEY) -> Told:
    """The series is exactly the model, for every reader; nothing else is there, no lock and no draft."""
    series = told(objects, key)
    assert list(series.files.items()) == list(model.items())
    assert list(series.stated.items()) == list(model.items())
    assert series.indexed.keys() == model.keys()
    others = {key.tar, key.metadata, f"{key.stem}/index.sqlite"}
    assert {each for each in objects if each.startswith(key.stem)} == others
    return series


def model_of(numbers: Iterable[int]) -> dict[str, bytes]:
    return {uid_of(number): file_of(number) for number in numbers}
