"""What metadata.json says about one source file, and what its place in a series depends on, in one read of its bytes.

A small file is held whole. Of a large one the beginning is held, and all of it streams by once, for the checksum and
the items of encapsulated pixel data; so memory does not grow with pixel data.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import google_crc32c

from storage.cod.entry_parts import OffsetTable, compress_attributes, instance_uri
from storage.dicom.attributes import JsonOptions
from storage.dicom.examination import Examination, Examiner
from storage.dicom.p10 import P10, Header, open_p10, read_header
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.ingest.frames import PIXEL_DATA, ItemWalk, encapsulated_table, item_walk, native_table
from storage.ingest.report import RefusedFile
from storage.ingest.sources.open_source import OpenSource, SourceChanged
from storage.ingest.sources.place import Place, system_reason
from storage.keys import SeriesKey, is_path_uid

WHOLE_BYTES = 8 << 20
"""Files up to this size are read at once."""

BEGINNING_BYTES = 1 << 20
"""Of larger files, at first: more than the headers of nearly all of them."""

BULK_THRESHOLD_BYTES = 768
"""The published library's: its InlineBinary is at most 1024 characters of base64."""

HEAD_BYTES = 512
"""How much of a bulk value the library repeats in metadata.json, as text of a sort."""

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

MIN_SERIES_UID_LENGTH = 10
"""The published library refuses to open a series whose study or series UID is shorter."""

MAX_NUMBER = 1e9
"""Coordinates (mm) from here on, infinity and NaN included, are no place to sort by."""

PREFIX_OFFSET = 128
"""Length of the preamble, PS3.10 §7.1; `DICM` follows."""

_INSTANCE_NUMBER = 0x00200013
_IMAGE_POSITION = 0x00200032
_IMAGE_ORIENTATION = 0x00200037

_EXAMINER = Examiner(
    JsonOptions(bulkdata_base="", bulk_threshold_bytes=BULK_THRESHOLD_BYTES, include_file_meta=True),
    frozenset({_INSTANCE_NUMBER, _IMAGE_POSITION, _IMAGE_ORIENTATION}),
)
"""One for each process: it remembers what the files before had in common."""

_BULKDATA_URI = re.compile(rb'"BulkDataURI":"/([^"]*)"')
"""Cannot occur inside a value: JSON escapes the quotes there."""


@dataclass(frozen=True, slots=True)
class Description:
    """One source file, read completely: what its entry in metadata.json needs besides its place in the tar."""

    place: Place
    series: SeriesKey
    instance_uid: str
    size: int
    mtime: float
    """Seconds since the epoch."""
    instance_number: int | None
    position: tuple[float, ...] | None
    """Image Position (Patient), three numbers."""
    orientation: tuple[float, ...] | None
    """Image Orientation (Patient), six numbers."""
    crc32c: int
    has_pixeldata: bool
    metadata: bytes
    """DICOM JSON as the published library shapes it, in one zstd frame."""
    offset_table: OffsetTable | None


def describe(place: Place, datastore_url: str) -> Description | RefusedFile:
    """Read one file completely, or say why it cannot be stored.

    Args:
        datastore_url: the address of the instance in it stands wherever the attributes leave out a bulk value.

    Raises:
        StorageUnavailable: the file lies in a bucket that does not answer.
    """
    try:
        with place.open() as source:
            described = _describe(place, source, datastore_url)
            source.check()
            return described
    except OSError as error:
        return RefusedFile(place.name, system_reason(error))
    except SourceChanged:
        return RefusedFile(place.name, "changed while it was being read")
    except InstanceUnreadable as error:
        return RefusedFile(place.name, f"unreadable: {error}")


class _Bytes:
    """The bytes of a source, each read once and in order; only their beginning is kept."""

    def __init__(self, source: OpenSource) -> None:
        is_small = source.size <= WHOLE_BYTES
        self._source = source
        self.beginning = source.read(0, source.size if is_small else BEGINNING_BYTES)
        self._crc32c: int | None = google_crc32c.value(self.beginning) if is_small else None

    def walk(self, walk: ItemWalk) -> None:
        """Lead a walk over all bytes."""
        if self._crc32c is not None and len(self.beginning) == self._source.size:
            walk.feed(0, self.beginning)
        else:
            self._read(walk)

    @property
    def crc32c(self) -> int:
        """Of all bytes."""
        if self._crc32c is None:
            self._crc32c = self._read(None)
        return self._crc32c

    def _read(self, walk: ItemWalk | None) -> int:
        position = checksum = 0
        for chunk in self._source.chunks():
            checksum = google_crc32c.extend(checksum, chunk)
            if walk is not None:
                walk.feed(position, chunk)
            position += len(chunk)
        if position != self._source.size:
            raise SourceChanged(f"{position} bytes instead of {self._source.size}")
        self._crc32c = checksum
        return checksum


