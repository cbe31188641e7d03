"""One instance as `metadata.json` states it: where its P10 lies in the tar, and its stored DICOM JSON.

Every number of an entry is a claim by whoever wrote the store: checked for its type and size here, proven against the
tar by the reader. An entry that makes no sense carries its `problem` instead of hiding its neighbours.
The format (fields, versions, traps) is described in the reference of the published library; `end_byte` is ambiguous
there (exclusive as written, inclusive as read), so a range is always [start, start + size).
"""

import binascii
import threading
from dataclasses import dataclass

import msgspec
import zstandard

from storage.errors import InstanceUnreadable
from storage.keys import SeriesKey, is_path_uid

LARGEST_OFFSET = 1 << 62
"""No tar is larger; beyond it sums leave the 64-bit numbers of the series index."""

KNOWN_VERSIONS = ("1.0", "2.0")
TAR_IDENTIFIER = ".tar://"
"""What separates the tar from its member in a stored `uri`."""

_SMALL_BYTES = 1 << 20
"""Up to this size a thread uses one decompressor again and again, which keeps its buffers; making one takes 5 µs."""

StoredTable = tuple[tuple[int, ...], tuple[int, ...]]
"""Positions relative to the P10, and lengths, one of each per frame. A hint: for native pixels 8 too high."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading stored metadata may cost at most. A hostile store must not exhaust the process."""

    max_bytes: int = 1 << 30
    """Bytes of a whole metadata.json after decompression."""
    max_ratio: int = 400
    """Decompressed over compressed bytes of metadata.json above 8 MiB; DICOM JSON stays below 100, zeros reach 1032."""
    max_instances: int = 1_000_000
    max_instance_bytes: int = 256 << 20
    """Bytes of one instance's DICOM JSON: 10^5 per-frame items take about 100 MB."""


DEFAULT_LIMITS = Limits()


