"""Describing one source file: what metadata.json and its place in a series need, from one read of its bytes.

Oracles: pydicom for the values, `attributes_json` for the attributes, the words of the format's notes for the rest.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any  # DICOM JSON is a tree of anything

import google_crc32c
import pydicom
import pytest
import zstandard

from storage.dicom.json import JsonOptions, attributes_json
from storage.dicom.p10 import open_p10
from storage.dicom.window import Window
from storage.ingest.describe import BEGINNING_BYTES, WHOLE_BYTES, Description, describe
from storage.ingest.report import RefusedFile
from storage.ingest.sources import OpenSource, SourceChanged
from storage.ingest.sources.files import FilePlace, opened
from tests.dicom.builders import element, encapsulated_image, item, native_image, sequence
from tests.ingest.reading import NAMES, P10, REFUSED, made, read_quietly

DATASTORE = "gs://bucket/prefix"
CHUNK_BYTES = 1 << 20
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class MemoryPlace:
    """A file in memory that notes what is read of it."""

    data: bytes
    reads: list[tuple[int, int]] = field(default_factory=list)
    changes: bool = False
    name = "/scans/made.dcm"
    shown = "made.dcm"
    stamp = "1"

    @property
    def size(self) -> int:
        return len(self.data)

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        yield OpenSource(self, size=self.size, mtime=12.5)

    def read(self, start: int, stop: int) -> bytes:
        self.reads.append((start, stop))
        return self.data[start:stop]

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self.size, CHUNK_BYTES):
            yield self.read(start, min(start + CHUNK_BYTES, self.size))

    def check(self) -> None:
        if self.changes:
            raise SourceChanged("other bytes")


def described(data: bytes) -> Description:
    found = describe(MemoryPlace(data), DATASTORE)
    assert isinstance(found, Description), found
    return found


def attributes_of(description: Description) -> dict[str, Any]:
    return json.loads(zstandard.decompress(description.metadata))  # which fails where the frame lacks the content size


def with_uids(data: bytes) -> bytes:
    """The builders' UIDs, long enough to be stored."""
    for old, new in (
        (b"2.25.2\0\0", b"2.25.2222222"),
        (b"2.25.3\0\0", b"2.25.3333333"),
        (b"2.25.1\0\0", b"2.25.1111111"),
    ):
        old = old[:6]
        data = data.replace(b"UI\6\0" + old, b"UI\x0c\0" + new)
    return data


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_fixture_is_described_as_its_bytes_say(name: str) -> None:
    data = (P10 / name).read_bytes()
    dataset = read_quietly(data)

    found = described(data)

    assert (found.series.study_uid, found.series.series_uid) == (dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
    assert (found.instance_uid, found.size, found.mtime) == (dataset.SOPInstanceUID, len(data), 12.5)
    assert found.crc32c == google_crc32c.value(data)
    position = dataset.get("ImagePositionPatient")
    assert found.position == (tuple(position) if position else None)
    assert found.instance_number == dataset.get("InstanceNumber")
    if dataset.file_meta.TransferSyntaxUID == EXPLICIT_LITTLE_ENDIAN:
        options = JsonOptions(bulkdata_base="", bulk_threshold_bytes=768, include_file_meta=True)
        expected = json.loads(attributes_json(open_p10(Window.of(data)), options))
        assert without_bulk(attributes_of(found)) == without_bulk(expected)


def without_bulk(attributes: Any) -> Any:
    if isinstance(attributes, dict):
        return {key: key if key == "BulkDataURI" else without_bulk(value) for key, value in attributes.items()}
    return [without_bulk(value) for value in attributes] if isinstance(attributes, list) else attributes


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_file_without_a_place_is_refused_with_its_reason(name: str) -> None:
    found = describe(MemoryPlace((P10 / name).read_bytes()), DATASTORE)

    assert isinstance(found, RefusedFile)
    assert found.path == MemoryPlace.name
    assert REFUSED[name] in found.reason


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "no DICM"), (b"text", "no DICM"), (bytes(128) + b"DICM", "no Study")]
)
def test_file_that_is_no_instance_is_refused(data: bytes, reason: str) -> None:
    found = describe(MemoryPlace(data), DATASTORE)

    assert isinstance(found, RefusedFile)
    assert reason in found.reason


