"""The HTTP face, rule by rule: PS3.18 §8 and §10, what viewers need, and what hostile clients try.

Rule ids in docstrings (G, Q, W, F, B, T) are those of docs/conformance.md. Here is what these tests share.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from storage.bucket.memory import MemoryBucket
from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.support.buckets import RecordingBucket
from tests.support.server import Client
from tests.support.stores import DATA, instance_path, series_key

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
ALONE = {"accept": "application/octet-stream; transfer-syntax=*"}
FILE = {"accept": "application/dicom"}

MADE = SeriesKey("1.2.826.0.1.3680043.10.1234.1", "1.2.826.0.1.3680043.10.1234.2")
"""The series of data sets that are made here."""

Entry = dict[str, Any]  # Any: an instance of the manifest, plain JSON
Attributes = dict[str, Any]  # Any: a DICOM JSON object

_MANIFEST = json.loads((DATA / "manifest.json").read_bytes())


def entries_of(store: str) -> list[Entry]:
    """The instances of a store, as the manifest tells them."""
    found: list[Entry] = _MANIFEST["stores"][store.removesuffix("_plainjson")]["instances"]
    return found


def resources_of(entry: Entry) -> dict[str, str]:
    """Every retrieve resource of an instance with pixels, by name."""
    instance = instance_path(entry)
    key = series_key(entry)
    study = f"/dicomweb/studies/{key.study_uid}"
    return {
        "study": study,
        "study metadata": f"{study}/metadata",
        "series": f"{study}/series/{key.series_uid}",
        "series metadata": f"{study}/series/{key.series_uid}/metadata",
        "instance": instance,
        "instance metadata": f"{instance}/metadata",
        "all frames": f"{instance}/frames",
        "frame": f"{instance}/frames/1",
        "bulk data": f"{instance}/bulkdata/7FE00010",
    }


def searches_of(key: SeriesKey) -> dict[str, str]:
    """The six search resources, by name; those below a study name the one of `key`."""
    study = f"/dicomweb/studies/{key.study_uid}"
    return {
        "studies": "/dicomweb/studies",
        "series": "/dicomweb/series",
        "instances": "/dicomweb/instances",
        "series of a study": f"{study}/series",
        "instances of a study": f"{study}/instances",
        "instances of a series": f"{study}/series/{key.series_uid}/instances",
    }


def value_of(attributes: Attributes, tag: str) -> Any:  # Any: whatever stands there
    """The first value of an attribute; None if it has none."""
    return (attributes.get(tag, {}).get("Value") or [None])[0]


def made_uid(number: int) -> str:
    """The SOP Instance UID of a data set that is made here."""
    return f"1.2.826.0.1.3680043.10.1234.3.{number}"


def data_set(number: int = 0, *, series: SeriesKey = MADE, **values: object) -> Dataset:
    """A small data set without pixels, its attributes by keyword."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = UID(made_uid(number))
    made.StudyInstanceUID, made.SeriesInstanceUID = series.study_uid, series.series_uid
    made.Modality, made.PatientID, made.PatientName = "OT", "synthetic", "Synthetic^Patient"
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


async def store_of(data_sets: list[Dataset], folder: Path) -> MemoryBucket:
    """A datastore that holds these data sets, written by our own ingest."""
    sources = folder / "sources"
    sources.mkdir()
    for number, each in enumerate(data_sets):
        each.save_as(sources / f"{number}.dcm", enforce_file_format=True)
    bucket = MemoryBucket("synthetic")
    report = await ingest([sources], bucket)
    assert report.is_clean, report
    return bucket


def keys_read(bucket: RecordingBucket) -> set[str]:
    """The keys and prefixes that were asked for."""
    return {request.key for request in bucket.requests}


async def exact_status(client: Client, path: str, query: bytes = b"") -> int:
    """The status of a path or query exactly as it is written: httpx tidies paths, and refuses long queries itself."""
    statuses: list[int] = []

    async def send(message: Any) -> None:  # Any: an ASGI message
        statuses.append(message.get("status", 0))

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "query_string": query, "path": unquote(path), "raw_path": path.encode(), "root_path": "",
        "headers": [(b"host", b"testserver:8042")],
        "client": ("127.0.0.1", 1), "server": ("testserver", 8042),
    }  # fmt: skip
    assert isinstance(client._transport, httpx.ASGITransport)
    await client._transport.app(scope, receive, send)
    return statuses[0]
