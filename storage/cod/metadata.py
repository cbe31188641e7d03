"""metadata.json of a COD series: the envelope around the entries of its instances.

    {"study_uid" | "deid_study_uid": …, "series_uid" | "deid_series_uid": …,
     "cod": {"instances": {<SOP Instance UID of the outside world>: {entry}, …}}, "thumbnail": {…}?, <user fields>…}

Stored gzip-compressed, but a store that was copied, or read through decompressive transcoding, holds it plain: sniffed.
Entries are decoded one level deep; their DICOM JSON stays undecoded until `Entry.attributes_json` is asked for it.
"""

import re
import zlib
from dataclasses import dataclass

import msgspec

from storage.cod.entry import DEFAULT_LIMITS, Entry, Limits, OriginalUids, StoredTable, parse_entry
from storage.cod.json_text import mend_tokens
from storage.errors import CorruptSeries
from storage.keys import SeriesKey

__all__ = ["Entry", "Limits", "OriginalUids", "SeriesMetadata", "StoredTable", "parse_series_metadata"]

GZIP_MAGIC = b"\x1f\x8b"
FEED_BYTES = 64 << 10
"""Compressed bytes fed at a time: zlib copies what it has not consumed at every call."""
PIECE_BYTES = 1 << 20
"""Decompressed bytes asked for at a time, so that a bomb is noticed before it is held."""
UNSUSPECTED_BYTES = 8 << 20
"""Below this size no compression ratio is suspicious."""
UNSUSPECTED_COLONS = 1 << 21
"""Below this number of colons a document cannot have enough members to fill the memory."""
ENVELOPE_DEPTH = 3
"""Root, `cod`, `instances`: the levels whose members are decoded one by one."""

_DOCUMENT = ("study_uid", "series_uid", "deid_study_uid", "deid_series_uid", "cod", "thumbnail")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])

