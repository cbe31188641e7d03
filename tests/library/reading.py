"""Looking at a folder that holds a datastore by other means than our own: tarfile, gzip, json, sqlite3, pydicom."""

import base64
import gzip
import io
import json
import sqlite3
import struct
import tarfile
from pathlib import Path
from typing import Any

import google_crc32c
import pydicom

from tests.ingest.reading import CT

SLICES = [path.read_bytes() for path in CT]
"""Six files of one series."""

_first = pydicom.dcmread(CT[0], stop_before_pixels=True)
STUDY, SERIES = str(_first.StudyInstanceUID), str(_first.SeriesInstanceUID)
UIDS = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in CT]


class Folder:
    """One series of a datastore in a folder."""

    def __init__(self, root: Path, study_uid: str = STUDY, series_uid: str = SERIES) -> None:
        self.root = root
        self.home = root / "studies" / study_uid / "series"
        self.tar = self.home / f"{series_uid}.tar"
        self.metadata = self.home / series_uid / "metadata.json"
        self.index = self.home / series_uid / "index.sqlite"
        self.lock = self.home / series_uid / ".gradient.lock"

    def members(self) -> dict[str, bytes]:
        """Name → bytes, as a tar reader lists them."""
        with tarfile.open(self.tar) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(gzip.decompress(self.metadata.read_bytes()))
        return document

    def entries(self) -> dict[str, dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = self.document()["cod"]["instances"]
        return entries

    def stored(self) -> dict[str, bytes]:
        """Instance UID → its bytes by the offsets and checksums of metadata.json."""
        tar = self.tar.read_bytes()
        found = {}
        for uid, entry in self.entries().items():
            start = entry["headers"]["start_byte"]
            found[uid] = tar[start : start + entry["size"]]
            assert checksum(found[uid]) == entry["crc32c"]
        return found

    def indexed(self) -> dict[str, tuple[int, int]]:
        """Name → offset and size in index.sqlite."""
        connection = sqlite3.connect(self.index)
        try:
            rows = connection.execute("SELECT name, offset, size FROM files WHERE path = '/instances'").fetchall()
        finally:
            connection.close()
        return {name: (offset, size) for name, offset, size in rows}

    def rewrite(self, document: dict[str, Any]) -> None:
        """Put another metadata.json in place."""
        self.metadata.write_bytes(gzip.compress(json.dumps(document).encode()))

    def everything(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def is_whole(self, expected: dict[str, bytes]) -> bool:
        """Whether tar, metadata.json and index.sqlite all hold exactly these instances, and nobody holds the lock."""
        names = {f"instances/{uid}.dcm": data for uid, data in expected.items()}
        places = {f"{uid}.dcm": (e["headers"]["start_byte"], e["size"]) for uid, e in self.entries().items()}
        return (
            self.members() == names
            and self.stored() == expected
            and self.indexed() == places
            and not self.lock.exists()
        )


def checksum(data: bytes) -> str:
    """As object stores list it."""
    return base64.b64encode(struct.pack(">I", google_crc32c.value(data))).decode()


def other_header(data: bytes) -> bytes:
    """The same instance with the same pixels under another header."""
    return changed(data, PatientComments="somebody wrote here")


def changed(data: bytes, **values: Any) -> bytes:
    """The same instance, by pydicom, with other values."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()