def test_missing_uid_counts_before_a_broken_sequence() -> None:
    broken = sequence(0x00081140, [item(element(0x00081150, "UI", b"", length=90))]) + element(0x00081160, "IS")
    image = with_uids(native_image(bytes(16)))
    place = image.index(b"\x20\0\x0d\0")
    anonymous = image[:place] + image[image.index(b"\x28\0\x02\0") :]

    reasons = [
        describe(MemoryPlace(each), DATASTORE).reason  # type: ignore[union-attr]
        for each in (image[:place] + broken + image[place:], anonymous[:place] + broken + anonymous[place:])
    ]

    assert reasons[0].startswith("unreadable: ")
    assert reasons[1] == "no Study Instance UID"


def test_file_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    data = with_uids(native_image(bytes(16)))
    path = tmp_path / "gone.dcm"
    path.write_bytes(data)
    with opened(str(path)) as file:
        gone = FilePlace(str(path), "gone.dcm", file.state)
    path.unlink()

    assert describe(MemoryPlace(data, changes=True), DATASTORE) == RefusedFile(
        MemoryPlace.name, "changed while it was being read"
    )
    assert describe(gone, DATASTORE) == RefusedFile(str(path), "cannot be read: No such file or directory")


def test_bulk_value_is_replaced_by_the_address_of_the_instance_and_its_first_bytes() -> None:
    """As the published library has it: the URI designates the whole instance, the head is text of a sort."""
    blob = bytes(range(256)) * 4
    private = sequence(0x00081140, [item(element(0x00291008, "OB", blob))])
    data = with_uids(native_image(blob, rows=32, columns=32))
    place = data.index(b"\x08\0\x16\0")

    attributes = attributes_of(described(data[:place] + private + data[place:]))

    uri = f"{DATASTORE}/studies/2.25.2222222/series/2.25.3333333.tar://instances/2.25.1111111.dcm"
    expected = {"uri": uri, "head": blob[:512].decode("utf-8", "replace")}
    assert attributes["7FE00010"] == {"vr": "OB", "BulkDataURI": expected}
    assert attributes["00081140"]["Value"][0]["00291008"] == {"vr": "OB", "BulkDataURI": expected}


def test_small_file_is_read_once() -> None:
    place = MemoryPlace(with_uids(native_image(bytes(32), frames="2")))

    describe(place, DATASTORE)

    assert place.reads == [(0, place.size)]


@pytest.mark.parametrize("kind", ["native", "encapsulated"])
def test_large_file_streams_by_once_behind_its_beginning(kind: str) -> None:
    tail = element(0xFFFAFFFA, "SQ")
    frames = [bytes([number]) * (3 << 20) for number in range(1, 5)]
    if kind == "native":
        data = native_image(b"".join(frames), frames="4", rows=3 << 10, columns=1 << 10)
    else:
        data = encapsulated_image(frames, frames="4", before=element(0x00291008, "OB", bytes(900)))
    place = MemoryPlace(with_uids(data + tail))
    assert place.size > WHOLE_BYTES

    found = describe(place, DATASTORE)

    assert isinstance(found, Description)
    assert found.crc32c == google_crc32c.value(place.data)
    assert found.offset_table is not None
    cut = zip(found.offset_table.positions, found.offset_table.lengths, strict=True)
    assert [place.data[start : start + length] for start, length in cut] == frames
    assert attributes_of(found)["FFFAFFFA"] == {"vr": "SQ"}
    read = sum(stop - start for start, stop in place.reads)
    assert place.size + BEGINNING_BYTES <= read <= place.size + BEGINNING_BYTES + 1000


def test_description_of_a_file_on_a_disk(tmp_path: Path) -> None:
    path = made(tmp_path / "a.dcm", "1.2.3.4", InstanceNumber=7, ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    with opened(str(path)) as file:
        place = FilePlace(str(path), "a.dcm", file.state)

    found = describe(place, DATASTORE)

    assert isinstance(found, Description)
    assert (found.instance_number, found.position, found.has_pixeldata) == (7, None, False)
    assert found.orientation == (1, 0, 0, 0, 1, 0)
    assert found.mtime == pytest.approx(path.stat().st_mtime)
    assert pydicom.dcmread(BytesIO(path.read_bytes())).SOPInstanceUID == found.instance_uid
