"""Reading what lies in a bucket by the words of the format's description alone: gzip, json, base64, zstandard."""

import base64
import gzip
import io
import json
import warnings
from pathlib import Path
from typing import Any

import pydicom
import zstandard

from storage.bucket.base import Bucket
from storage.ingest import Report
from storage.keys import SeriesKey
from tests.conftest import DATA

P10 = DATA / "p10"
NAMES = sorted(path.name for path in P10.iterdir())
REFUSED = {
    "UN_sequence.dcm": "no Study Instance UID",
    "no_meta.dcm": "no DICM",
    "rtstruct.dcm": "no DICM",
}
"""Files of the corpus that are no instances in the sense of PS3.10, and a part of the reason that is given."""

CT = [P10 / f"syn_ct_{number}.dcm" for number in range(1, 7)]
"""The six slices of one series."""


async def everything(bucket: Bucket) -> dict[str, bytes]:
    return {info.key: bytes((await bucket.read(info.key)).data) async for info in bucket.list("")}


def entries_of(objects: dict[str, bytes], key: SeriesKey) -> dict[str, dict[str, Any]]:
    """The entries of a series, by the words of the format's description alone."""
    document = json.loads(gzip.decompress(objects[key.metadata]), parse_constant=refuse_constant)
    assert (document["study_uid"], document["series_uid"]) == (key.study_uid, key.series_uid)
    return document["cod"]["instances"]


def attributes_of(entry: dict[str, Any]) -> dict[str, Any]:
    return json.loads(zstandard.decompress(base64.b64decode(entry["metadata"])), parse_constant=refuse_constant)


def refuse_constant(token: str) -> None:
    raise AssertionError(f"{token} is no JSON")


def key_of(report: Report) -> SeriesKey:
    (note,) = report.series
    return SeriesKey(note.study_uid, note.series_uid)


def read_quietly(data: bytes | Path) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(data if isinstance(data, Path) else io.BytesIO(data))
        dataset.walk(lambda _, element: None)
        return dataset


def made(path: Path, uid: str, **values: Any) -> Path:
    """A small P10 made by pydicom; `values` by keyword."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.1"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.2"
    dataset.SOPInstanceUID = uid
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path