def _describe(place: Place, source: OpenSource, datastore_url: str) -> Description | RefusedFile:
    data = _Bytes(source)
    if data.beginning[PREFIX_OFFSET : PREFIX_OFFSET + 4] != b"DICM":
        return RefusedFile(place.name, "not a DICOM file: no DICM after 128 bytes (PS3.10 section 7.1)")
    window = Window(source.size)
    window.add(0, data.beginning)
    p10 = source.parse(window, partial(open_p10, window))
    items: ItemWalk | None = None

    def tail_start(header: Header) -> int | None:
        nonlocal items
        if items is None and (items := item_walk(p10, header)) is not None:
            data.walk(items)
        return None if items is None else items.stop

    def examine() -> tuple[Examination, dict[bytes, bytes]]:
        examination = _EXAMINER.examine(p10, tail_start)
        return examination, _heads(p10, examination.bulk)

    try:
        examination, heads = source.parse(window, examine)
    except InstanceUnreadable:
        reason = _refusal(source, window, p10, source.parse(window, partial(read_header, p10)))
        if reason is None:
            raise
        return RefusedFile(place.name, reason)
    header, values = examination.header, examination.values
    reason = _refusal(source, window, p10, header)
    if reason is not None:
        return RefusedFile(place.name, reason)
    series = SeriesKey(header.study_uid, header.series_uid)
    uri = instance_uri(datastore_url, series, header.sop_instance_uid)
    if items is not None:
        table = encapsulated_table(p10, header, items)
    else:
        table = source.parse(window, partial(native_table, window, p10, header))
    return Description(
        place=place,
        series=series,
        instance_uid=header.sop_instance_uid,
        size=source.size,
        mtime=source.mtime,
        instance_number=_integer(values.get(_INSTANCE_NUMBER)),
        position=_numbers(values.get(_IMAGE_POSITION), 3),
        orientation=_numbers(values.get(_IMAGE_ORIENTATION), 6),
        crc32c=data.crc32c,
        has_pixeldata=header.pixels is not None and header.pixels.tag == PIXEL_DATA,
        metadata=compress_attributes(_with_bulk_objects(examination.attributes, uri, heads)),
        offset_table=table,
    )


def _refusal(source: OpenSource, window: Window, p10: P10, header: Header) -> str | None:
    """Why the file cannot have a place in a datastore."""
    media_sop_class_uid = source.parse(window, lambda: p10.media_sop_class_uid)
    if MEDIA_STORAGE_DIRECTORY in (media_sop_class_uid, header.sop_class_uid):  # a real one has only the first
        return "a DICOMDIR: it lists other files and holds no instance"
    named = (
        ("Study Instance UID", header.study_uid),
        ("Series Instance UID", header.series_uid),
        ("SOP Instance UID", header.sop_instance_uid),
    )
    for name, uid in named:
        if not uid:
            return f"no {name}"
        if not is_path_uid(uid):
            return f"{name} cannot be part of an object's name"
    if min(len(header.study_uid), len(header.series_uid)) < MIN_SERIES_UID_LENGTH:
        return f"study or series UID shorter than the {MIN_SERIES_UID_LENGTH} characters COD asks for"
    return None


def _heads(p10: P10, bulk: Mapping[bytes, tuple[int, int]]) -> dict[bytes, bytes]:
    """The first bytes of the values that become bulk data, by their path."""
    window = p10.window
    return {
        path: bytes(window.view(start, min(start + HEAD_BYTES, window.size if stop < 0 else stop)))
        for path, (start, stop) in bulk.items()
    }


def _with_bulk_objects(attributes: bytes, uri: str, heads: Mapping[bytes, bytes]) -> bytes:
    """Replace each BulkDataURI by the published library's object: the instance's `uri`, and a `head` of the value."""
    link = json.dumps(uri).encode("ascii")

    def bulk_object(match: re.Match[bytes]) -> bytes:
        head = json.dumps(heads[match[1]].decode("utf-8", "replace")).encode("ascii")
        return b'"BulkDataURI":{"uri":' + link + b',"head":' + head + b"}"

    return _BULKDATA_URI.sub(bulk_object, attributes)


def _integer(raw: bytes | None) -> int | None:
    try:
        return None if raw is None else int(raw.strip(b" \0"))
    except ValueError:
        return None


def _numbers(raw: bytes | None, count: int) -> tuple[float, ...] | None:
    """Exactly `count` decimals of a size that lengths and cosines have, or nothing."""
    try:
        numbers = tuple(float(part.strip(b" \0")) for part in (raw or b"").split(b"\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(abs(number) < MAX_NUMBER for number in numbers) else None
