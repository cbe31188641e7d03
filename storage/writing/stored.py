"""What the bucket holds of one series, as a writer needs to know it: two objects, their versions, every entry."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from storage.bucket.base import Bucket, ObjectInfo
from storage.cod.entry import Entry
from storage.cod.metadata import SeriesMetadata, parse_series_metadata
from storage.cod.writing import series_members
from storage.errors import CorruptSeries, ObjectNotFound, ObjectTruncated
from storage.keys import SeriesKey

LOCK_FIELDS = ("codweb", "codweb_journal")
"""Top-level fields of locks; they have no place in metadata.json."""


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """One series as it is now, or its place where nothing is yet."""

    key: SeriesKey
    tar: ObjectInfo | None
    metadata_version: str | None
    """None: there is no metadata.json."""
    document: SeriesMetadata | None

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By SOP Instance UID of the outside world, in stored order."""
        return {} if self.document is None else self.document.entries

    @property
    def is_absent(self) -> bool:
        """Whether nothing is there: neither metadata nor tar."""
        return self.tar is None and self.document is None

    @property
    def tar_version(self) -> str | None:
        return None if self.tar is None else self.tar.version


async def read_stored(bucket: Bucket, key: SeriesKey) -> StoredSeries:
    """Read metadata.json and look at the tar; no lock is asked for, so two writers' states may be mixed.

    Raises:
        CorruptSeries: metadata.json cannot be read.
        StorageUnavailable: the bucket does not answer.
    """
    try:
        read = await bucket.read(key.metadata)
    except ObjectNotFound:
        return StoredSeries(key, await head_or_none(bucket, key.tar), None, None)
    except ObjectTruncated as error:
        raise CorruptSeries(str(error)) from error
    document = await asyncio.to_thread(parse_series_metadata, bytes(read.data), key)
    return StoredSeries(key, await head_or_none(bucket, key.tar), read.version, document)


async def head_or_none(bucket: Bucket, key: str) -> ObjectInfo | None:
    """An object as the bucket describes it, or None where it says that there is none."""
    try:
        return await bucket.head(key)
    except ObjectNotFound:
        return None


def kept_members(key: SeriesKey, document: SeriesMetadata | None, *, is_deid: bool = False) -> dict[str, msgspec.Raw]:
    """The top-level members of metadata.json that a rewrite keeps: its UIDs, thumbnail, fields of users."""
    if document is None:
        return series_members(key, is_deid=is_deid)
    stated = SeriesKey(document.study_uid or key.study_uid, document.series_uid or key.series_uid)
    members = series_members(stated, is_deid=document.is_deid)
    if document.stored_thumbnail is not None:
        members["thumbnail"] = document.stored_thumbnail
    return members | {name: value for name, value in document.custom.items() if name not in LOCK_FIELDS}
