"""Where the members of a stored tar lie, so that they can be copied whole.

Metadata tells all of it when its entries tile the tar, as those of every sound series do; two small reads then make
sure that the tar is the one it speaks of. A tar with gaps, or with members that metadata does not name, is walked header
by header: nothing that lies in it is lost, and zeros between members do not come along (every tar reader stops there).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from storage.bucket.base import Bucket, ObjectInfo
from storage.cod.entry import Entry
from storage.cod.tar import BLOCK_BYTES, HEADER_BYTES, TarMember, member_name, padding_bytes, read_members
from storage.errors import CorruptSeries
from storage.ranges import ByteRange
from storage.writing.stored import StoredSeries

MOST_LEAD_BYTES = 64 << 10
"""A pax global header in front of the first member, as a rewrite may put it there, is at most so long."""

MOST_TAIL_BYTES = 1 << 20
"""Zeros behind the last member that are looked at in one read; GNU tar pads to at most 512 KiB in practice."""

WINDOW_BYTES = 16 << 10
"""What one read of a walk brings: all headers of a member, and those of small neighbours."""

_NO_LEAD = ByteRange(0, 0)


@dataclass(frozen=True, slots=True)
class TarSurvey:
    """The members of a tar."""

    extents: tuple[ByteRange, ...]
    """Runs of whole members, ascending, with nothing but members in them."""
    whole: Mapping[str, ByteRange]
    """By instance UID: its member with its headers and padding."""
    lead: ByteRange = _NO_LEAD
    """What an extent begins with that is no member: a global header, as `storage.writing.tar_plan` puts it there."""


async def survey_tar(bucket: Bucket, stored: StoredSeries) -> TarSurvey:
    """Find the members of the stored tar.

    Raises:
        CorruptSeries: metadata.json and the tar do not describe one series; nothing may be built on it.
        ObjectChanged, StorageUnavailable: as the bucket does.
    """
    entries = sorted(stored.entries.values(), key=lambda entry: entry.start)
    if stored.tar is None:
        if entries:
            raise CorruptSeries(f"{stored.key}: metadata.json lists {len(entries)} instances, and there is no tar")
        return TarSurvey((), {})
    for entry in entries:
        if entry.problem is not None:
            raise CorruptSeries(f"{stored.key}: {entry.problem}")
    tiled = _tiles(entries)
    if tiled and await _is_that_tar(bucket, stored.tar, entries):
        whole = {entry.instance_uid_key: _member_range(entry) for entry in entries}
        lead = ByteRange(0, whole[entries[0].instance_uid_key].start)
        return TarSurvey((ByteRange(0, whole[entries[-1].instance_uid_key].stop),), whole, lead)
    return await _walk(bucket, stored, stored.tar, entries)


def _member_range(entry: Entry) -> ByteRange:
    return ByteRange(entry.start - HEADER_BYTES, entry.stop + padding_bytes(entry.size))


def _tiles(entries: Sequence[Entry]) -> bool:
    """Whether each member, as we and the published library write them, ends where the next begins."""
    if not entries or not 0 <= entries[0].start - HEADER_BYTES <= MOST_LEAD_BYTES:
        return False
    position = entries[0].start - HEADER_BYTES
    for entry in entries:
        if entry.start - HEADER_BYTES != position:
            return False
        position = entry.stop + padding_bytes(entry.size)
    return True


async def _is_that_tar(bucket: Bucket, tar: ObjectInfo, entries: Sequence[Entry]) -> bool:
    """Whether the last member is where it is said to be and nothing but zeros follows it, and what precedes the first."""
    last, first = entries[-1], entries[0]
    end = _member_range(last).stop
    if not end <= tar.size <= end + MOST_TAIL_BYTES:
        return False
    head = await _read(bucket, tar, ByteRange(last.start - HEADER_BYTES, last.start))
    if member_name(last.instance_uid_key).encode("ascii") not in head:
        return False
    lead = first.start - HEADER_BYTES
    if lead:
        block = await _read(bucket, tar, ByteRange(0, lead))
        stated = b"%011o\0" % (lead - BLOCK_BYTES)
        if lead % BLOCK_BYTES or block[156:157] != b"g" or block[124:136] != stated:
            return False
    return not any(await _read(bucket, tar, ByteRange(end, tar.size)))


async def _read(bucket: Bucket, tar: ObjectInfo, wanted: ByteRange) -> bytes:
    return bytes((await bucket.read(tar.key, wanted, version=tar.version)).data)


async def _walk(bucket: Bucket, stored: StoredSeries, tar: ObjectInfo, entries: Sequence[Entry]) -> TarSurvey:
    loop = asyncio.get_running_loop()

    def fetch(start: int, stop: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(_read(bucket, tar, ByteRange(start, stop)), loop).result()

    members = await asyncio.to_thread(_members, _Windowed(fetch, tar.size).read, tar.size)
    by_place = {(member.start, member.size): member for member in members}
    whole: dict[str, ByteRange] = {}
    for entry in entries:
        member = by_place.get((entry.start, entry.size))
        if member is None or member.name != member_name(entry.instance_uid_key):
            raise CorruptSeries(
                f"{stored.key}: instance {entry.instance_uid_key} is no member of the tar where metadata.json has it; "
                "`codweb check` tells more"
            )
        whole[entry.instance_uid_key] = ByteRange(member.header_start, member.next_start)
    extents: list[ByteRange] = []
    for member in members:
        start, stop = member.header_start, member.next_start
        if stop > tar.size:
            raise CorruptSeries(f"{stored.key}: the tar ends within its last member")
        if extents and extents[-1].stop == start:
            extents[-1] = ByteRange(extents[-1].start, stop)
        else:
            extents.append(ByteRange(start, stop))
    return TarSurvey(tuple(extents), whole)


class _Windowed:
    """Small reads out of larger ones."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._start = 0
        self._held = b""

    def read(self, start: int, stop: int) -> bytes:
        if not self._start <= start <= stop <= self._start + len(self._held):
            self._start = start
            self._held = self._fetch(start, min(max(stop, start + WINDOW_BYTES), self._size))
        return self._held[start - self._start : stop - self._start]


def _members(read: Callable[[int, int], bytes], size: int) -> list[TarMember]:
    """All members, those behind zeros too, whether metadata names them or not.

    Raises:
        CorruptSeries: something lies there that is neither zeros nor members.
    """
    members: list[TarMember] = []
    origin = 0
    while True:

        def shifted(start: int, stop: int, by: int = origin) -> bytes:
            return read(start + by, stop + by)

        for member in read_members(shifted, size - origin):
            members.append(replace(member, header_start=member.header_start + origin, start=member.start + origin))
        reached = members[-1].next_start if members else origin
        found = _behind_zeros(read, reached, size)
        if found is None:
            return members
        if found == origin:  # it was looked at, and there is no member
            raise CorruptSeries(f"tar member at {origin}: there is none")
        origin = found


def _behind_zeros(read: Callable[[int, int], bytes], position: int, size: int) -> int | None:
    """The next block that is not all zeros; None: there is none."""
    while position < size:
        data = read(position, min(position + MOST_TAIL_BYTES, size))
        rest = data.lstrip(b"\0")
        if rest:
            return position + (len(data) - len(rest)) // BLOCK_BYTES * BLOCK_BYTES
        position += len(data)
    return None
