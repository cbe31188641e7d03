"""A COD series of one enhanced multi-frame instance with very many per-frame items, made byte by byte."""

import base64
import gzip
import json
import struct

import google_crc32c
import zstandard

from storage.cod.tar import lay_out, member_header
from storage.keys import SeriesKey

KEY = SeriesKey("1.2.826.0.1.3680043.10.1234.77.1", "1.2.826.0.1.3680043.10.1234.77.2")
INSTANCE_UID = "1.2.826.0.1.3680043.10.1234.77.3"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One explicit VR little endian element, padded to even length."""
    value += (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def sequence(tag: int, items: list[bytes]) -> bytes:
    """A sequence of defined length."""
    return element(tag, "SQ", b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items))


def frame_item(number: int) -> bytes:
    """Functional groups of one frame: its place in the stack."""
    position = sequence(0x00209113, [element(0x00200032, "DS", f"-100.5\\-90.25\\{number / 2}".encode())])
    content = sequence(0x00209111, [element(0x00209157, "UL", struct.pack("<II", 1, number + 1))])
    return content + position


def enhanced_file(frames: int) -> bytes:
    """A P10 file of `frames` frames of 2 by 2 pixels of 16 bits; the pixels of frame i are all i modulo 65536."""
    meta = element(0x00020002, "UI", ENHANCED_CT.encode()) + element(0x00020003, "UI", INSTANCE_UID.encode())
    meta += element(0x00020010, "UI", EXPLICIT.encode())
    head = b"".join(
        (
            element(0x00080016, "UI", ENHANCED_CT.encode()),
            element(0x00080018, "UI", INSTANCE_UID.encode()),
            element(0x00080060, "CS", b"CT"),
            element(0x0020000D, "UI", KEY.study_uid.encode()),
            element(0x0020000E, "UI", KEY.series_uid.encode()),
            element(0x00200013, "IS", b"1"),
            element(0x00280002, "US", struct.pack("<H", 1)),
            element(0x00280004, "CS", b"MONOCHROME2"),
            element(0x00280008, "IS", str(frames).encode()),
            element(0x00280010, "US", struct.pack("<H", 2)),
            element(0x00280011, "US", struct.pack("<H", 2)),
            element(0x00280100, "US", struct.pack("<H", 16)),
            element(0x00280101, "US", struct.pack("<H", 16)),
            element(0x00280103, "US", struct.pack("<H", 0)),
            sequence(0x52009230, [frame_item(number) for number in range(frames)]),
        )
    )
    pixels = element(0x7FE00010, "OW", b"".join(struct.pack("<H", number % 65536) * 4 for number in range(frames)))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + head + pixels


def stored_metadata(p10: bytes, start: int, frames: int) -> bytes:
    """metadata.json as the published writer makes it: all per-frame items in the JSON of the instance."""
    one = {
        "00209111": {"vr": "SQ", "Value": [{"00209157": {"vr": "UL", "Value": [1, 1]}}]},
        "00209113": {"vr": "SQ", "Value": [{"00200032": {"vr": "DS", "Value": [-100.5, -90.25, 0.5]}}]},
    }
    groups = ",".join([json.dumps(one)] * frames)
    attributes = {
        "00080016": {"vr": "UI", "Value": [ENHANCED_CT]},
        "00080018": {"vr": "UI", "Value": [INSTANCE_UID]},
        "00020010": {"vr": "UI", "Value": [EXPLICIT]},
    }
    text = json.dumps(attributes)[:-1] + ',"52009230":{"vr":"SQ","Value":[' + groups + "]}}"
    entry = {
        "instance_uid": INSTANCE_UID,
        "series_uid": KEY.series_uid,
        "study_uid": KEY.study_uid,
        "has_pixeldata": True,
        "metadata": base64.b64encode(zstandard.compress(text.encode())).decode(),
        "uri": f"gs://elsewhere/{KEY.tar}://instances/{INSTANCE_UID}.dcm",
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
    document = {"study_uid": KEY.study_uid, "series_uid": KEY.series_uid, "cod": {"instances": {INSTANCE_UID: entry}}}
    return gzip.compress(json.dumps(document).encode(), 1)


def enhanced_store(frames: int) -> dict[str, bytes]:
    """The objects of the store, by key."""
    p10 = enhanced_file(frames)
    layout = lay_out([(INSTANCE_UID, len(p10), 0.0)])
    [member] = layout.members
    padding = bytes(member.next_start - member.stop)
    tar = member_header(member) + p10 + padding + layout.end_of_archive
    return {KEY.tar: tar, KEY.metadata: stored_metadata(p10, member.start, frames)}