class OriginalUids(msgspec.Struct, frozen=True, gc=False):
    """The UIDs inside the P10; in a de-identified store they differ from those of the outside world."""

    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One instance of a series, as stored. A struct, for there are many: a frozen dataclass takes 3 µs, this 0.2."""

    instance_uid_key: str
    """The SOP Instance UID of the outside world: its key in `instances`, and its name in the tar."""
    version: str
    """"1.0" (DICOM JSON in place) or "2.0" (base64 of zstd); an entry without a version is "1.0"."""
    start: int
    """Position of the P10's first byte in the tar."""
    size: int
    """Bytes of the P10."""
    crc32c: int | None
    """CRC-32C of the P10; None if none is stated, or none that can be read."""
    has_pixeldata: bool | None
    """Whether PixelData (7FE0,0010) is present; None if version 1.0 leaves it unsaid. Float pixels count as False."""
    stored_table: StoredTable | None
    states_table: bool
    """Whether there is an offset table at all; one that leaves the instance is stated and not kept."""
    problem: str | None
    """Why this entry cannot be used; None for a sound one. `start` and `size` mean nothing beside a problem."""
    metadata: msgspec.Raw
    """The stored DICOM JSON, undecoded."""
    place: str | None
    """`uri` (or `url`) as stored. A claim, never read from: stores are copied, and hostile ones point elsewhere."""
    stated_uids: OriginalUids
    """Version 2.0 states the original UIDs beside the metadata."""
    stored: msgspec.Raw
    """The whole entry, undecoded: what a rewrite keeps of it."""

    @property
    def stop(self) -> int:
        """The first byte of the tar behind the P10."""
        return self.start + self.size

    def attributes_json(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The stored DICOM JSON object of this instance, as its writer left it (see `attributes.normalise`).

        Raises:
            InstanceUnreadable: the entry has a problem, or its metadata is no object, damaged, or beyond the limits.
        """
        if self.problem is not None:
            raise InstanceUnreadable(self.problem)
        stored = bytes(self.metadata)
        if stored.startswith(b'"'):
            stored = self._unpack(stored, limits)
        if len(stored) > limits.max_instance_bytes:
            raise self._unreadable(f"metadata of {len(stored)} bytes, more than {limits.max_instance_bytes}")
        if not stored.lstrip(b" \t\r\n").startswith(b"{"):
            raise self._unreadable("metadata is no JSON object")
        return stored

    def original_uids(self, limits: Limits = DEFAULT_LIMITS) -> OriginalUids:
        """The UIDs inside the P10, as stated; from the stored DICOM JSON where the entry does not say (version 1.0).

        Raises:
            InstanceUnreadable: as `attributes_json`.
        """
        stated = self.stated_uids
        if None not in (stated.study_uid, stated.series_uid, stated.instance_uid):
            return stated
        try:
            found = msgspec.json.decode(self.attributes_json(limits), type=_UidAttributes)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unreadable("UIDs cannot be read from the metadata") from error
        return OriginalUids(
            stated.study_uid or found.study.first(),
            stated.series_uid or found.series.first(),
            stated.instance_uid or found.instance.first(),
        )

    def names_other_place(self, key: SeriesKey) -> bool:
        """Whether the stored `uri` points outside this series' own tar, or at another member (for checks only)."""
        if self.place is None:
            return False
        tar, separator, member = self.place.partition(TAR_IDENTIFIER)
        if not separator or member != f"instances/{self.instance_uid_key}.dcm":
            return True
        return tar + ".tar" != key.tar and not (tar + ".tar").endswith("/" + key.tar)

    def _unpack(self, stored: bytes, limits: Limits) -> bytes:
        """Base64, then one zstd frame. Left to itself, zstandard allocates whatever size the frame declares."""
        try:
            blob = msgspec.json.decode(stored, type=bytes)
            declared = zstandard.frame_content_size(blob)  # -1: not declared, and max_output_size holds instead
            if declared > limits.max_instance_bytes:
                raise self._unreadable(f"metadata declares {declared} bytes, more than {limits.max_instance_bytes}")
            zstd = _per_thread.zstd if 0 <= declared <= _SMALL_BYTES else zstandard.ZstdDecompressor()
            return zstd.decompress(blob, max_output_size=limits.max_instance_bytes, allow_extra_data=False)
        except (ValueError, zstandard.ZstdError, MemoryError) as error:  # msgspec.DecodeError is a ValueError
            raise self._unreadable("metadata is damaged, or larger than allowed") from error

    def _unreadable(self, reason: str) -> InstanceUnreadable:
        return InstanceUnreadable(f"instance {self.instance_uid_key}: {reason}")


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_per_thread = _PerThread()


class _UidAttribute(msgspec.Struct, gc=False):
    value: list[object] = msgspec.field(default_factory=list, name="Value")

    def first(self) -> str | None:
        return self.value[0] if self.value and isinstance(self.value[0], str) and self.value[0] else None


class _UidAttributes(msgspec.Struct, gc=False):
    study: _UidAttribute = msgspec.field(default_factory=_UidAttribute, name="0020000D")
    series: _UidAttribute = msgspec.field(default_factory=_UidAttribute, name="0020000E")
    instance: _UidAttribute = msgspec.field(default_factory=_UidAttribute, name="00080018")


class StoredEntry(msgspec.Struct, gc=False):
    """The fields of a stored entry that are read, of whatever type they turn out to be."""

    metadata: msgspec.Raw = msgspec.Raw()
    headers: object = None
    size: object = None
    crc32c: object = None
    has_pixeldata: object = None
    offset_tables: object = None
    version: object = None
    uri: object = None
    url: object = None
    study_uid: object = None
    series_uid: object = None
    instance_uid: object = None


_DECODER = msgspec.json.Decoder(StoredEntry)


def parse_entry(instance_uid_key: str, stored: msgspec.Raw) -> Entry:
    """One entry of `instances`; what is wrong with it becomes its `problem`, never an exception."""
    try:
        fields = _DECODER.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _entry(instance_uid_key, stored, StoredEntry(), 0, 0, "is no readable JSON object")
    found = _range(fields)
    if isinstance(found, str):
        return _entry(instance_uid_key, stored, fields, 0, 0, found)
    problem = None
    if fields.version is not None and fields.version not in KNOWN_VERSIONS:
        problem = "is of an unknown version"
    elif not bytes(memoryview(fields.metadata)[:1]):
        problem = "has no metadata"
    return _entry(instance_uid_key, stored, fields, *found, problem)


def _entry(key: str, stored: msgspec.Raw, fields: StoredEntry, start: int, size: int, problem: str | None) -> Entry:
    if not is_path_uid(key):  # not repeated in the message: it may be anything, a patient's name included
        problem = "an entry whose key is no UID"
    elif problem is not None:
        problem = f"instance {key}: its entry {problem}"
    return Entry(
        instance_uid_key=key,
        version=fields.version if isinstance(fields.version, str) else "1.0",
        start=start,
        size=size,
        crc32c=_crc32c(fields.crc32c),
        has_pixeldata=fields.has_pixeldata if isinstance(fields.has_pixeldata, bool) else None,
        stored_table=_table(fields.offset_tables, size),
        states_table=isinstance(fields.offset_tables, dict) and bool(fields.offset_tables.get("CustomOffsetTable")),
        problem=problem,
        metadata=fields.metadata,
        place=_text(fields.uri) or _text(fields.url),
        stated_uids=OriginalUids(_text(fields.study_uid), _text(fields.series_uid), _text(fields.instance_uid)),
        stored=stored,
    )


def _range(fields: StoredEntry) -> tuple[int, int] | str:
    """Start and size of the P10, or what is wrong with them. `type() is int`, because True is an int to isinstance."""
    headers = fields.headers
    if not isinstance(headers, dict):
        return "has no headers"
    start = headers.get("start_byte")
    if type(start) is not int or not 0 <= start <= LARGEST_OFFSET:
        return "has no start_byte that can be a position"
    size = fields.size
    if size is None:
        end = headers.get("end_byte")
        size = end - start if type(end) is int else None
    if type(size) is not int or not 0 < size <= LARGEST_OFFSET:
        return "has no size that can be a number of bytes"
    return start, size


def _crc32c(stored: object) -> int | None:
    """Base64 of the big-endian checksum, as Google Cloud Storage writes it."""
    if not isinstance(stored, str):
        return None
    try:
        checksum = binascii.a2b_base64(stored, strict_mode=True)
    except ValueError:
        return None
    return int.from_bytes(checksum, "big") if len(checksum) == 4 else None


def _table(stored: object, size: int) -> StoredTable | None:
    """The stored offset table if each of its ranges lies within the instance; otherwise it is no hint worth having."""
    if not isinstance(stored, dict) or not stored:
        return None
    positions, lengths = stored.get("CustomOffsetTable"), stored.get("CustomOffsetTableLengths")
    if (
        not isinstance(positions, list)
        or not isinstance(lengths, list)
        or len(positions) != len(lengths)
        or not positions
    ):
        return None
    for position, length in zip(positions, lengths, strict=True):
        if type(position) is not int or type(length) is not int:
            return None
        if position < 0 or length < 0 or position + length > size:
            return None
    return tuple(positions), tuple(lengths)


def _text(stored: object) -> str | None:
    return stored if isinstance(stored, str) and stored else None
