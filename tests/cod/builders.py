"""Metadata files as a store may hold them, made in memory; and the stores written by the published library."""

import base64
import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from storage.keys import SeriesKey, parse_object_key

DATA = Path(__file__).parent.parent / "data"
KEY = SeriesKey("1.2.3.4.5.1", "1.2.3.4.5.2")
INSTANCE = "1.2.3.4.5.3"

Json = dict[str, Any]  # Any: JSON of any shape, wrong ones above all


def data_set(instance_uid: str = INSTANCE) -> Json:
    return {
        "00080018": {"vr": "UI", "Value": [instance_uid]},
        "0020000D": {"vr": "UI", "Value": [KEY.study_uid]},
        "0020000E": {"vr": "UI", "Value": [KEY.series_uid]},
        "00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
    }


def packed(text: bytes) -> str:
    """Metadata of version 2.0."""
    return base64.b64encode(zstandard.compress(text)).decode()


def entry_v1(instance_uid: str = INSTANCE, **changes: object) -> Json:
    """An entry of version 1.0; a change to None leaves the field out."""
    entry: Json = {
        "metadata": data_set(instance_uid),
        "uri": f"gs://somewhere/else/{KEY.tar}://instances/{instance_uid}.dcm",
        "headers": {"start_byte": 1536, "end_byte": 2536},
        "offset_tables": {},
        "crc32c": base64.b64encode(struct.pack(">I", 0x01020304)).decode(),
        "size": 1000,
        "original_path": "a.dcm",
        "dependencies": [],
        "diff_hash_dupe_paths": [],
        "version": "1.0",
        "modified_datetime": "2025-01-01T00:00:00",
    }
    entry.update(changes)
    return {name: value for name, value in entry.items() if value is not None}


def entry_v2(instance_uid: str = INSTANCE, **changes: object) -> Json:
    entry = entry_v1(instance_uid)
    entry.update(
        instance_uid=instance_uid,
        series_uid=KEY.series_uid,
        study_uid=KEY.study_uid,
        has_pixeldata=True,
        metadata=packed(json.dumps(data_set(instance_uid)).encode()),
        version="2.0",
    )
    entry.update(changes)
    return {name: value for name, value in entry.items() if value is not None}


def document(instances: Json, **fields: object) -> Json:
    return {"study_uid": KEY.study_uid, "series_uid": KEY.series_uid, "cod": {"instances": instances}, **fields}


def stored(content: Json) -> bytes:
    """A metadata.json as upstream stores it."""
    return gzip.compress(json.dumps(content).encode())


def stored_series() -> Iterator[tuple[str, SeriesKey, bytes]]:
    """Every metadata.json written by the published library: store, key, bytes."""
    for path in sorted((DATA / "cod").rglob("metadata.json")):
        store, _, key = path.relative_to(DATA / "cod").as_posix().partition("/dicomweb/")
        parsed = parse_object_key(key)
        assert parsed is not None
        yield store, parsed[0], path.read_bytes()
