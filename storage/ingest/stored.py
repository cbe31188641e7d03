"""What a datastore holds of a series already, as far as telling new, same and in conflict needs it."""

from collections.abc import Mapping
from dataclasses import dataclass

import google_crc32c
import msgspec

from storage.bucket.base import Bucket
from storage.cod.entry import Entry
from storage.cod.writing import encode_crc32c
from storage.errors import CorruptSeries
from storage.ranges import ByteRange
from storage.writing import StoredSeries

ORIGINALS_FIELD = "codweb_originals"
"""Top-level field of metadata.json: size and checksum of files as they came, by UID, where they were transcoded."""


@dataclass(frozen=True, slots=True)
class Known:
    """One stored instance."""

    size: int
    crc32c: int
    original: tuple[int, int] | None
    """Size and checksum of the file that it was transcoded from."""
    noted: tuple[str, ...]
    """Paths of files that were found in conflict with it."""

    def is_same(self, size: int, crc32c: int) -> bool:
        return (size, crc32c) in ((self.size, self.crc32c), self.original)


class Original(msgspec.Struct, frozen=True, gc=False):
    """One member of the field: what a file was before it was transcoded."""

    size: int
    crc32c: str
    """As `storage.cod.writing.encode_crc32c` writes it."""
    transfer_syntax_uid: str
    stored_crc32c: str = ""
    """Of what it was transcoded to: of an instance with other bytes than those it tells nothing. Empty: unknown."""

    @property
    def identity(self) -> tuple[int, int] | None:
        try:
            return self.size, int.from_bytes(msgspec.json.decode(f'"{self.crc32c}"', type=bytes), "big")
        except msgspec.DecodeError:
            return None


def is_half(stored: StoredSeries) -> bool:
    """Whether a tar or its metadata is there alone: a first writer is at work, or broke off, and its lock tells more."""
    return (stored.tar is None) != (stored.document is None)


async def known_instances(bucket: Bucket, stored: StoredSeries) -> dict[str, Known]:
    """The stored instances by UID.

    Raises:
        CorruptSeries: nothing may be built on what is stored, or nobody can tell what it holds.
        StorageUnavailable: the bucket does not answer.
    """
    document = stored.document
    if document is None or stored.tar is None:
        if stored.is_absent or (stored.tar is None and not stored.entries):
            return {}
        lacks, has = ("tar", "metadata.json") if stored.tar is None else ("metadata.json", "tar")
        raise CorruptSeries(f"{stored.key} has a {has} and no {lacks}; `codweb check` tells more")
    if document.is_deid:
        raise CorruptSeries(f"{stored.key} is stored under hashed UIDs: files with their own UIDs do not belong there")
    originals = originals_of(stored)
    known: dict[str, Known] = {}
    for uid, entry in stored.entries.items():
        if entry.problem is not None:
            raise CorruptSeries(f"{stored.key}: {entry.problem}; `codweb check` tells more")
        crc32c = entry.crc32c if entry.crc32c is not None else await _checksum(bucket, stored, entry)
        original = originals.get(uid)
        known[uid] = Known(entry.size, crc32c, original.identity if original else None, _noted(entry))
    return known


def originals_of(stored: StoredSeries) -> Mapping[str, Original]:
    """What is remembered of files before they were transcoded; a field that cannot be read says nothing.

    Who removes an instance, or stores other bytes of it, may not know the field: what it says of bytes that are not
    stored any more does not count.
    """
    field = None if stored.document is None else stored.document.custom.get(ORIGINALS_FIELD)
    try:
        originals = {} if field is None else msgspec.json.decode(field, type=dict[str, Original])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {uid: each for uid, each in originals.items() if _is_of(each, stored.entries.get(uid))}


def _is_of(original: Original, entry: Entry | None) -> bool:
    if entry is None:
        return False
    if not original.stored_crc32c:
        return True
    return entry.crc32c is not None and encode_crc32c(entry.crc32c) == original.stored_crc32c


class _Noted(msgspec.Struct, gc=False):
    diff_hash_dupe_paths: list[object] = msgspec.field(default_factory=list)


def _noted(entry: Entry) -> tuple[str, ...]:
    try:
        paths = msgspec.json.decode(entry.stored, type=_Noted).diff_hash_dupe_paths
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return tuple(path for path in paths if isinstance(path, str))


async def _checksum(bucket: Bucket, stored: StoredSeries, entry: Entry) -> int:
    """Of an instance whose entry states none, as old versions left it out."""
    assert stored.tar is not None  # asked only where there is one
    checksum = 0
    place = ByteRange(entry.start, entry.stop)
    async for chunk in bucket.stream(stored.key.tar, place, version=stored.tar.version):
        checksum = google_crc32c.extend(checksum, bytes(chunk))
    return checksum
