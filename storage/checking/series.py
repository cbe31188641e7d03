"""One series held against itself: metadata.json against the headers in the tar, its tables against the frames."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Set
from datetime import UTC, datetime
from functools import partial

import google_crc32c

from storage.attributes import parse_object
from storage.bucket import Bucket, ObjectInfo
from storage.checking.findings import Finding, Kind
from storage.cod.attributes import normalise
from storage.cod.lock import describe_lock
from storage.cod.metadata import Entry, SeriesMetadata, StoredTable, parse_series_metadata
from storage.cod.tar import member_name, read_members
from storage.dicom.locator import PixelKind, PixelLocator
from storage.errors import CorruptSeries, InstanceUnreadable
from storage.indexing.deep import fill_deep
from storage.indexing.draft import Draft, DraftInstance, SeriesVersions
from storage.indexing.quick import fill_quick
from storage.keys import SeriesKey, SeriesObject
from storage.levels import AVAILABLE_TRANSFER_SYNTAX_UID
from storage.ranges import ByteRange
from storage.spool import Spool

_TAGS_SHOWN = 8
ITEM_HEADER_BYTES = 8
FRAMES_LOOKED_AT = 256
Objects = Mapping[SeriesObject, ObjectInfo]


async def check_series(bucket: Bucket, key: SeriesKey, objects: Objects, *, all_bytes: bool) -> AsyncIterator[Finding]:
    """Everything that is wrong with one series.

    Args:
        objects: what the bucket holds of it.
        all_bytes: read every instance whole and compare its checksum, not only its header.

    Raises:
        StorageUnavailable: the bucket does not answer.
    """
    for finding in await _beside(bucket, key, objects):
        yield finding
    metadata_info, tar = objects.get(SeriesObject.METADATA), objects.get(SeriesObject.TAR)
    if metadata_info is None:
        if tar is not None:
            yield Finding(key, Kind.MISSING_METADATA, f"a tar of {tar.size} bytes")
        return
    try:
        read = await bucket.read(key.metadata, version=metadata_info.version)
        metadata = await asyncio.to_thread(parse_series_metadata, bytes(read.data), key)
    except CorruptSeries as error:
        yield Finding(key, Kind.UNREADABLE_METADATA, str(error))
        return
    if not metadata.entries:
        yield Finding(key, Kind.EMPTY, "metadata.json lists no instance")
        return
    if tar is None:
        yield Finding(key, Kind.MISSING_TAR, f"metadata.json lists {len(metadata.entries)} instances")
        return
    for finding in await _instances(bucket, metadata, SeriesVersions(metadata_info.version, tar)):
        yield finding
    for finding in await _members(bucket, metadata, tar):
        yield finding
    if all_bytes:
        async for finding in _checksums(bucket, metadata, tar):
            yield finding


async def _beside(bucket: Bucket, key: SeriesKey, objects: Objects) -> list[Finding]:
    """The lock, the error log, the missing index."""
    found = []
    lock = objects.get(SeriesObject.LOCK)
    if lock is not None:
        age = datetime.now(UTC) - datetime.fromtimestamp(lock.updated, UTC)
        found.append(Finding(key, Kind.LOCK, f"{await describe_lock(bucket, key)}; {age.days} days old"))
    if SeriesObject.ERROR_LOG in objects:
        found.append(Finding(key, Kind.ERROR_LOG, f"error.log of {objects[SeriesObject.ERROR_LOG].size} bytes"))
    if SeriesObject.TAR in objects and SeriesObject.INDEX not in objects:
        found.append(Finding(key, Kind.MISSING_INDEX, "index.sqlite is not there"))
    return found


async def _instances(bucket: Bucket, metadata: SeriesMetadata, versions: SeriesVersions) -> list[Finding]:
    """What the headers say against what metadata.json says, instance by instance."""
    key = metadata.key
    findings: list[Finding] = []
    with Spool() as spool:
        stored = Draft(key, spool, root="", uid_map=None)
        await asyncio.to_thread(partial(fill_quick, stored, metadata, versions, keep_incomplete=True))
        actual = Draft(key, spool, root="", uid_map=None)
        await fill_deep(actual, metadata, versions, bucket)
        quick = {instance.uid: instance for instance in stored.instances}
        for instance in actual.instances:
            entry = metadata.entries[instance.uid]
            if entry.names_other_place(key):
                findings.append(Finding(key, Kind.FOREIGN_URI, "its uri names another tar", instance.uid))
            if instance.problem is not None:
                kind = Kind.TORN if "another instance" in instance.problem else Kind.UNREADABLE_INSTANCE
                findings.append(Finding(key, kind, instance.problem, instance.uid))
                continue
            assert instance.locator is not None  # a deep build proves what has no problem
            frames = _FrameCheck(bucket, key, versions, instance, PixelLocator.from_bytes(instance.locator))
            findings.extend(await frames.findings(entry))
            lost = await asyncio.to_thread(_lost_tags, spool, entry, quick[instance.uid], instance)
            if lost:
                shown = ", ".join(f"{tag:08X}" for tag in lost[:_TAGS_SHOWN])
                more = f" and {len(lost) - _TAGS_SHOWN} more" if len(lost) > _TAGS_SHOWN else ""
                detail = f"attributes of the header that metadata.json lacks: {shown}{more}"
                findings.append(Finding(key, Kind.LOSSY_METADATA, detail, instance.uid))
    return findings


class _FrameCheck:
    """The located frames of one instance, and the offset table that is stored for them."""

    def __init__(
        self, bucket: Bucket, key: SeriesKey, versions: SeriesVersions, instance: DraftInstance, locator: PixelLocator
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._versions = versions
        self._instance = instance
        self._locator = locator

    async def findings(self, entry: Entry) -> list[Finding]:
        found = []
        spans = zip(self._locator.span_starts, self._locator.span_stops, strict=True)
        doubtful = [number for number, (start, stop) in enumerate(spans, 1) if start == stop]
        if self._locator.kind is PixelKind.DOUBTFUL:
            found.append(self._finding(Kind.DOUBTFUL_FRAMES, "no frame can be told apart from the others"))
        elif self._locator.is_cut:
            found.append(self._finding(Kind.DOUBTFUL_FRAMES, "the file ends within an element, before any pixel data"))
        elif doubtful:
            count = self._locator.frame_count
            detail = f"{len(doubtful)} of {count} frames cannot be told apart, the first is {doubtful[0]}"
            found.append(self._finding(Kind.DOUBTFUL_FRAMES, detail))
        if entry.states_table and (entry.stored_table is None or not await self._is_right(entry.stored_table)):
            found.append(self._finding(Kind.WRONG_TABLE, f"offset table of {self._locator.frame_count} frames"))
        return found

    def _finding(self, kind: Kind, detail: str) -> Finding:
        return Finding(self._key, kind, detail, self._instance.uid)

    async def _is_right(self, table: StoredTable) -> bool:
        """Whether each range of a stored table holds exactly the payload of its frame."""
        positions, lengths = table
        locator = self._locator
        if len(positions) != locator.frame_count or locator.kind in (PixelKind.DEFLATED, PixelKind.DOUBTFUL):
            return False
        if locator.kind is PixelKind.NATIVE:
            length, odd_bits = divmod(locator.frame_bits, 8)
            expected = [locator.value_start + length * index for index in range(len(positions))]
            return not odd_bits and list(positions) == expected and set(lengths) == {length}
        if list(positions) != [start + ITEM_HEADER_BYTES for start in locator.span_starts]:
            return False
        return await self._are_items(table)

    async def _are_items(self, table: StoredTable) -> bool:
        """Whether the item in front of a range is as long as the range: one fragment, and all of it.

        Of a table of many frames a sample is looked at, for each costs a request; the last frame is among it.
        """
        tar = self._versions.tar
        assert tar is not None  # the instance was located in it
        entries = list(zip(*table, strict=True))
        step = -(-len(entries) // FRAMES_LOOKED_AT)
        for position, length in entries[::-step]:
            start = self._instance.place.start + position - ITEM_HEADER_BYTES
            header = await self._bucket.read(tar.key, ByteRange(start, start + ITEM_HEADER_BYTES), version=tar.version)
            if int.from_bytes(header.data[4:8], "little") != length:
                return False
        return True


def _lost_tags(spool: Spool, entry: Entry, quick: DraftInstance, deep: DraftInstance) -> list[int]:
    """Attributes of the header that metadata.json lacks."""
    assert deep.json_place is not None  # as above: no problem
    actual = parse_object(b"".join(spool.get(deep.json_place))).keys()
    return sorted(actual - _stored_tags(spool, entry, quick) - {AVAILABLE_TRANSFER_SYNTAX_UID})


def _stored_tags(spool: Spool, entry: Entry, quick: DraftInstance) -> Set[int]:
    """The attributes that metadata.json has; those that are kept, if it cannot be read."""
    if quick.json_place is not None:
        return parse_object(b"".join(spool.get(quick.json_place))).keys()
    try:  # the quick road has left it out: too large, or too poor
        return parse_object(normalise(entry.attributes_json(), bulkdata_base="").json).keys()
    except InstanceUnreadable:
        return quick.kept.keys()


async def _members(bucket: Bucket, metadata: SeriesMetadata, tar: ObjectInfo) -> list[Finding]:
    """Members that only metadata.json knows, or only the tar."""
    key = metadata.key
    places = {entry.start: uid for uid, entry in metadata.entries.items() if entry.problem is None}
    try:
        walked = await _walk(bucket, tar)
    except (CorruptSeries, InstanceUnreadable) as error:
        return [Finding(key, Kind.HIDDEN_MEMBER, f"the tar cannot be walked: {error}")]
    findings = [
        Finding(key, Kind.ORPHAN_MEMBER, f"{size} bytes at {start}")
        for start, (name, size) in walked.items()
        if start not in places and name.endswith(".dcm")
    ]
    findings.extend(
        Finding(key, Kind.HIDDEN_MEMBER, f"at {start}, behind a gap in the tar", uid)
        for start, uid in places.items()
        if start not in walked and member_name(uid) not in {name for name, _ in walked.values()}
    )
    return findings


async def _walk(bucket: Bucket, tar: ObjectInfo) -> dict[int, tuple[str, int]]:
    """Start → name and size of the members that a tar reader finds, by reading the headers."""
    loop = asyncio.get_running_loop()

    def read(start: int, stop: int) -> bytes:
        wanted = bucket.read(tar.key, ByteRange(start, min(stop, tar.size)), version=tar.version)
        return bytes(asyncio.run_coroutine_threadsafe(wanted, loop).result().data)

    def walk() -> dict[int, tuple[str, int]]:
        return {member.start: (member.name, member.size) for member in read_members(read, tar.size)}

    return await asyncio.to_thread(walk)


async def _checksums(bucket: Bucket, metadata: SeriesMetadata, tar: ObjectInfo) -> AsyncIterator[Finding]:
    for uid, entry in metadata.entries.items():
        if entry.problem is not None or entry.crc32c is None or entry.stop > tar.size:
            continue
        checksum = google_crc32c.Checksum()
        async for chunk in bucket.stream(tar.key, ByteRange(entry.start, entry.stop), version=tar.version):
            checksum.update(bytes(chunk))
        if int.from_bytes(checksum.digest(), "big") != entry.crc32c:
            yield Finding(metadata.key, Kind.WRONG_CHECKSUM, f"{entry.size} bytes at {entry.start}", uid)
