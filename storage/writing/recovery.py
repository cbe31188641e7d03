"""After a writer died: does its change stand, or the state before it? The lock says what was to become, the tar decides.

no journal                        nothing had been replaced        the old state stands
the tar is the one before         nothing had been replaced        the old state stands
the tar is the one of the journal metadata.json may be missing     index.sqlite and metadata.json are written
metadata.json describes the tar   somebody finished otherwise      the present state stands
neither                           nobody can tell                  the lock stays, and says so
"""

import asyncio
import itertools
from collections.abc import Iterable
from enum import StrEnum

import google_crc32c

from storage.bucket.base import Bucket, ObjectInfo
from storage.cod.entry import Entry
from storage.cod.lock import LockText
from storage.cod.metadata import SeriesMetadata, parse_series_metadata
from storage.cod.tar import HEADER_BYTES, TarLayout, TarMember, member_name
from storage.cod.writing import build_tar_index
from storage.errors import CorruptSeries, SeriesUnfinished
from storage.keys import SeriesKey, SeriesObject
from storage.ranges import ByteRange
from storage.writing.document import pack_present
from storage.writing.stored import StoredSeries, head_or_none, read_stored
from storage.writing.survey import survey_tar


class Side(StrEnum):
    """Which state of a series stands."""

    BEFORE = "as before"
    AFTER = "as after"


async def settle(bucket: Bucket, key: SeriesKey, text: LockText) -> Side:
    """Bring a series whose writer is gone to one side of the change that its lock announces. Its lock is ours by now.

    Raises:
        SeriesUnfinished: what lies there is on neither side.
        StorageUnavailable: the bucket does not answer; nothing was decided.
    """
    journal = text.journal
    if journal is None:
        return Side.BEFORE
    if journal.is_removal:
        return await _settle_removal(bucket, key)
    tar = await head_or_none(bucket, key.tar)
    if (None if tar is None else tar.version) == journal.tar_before:
        return Side.BEFORE
    try:
        document = await asyncio.to_thread(parse_series_metadata, text.document, key)
    except CorruptSeries as error:
        raise SeriesUnfinished(f"{key}: the lock of a broken-off change cannot be read: {error}") from error
    if tar is not None and tar.size == journal.tar_size and await _holds(bucket, tar, document):
        await write_derived(bucket, key, tar, document)
        return Side.AFTER
    present = (await read_stored(bucket, key)).document
    if tar is not None and present is not None and present.entries and await _holds(bucket, tar, present):
        return Side.BEFORE
    raise SeriesUnfinished(
        f"{key}: a change broke off, and the tar is neither the one before it nor the one after it. "
        "Its lock stays; `codweb check` shows what is left, `codweb unlock` gives the series free"
    )


async def is_whole(bucket: Bucket, key: SeriesKey) -> bool:
    """Whether metadata.json and the tar belong together, or both are absent. Reads all of the tar, once."""
    try:
        stored = await read_stored(bucket, key)
    except CorruptSeries:
        return False
    if stored.tar is None or stored.document is None:
        return stored.tar is None and not stored.entries
    return await _holds(bucket, stored.tar, stored.document)


async def write_derived(bucket: Bucket, key: SeriesKey, tar: ObjectInfo, document: SeriesMetadata) -> None:
    """index.sqlite and metadata.json of a tar that is in place."""
    await write_index(bucket, key, tar, document)
    packed = await asyncio.to_thread(pack_present, key, document)
    await bucket.write(key.metadata, await asyncio.to_thread(lambda: packed.metadata))


async def write_index(bucket: Bucket, key: SeriesKey, tar: ObjectInfo, document: SeriesMetadata) -> None:
    """index.sqlite of a tar, from what metadata says of it."""
    layout = _layout_of(document.entries.values(), tar)
    index = await asyncio.to_thread(build_tar_index, layout, tar_mtime=tar.updated)
    await bucket.write(key.object_key(SeriesObject.INDEX), index)


async def remove_objects(bucket: Bucket, key: SeriesKey) -> None:
    """Take a series away: what readers find it by comes first. Its lock stays."""
    for kind in (
        SeriesObject.METADATA, SeriesObject.TAR, SeriesObject.INDEX,
        SeriesObject.THUMBNAIL_VIDEO, SeriesObject.THUMBNAIL_IMAGE,
    ):  # fmt: skip
        await bucket.delete(key.object_key(kind))


async def _settle_removal(bucket: Bucket, key: SeriesKey) -> Side:
    if await head_or_none(bucket, key.metadata) is not None:
        return Side.BEFORE
    await remove_objects(bucket, key)
    return Side.AFTER


async def _holds(bucket: Bucket, tar: ObjectInfo, document: SeriesMetadata) -> bool:
    """Whether the tar holds exactly what the entries say, by their checksums. Reads all of it, once."""
    position, checksum = 0, 0
    ordered = sorted(document.entries.values(), key=lambda entry: entry.start)
    if any(entry.problem is not None or entry.stop > tar.size for entry in ordered):
        return False
    if any(one.stop > other.start for one, other in itertools.pairwise(ordered)):
        return False
    if any(entry.crc32c is None for entry in ordered) and not await _has_members(bucket, tar, document):
        return False
    waiting = iter(ordered)
    entry = next(waiting, None)
    async for chunk in bucket.stream(tar.key, ByteRange(0, tar.size), version=tar.version):
        while entry is not None and entry.start < position + len(chunk):
            piece = chunk[max(entry.start - position, 0) : entry.stop - position]
            checksum = google_crc32c.extend(checksum, bytes(piece))
            if entry.stop > position + len(chunk):
                break
            if entry.crc32c is not None and checksum != entry.crc32c:
                return False
            entry, checksum = next(waiting, None), 0
        position += len(chunk)
    return entry is None


async def _has_members(bucket: Bucket, tar: ObjectInfo, document: SeriesMetadata) -> bool:
    """Whether the entries are members of the tar by its headers: all that can be asked of those without a checksum."""
    try:
        await survey_tar(bucket, StoredSeries(document.key, tar, None, document))
    except CorruptSeries:
        return False
    return True


def _layout_of(entries: Iterable[Entry], tar: ObjectInfo) -> TarLayout:
    members = tuple(
        TarMember(member_name(each.instance_uid_key), each.start - HEADER_BYTES, each.start, each.size, tar.updated)
        for each in entries
    )
    return TarLayout(members, tar.size, max((each.next_start for each in members), default=0))