# Everything up to the next bracket outside of strings, or to the end: one step of Python per bracket, not per token. It
# matches wherever it starts, so that no byte is looked at twice.
_RUN = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?[^"{}\[\]]*+)*+([{}\[\]]?)', re.DOTALL)
_DEEPER = {b"{": 1, b"[": 1, b"}": -1, b"]": -1, b"": 0}


@dataclass(frozen=True, slots=True)
class SeriesMetadata:
    """What metadata.json says about one series."""

    key: SeriesKey
    """Where it was found; what it says about its own place is never used for reading."""
    study_uid: str | None
    """As stated in the file (hashed in a de-identified store)."""
    series_uid: str | None
    is_deid: bool
    """Whether keys are hashed UIDs while the data sets still hold the original ones."""
    entries: dict[str, Entry]
    """By SOP Instance UID of the outside world, in stored order; may be empty."""
    thumbnail: dict[str, object] | None
    custom: dict[str, msgspec.Raw]
    """Every other top-level field, undecoded: fields of users, which a rewrite must keep."""
    stored_thumbnail: msgspec.Raw | None
    """`thumbnail` as it is stored: what a rewrite keeps even when nobody can read it."""


def parse_series_metadata(data: bytes, key: SeriesKey, *, limits: Limits = DEFAULT_LIMITS) -> SeriesMetadata:
    """Read the stored bytes of a metadata.json.

    Args:
        data: as stored: gzip or plain.
        key: the place where it was found, for messages and for `SeriesMetadata.key`.

    Raises:
        CorruptSeries: damaged, cut off, not the shape of a COD series, or beyond the limits. A single bad entry is no
            error here: it carries its `problem`.
    """
    text = decompressed(data, key, limits)
    if not text.isascii():
        _check_utf8(text, key)
    _check_member_count(text, key, limits)
    root = _root(text, key)
    instances = _members(_members(root.get("cod"), "cod", key).get("instances"), "instances", key)
    if len(instances) > limits.max_instances:
        raise CorruptSeries(f"{key}: {len(instances)} instances, more than {limits.max_instances}")
    is_deid = "deid_study_uid" in root
    prefix = "deid_" if is_deid else ""
    return SeriesMetadata(
        key=key,
        study_uid=_stated(root.get(prefix + "study_uid")),
        series_uid=_stated(root.get(prefix + "series_uid")),
        is_deid=is_deid,
        entries={uid: parse_entry(uid, stored) for uid, stored in instances.items()},
        thumbnail=_thumbnail(root.get("thumbnail")),
        custom={name: value for name, value in root.items() if name not in _DOCUMENT},
        stored_thumbnail=root.get("thumbnail"),
    )


def decompressed(data: bytes, key: object, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The JSON text of metadata.json, or of a lock. One gzip member, as every writer stores it; zeros may follow.

    Args:
        key: whose it is, for messages.

    Raises:
        CorruptSeries: damaged, cut off, or beyond the limits; no more than those is ever held.
    """
    if not data.startswith(GZIP_MAGIC):
        if len(data) > limits.max_bytes:
            raise CorruptSeries(f"{key}: metadata.json has {len(data)} bytes, more than {limits.max_bytes}")
        return data
    most = min(limits.max_bytes, max(UNSUSPECTED_BYTES, len(data) * limits.max_ratio))
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    pieces: list[bytes] = []
    total = position = 0
    while position < len(data) and not stream.eof:
        pending = data[position : position + FEED_BYTES]
        position += len(pending)
        is_full = True
        while is_full:  # a full piece may have more behind it, even when all input is consumed
            try:
                piece = stream.decompress(pending, PIECE_BYTES)
            except zlib.error as error:
                raise CorruptSeries(f"{key}: metadata.json is damaged after {total} decompressed bytes") from error
            pending = stream.unconsumed_tail
            pieces.append(piece)
            total += len(piece)
            if total > most:
                pieces.clear()  # or the error's traceback would keep them for as long as it lives
                raise CorruptSeries(f"{key}: metadata.json of {len(data)} bytes unpacks to more than {most}")
            is_full = len(piece) == PIECE_BYTES
    if not stream.eof:
        raise CorruptSeries(f"{key}: metadata.json is cut off after {total} decompressed bytes")
    if stream.unused_data.strip(b"\0") or data[position:].strip(b"\0"):
        raise CorruptSeries(f"{key}: metadata.json goes on behind its compressed end")
    return b"".join(pieces)


def _check_utf8(text: bytes, key: SeriesKey) -> None:
    """msgspec skips over strings without looking at their bytes."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise CorruptSeries(f"{key}: metadata.json is no UTF-8 at byte {error.start}") from None


def _check_member_count(text: bytes, key: SeriesKey, limits: Limits) -> None:
    """Refuse a document whose outer levels have more members than memory should hold, before decoding any.

    A colon is the least that a member needs, so few colons are proof enough; otherwise those of the outer levels count.
    """
    if text.count(b":") <= UNSUSPECTED_COLONS:
        return
    most = limits.max_instances * 4
    depth = colons = 0
    for run in _RUN.finditer(text):
        if depth <= ENVELOPE_DEPTH:
            colons += text.count(b":", run.start(), run.end())
            if colons > most:
                raise CorruptSeries(f"{key}: metadata.json has more than {most} members")
        depth += _DEEPER[run[1]]


def _root(text: bytes, key: SeriesKey) -> dict[str, msgspec.Raw]:
    """The top-level members; tokens such as NaN, which the published writer leaves in, are mended first if need be."""
    try:
        try:
            return _MEMBERS.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return _MEMBERS.decode(mend_tokens(text))
    except RecursionError:
        raise CorruptSeries(f"{key}: metadata.json is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptSeries(f"{key}: metadata.json is no JSON object that can be read") from error


def _members(stored: msgspec.Raw | None, name: str, key: SeriesKey) -> dict[str, msgspec.Raw]:
    if stored is None:
        raise CorruptSeries(f'{key}: metadata.json has no "{name}"')
    try:
        return _MEMBERS.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptSeries(f'{key}: "{name}" in metadata.json is no object') from error


def _stated(stored: msgspec.Raw | None) -> str | None:
    try:
        return None if stored is None else msgspec.json.decode(stored, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _thumbnail(stored: msgspec.Raw | None) -> dict[str, object] | None:
    """A convenience of the writer: one that cannot be read is none."""
    try:
        return None if stored is None else msgspec.json.decode(stored, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
