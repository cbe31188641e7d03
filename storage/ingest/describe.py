"""What metadata.json says about one source file: its checksum, its attributes, and where its frames lie.

One pass over the bytes for the checksum, and reads by position for the rest, so memory does not grow with pixel data.
"""

import json
import re
from collections.abc import Mapping, Set
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import google_crc32c

from storage.cod.writing import OffsetTable, compress_attributes, instance_uri
from storage.dicom.elements import Kind, walk
from storage.dicom.json import JsonOptions, attributes_json
from storage.dicom.p10 import P10, open_p10, read_header
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.ingest.frames import PIXEL_DATA, find_frames
from storage.ingest.plan import PlannedSeries, SourceFile, in_batches, in_order
from storage.ingest.report import RefusedFile
from storage.ingest.source import OpenSource, SourceChanged, open_source

BULK_THRESHOLD_BYTES = 768
"""The published library's: its InlineBinary is at most 1024 characters of base64."""

HEAD_BYTES = 512
"""How much of a bulk value the library repeats in metadata.json, as text of a sort."""

_BULKDATA_URI = re.compile(rb'"BulkDataURI":"/([^"]*)"')
"""Cannot occur inside a value: JSON escapes the quotes there."""


@dataclass(frozen=True, slots=True)
class Description:
    """One source file, read completely: what its entry in metadata.json needs besides its place in the tar."""

    file: SourceFile
    crc32c: int
    has_pixeldata: bool
    metadata: bytes
    """DICOM JSON as the published library shapes it, in one zstd frame."""
    offset_table: OffsetTable | None

    @property
    def size(self) -> int:
        return self.file.state.size


async def describe_files(
    planned: PlannedSeries, datastore_url: str, pool: Executor
) -> tuple[tuple[Description, ...], tuple[RefusedFile, ...]]:
    """Describe the files of a series, in their order; a file whose data set cannot be read is refused alone.

    Raises:
        SourceChanged: a file is not what it was when it was planned.
    """
    described: list[Description] = []
    refused: list[RefusedFile] = []

    def take(batch: list[Description | RefusedFile]) -> None:
        for item in batch:
            if isinstance(item, RefusedFile):
                refused.append(item)
            else:
                described.append(item)

    jobs = [(file, instance_uri(datastore_url, planned.key, file.instance_uid)) for file in planned.files]
    await in_order(pool, _describe_batch, in_batches(jobs), take)
    return tuple(described), tuple(refused)


def _describe_batch(jobs: list[tuple[SourceFile, str]]) -> list[Description | RefusedFile]:
    return [describe(file, uri) for file, uri in jobs]


def describe(file: SourceFile, uri: str) -> Description | RefusedFile:
    """Read one file completely.

    Args:
        uri: of the instance in its datastore; it stands wherever a bulk value is left out.

    Raises:
        SourceChanged: the file is not what it was when it was planned.
    """
    try:
        with open_source(file.path) as source:
            source.expect(file.state)
            description = _describe(file, source, uri)
            source.expect(file.state)
            return description
    except InstanceUnreadable as error:
        return RefusedFile(file.path, f"unreadable: {error}")
    except OSError as error:
        raise SourceChanged(f"{file.path} can no longer be read: {error.strerror or error}") from error


def _describe(file: SourceFile, source: OpenSource, uri: str) -> Description:
    window = Window(source.state.size)
    p10 = source.parse(window, partial(open_p10, window))
    header = source.parse(window, partial(read_header, p10))
    uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
    if uids != (file.series.study_uid, file.series.series_uid, file.instance_uid):
        raise SourceChanged(f"{file.path} holds another instance than when it was planned")
    frames = find_frames(source, window, p10, header)
    attributes = source.parse(window, partial(attributes_json, p10, _OPTIONS, tail_start=frames.tail_start))
    paths = set(_BULKDATA_URI.findall(attributes))
    heads = source.parse(window, partial(_read_heads, p10, paths))
    checksum = 0
    for chunk in source.chunks():
        checksum = google_crc32c.extend(checksum, chunk)
    return Description(
        file=file,
        crc32c=checksum,
        has_pixeldata=header.pixels is not None and header.pixels.tag == PIXEL_DATA,
        metadata=compress_attributes(_with_bulk_objects(attributes, uri, heads)),
        offset_table=frames.table,
    )


_OPTIONS = JsonOptions(bulkdata_base="", bulk_threshold_bytes=BULK_THRESHOLD_BYTES, include_file_meta=True)


def _with_bulk_objects(attributes: bytes, uri: str, heads: Mapping[bytes, bytes]) -> bytes:
    """Replace each BulkDataURI by the published library's object: the instance's `uri`, and a `head` of the value."""
    link = json.dumps(uri).encode("ascii")

    def bulk_object(match: re.Match[bytes]) -> bytes:
        head = json.dumps(heads.get(match[1], b"").decode("utf-8", "replace")).encode("ascii")
        return b'"BulkDataURI":{"uri":' + link + b',"head":' + head + b"}"

    return _BULKDATA_URI.sub(bulk_object, attributes)


def _read_heads(p10: P10, paths: Set[bytes]) -> dict[bytes, bytes]:
    """The first bytes of the values at these paths; attributes behind encapsulated pixel data have none."""
    heads: dict[bytes, bytes] = {}
    place: list[str] = []
    item_numbers: list[int] = []
    for kind, tag, _, start, stop in walk(
        p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian
    ):
        if len(heads) == len(paths):
            break
        if kind == Kind.SEQUENCE:
            place.append(f"{tag:08X}")
            item_numbers.append(0)
        elif kind == Kind.ITEM:
            item_numbers[-1] += 1
            place.append(str(item_numbers[-1]))
        elif kind == Kind.END_ITEM:
            place.pop()
        elif kind == Kind.END_SEQUENCE:
            place.pop()
            item_numbers.pop()
        elif stop < 0 or stop - start > BULK_THRESHOLD_BYTES or tag == PIXEL_DATA:
            path = "/".join((*place, f"{tag:08X}")).encode("ascii")
            if path in paths:
                head_stop = min(start + HEAD_BYTES, p10.window.size if stop < 0 else stop)
                heads[path] = bytes(p10.window.view(start, head_stop))
    return heads
