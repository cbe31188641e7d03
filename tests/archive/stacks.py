"""A COD series of single-frame slices, made byte by byte: frame n holds the sample n everywhere."""

import base64
import gzip
import json
import random
import struct
from collections.abc import Sequence

import google_crc32c
import zstandard

from storage.bucket.memory import MemoryBucket
from storage.cod.tar import lay_out, member_header
from storage.keys import SeriesKey
from tests.support.enhanced import element

KEY = SeriesKey("1.2.826.0.1.3680043.10.1234.88.1", "1.2.826.0.1.3680043.10.1234.88.2")
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
SLICES = 450


def uid_of(number: int) -> str:
    """The instance of InstanceNumber `number`, from 1."""
    return f"{KEY.series_uid}.{number}"


def frame_of(number: int, side: int) -> bytes:
    return struct.pack("<H", number) * (side * side)


def slice_file(number: int, side: int) -> bytes:
    """A P10 file of side × side pixels of 16 bits."""
    meta = element(0x00020002, "UI", CT.encode()) + element(0x00020003, "UI", uid_of(number).encode())
    meta += element(0x00020010, "UI", EXPLICIT.encode())
    head = b"".join(
        (
            element(0x00080016, "UI", CT.encode()),
            element(0x00080018, "UI", uid_of(number).encode()),
            element(0x00080060, "CS", b"CT"),
            element(0x0020000D, "UI", KEY.study_uid.encode()),
            element(0x0020000E, "UI", KEY.series_uid.encode()),
            element(0x00200013, "IS", str(number).encode()),
            element(0x00280002, "US", struct.pack("<H", 1)),
            element(0x00280004, "CS", b"MONOCHROME2"),
            element(0x00280010, "US", struct.pack("<H", side)),
            element(0x00280011, "US", struct.pack("<H", side)),
            element(0x00280100, "US", struct.pack("<H", 16)),
            element(0x00280101, "US", struct.pack("<H", 16)),
            element(0x00280103, "US", struct.pack("<H", 0)),
        )
    )
    pixels = element(0x7FE00010, "OW", frame_of(number, side))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + head + pixels


def entry_of(number: int, p10: bytes, start: int) -> dict[str, object]:
    attributes = {
        "00080016": {"vr": "UI", "Value": [CT]},
        "00080018": {"vr": "UI", "Value": [uid_of(number)]},
        "00020010": {"vr": "UI", "Value": [EXPLICIT]},
        "00200013": {"vr": "IS", "Value": [number]},
    }
    return {
        "instance_uid": uid_of(number),
        "series_uid": KEY.series_uid,
        "study_uid": KEY.study_uid,
        "has_pixeldata": True,
        "metadata": base64.b64encode(zstandard.compress(json.dumps(attributes).encode())).decode(),
        "uri": f"gs://elsewhere/{KEY.tar}://instances/{uid_of(number)}.dcm",
        "headers": {"start_byte": start, "end_byte": start + len(p10)},
        "offset_tables": {},
        "crc32c": base64.b64encode(google_crc32c.value(p10).to_bytes(4, "big")).decode(),
        "size": len(p10),
        "original_path": "x.dcm",
        "dependencies": [],
        "diff_hash_dupe_paths": [],
        "version": "2.0",
        "modified_datetime": "2026-01-01T00:00:00",
    }


def stack_store(side: int, tar_order: Sequence[int]) -> dict[str, bytes]:
    """The objects of a series, by key; slices lie in the tar in the order given."""
    files = {number: slice_file(number, side) for number in tar_order}
    layout = lay_out([(uid_of(number), len(files[number]), 0.0) for number in tar_order])
    parts: list[bytes] = []
    entries: dict[str, object] = {}
    for number, member in zip(tar_order, layout.members, strict=True):
        parts += [member_header(member), files[number], bytes(member.next_start - member.stop)]
        entries[uid_of(number)] = entry_of(number, files[number], member.start)
    document = {"study_uid": KEY.study_uid, "series_uid": KEY.series_uid, "cod": {"instances": entries}}
    tar = b"".join([*parts, layout.end_of_archive])
    return {KEY.tar: tar, KEY.metadata: gzip.compress(json.dumps(document).encode(), 1)}


async def stack_bucket(side: int, *, slices: int = SLICES, shuffled: bool = False) -> MemoryBucket:
    """A series in memory."""
    order = list(range(1, slices + 1))
    if shuffled:
        random.Random(7).shuffle(order)
    bucket = MemoryBucket(f"stack-{side}")
    for key, data in stack_store(side, order).items():
        await bucket.write(key, data)
    return bucket
