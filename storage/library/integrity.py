"""Whether a stored series is whole: the tar, as a tar reader lists it, is what metadata.json says, and so is each checksum.

One pass over the tar, one request. What metadata.json says of the headers is the business of `codweb check`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import google_crc32c

from storage.bucket import Bucket, ObjectInfo
from storage.checking.findings import Finding, Kind
from storage.cod.entry import Entry
from storage.cod.tar import TarMember, member_name, read_members
from storage.errors import CorruptSeries
from storage.ranges import ByteRange
from storage.together import together
from storage.writing import StoredSeries

CHUNK_BYTES = 4 << 20


async def check_integrity(bucket: Bucket, stored: StoredSeries) -> tuple[Finding, ...]:
    """Everything that is not as metadata.json says; empty for a whole series.

    Raises:
        ObjectChanged: another tar has taken the place of the one that was to be checked.
        StorageUnavailable: the bucket does not answer.
    """
    key, entries = stored.key, stored.entries
    if stored.tar is None:
        missing = Finding(key, Kind.MISSING_TAR, f"metadata.json lists {len(entries)} instances")
        return (missing,) if entries else ()
    findings: list[Finding] = []
    usable: list[Entry] = []
    for uid, entry in entries.items():
        if entry.problem is not None:
            findings.append(Finding(key, Kind.UNREADABLE_INSTANCE, entry.problem, uid))
        elif entry.stop > stored.tar.size:
            detail = f"[{entry.start}, {entry.stop}) of a tar of {stored.tar.size} bytes"
            findings.append(Finding(key, Kind.UNREADABLE_INSTANCE, detail, uid))
        else:
            usable.append(entry)
    reading = await _read_once(bucket, stored.tar, usable)
    if reading.problem is not None:
        findings.append(Finding(key, Kind.HIDDEN_MEMBER, f"the tar cannot be walked: {reading.problem}"))
    findings += _listed(stored, usable, reading.members)
    for entry in usable:
        found = reading.checksums.get(entry.instance_uid_key)
        if entry.crc32c is None:
            detail = "metadata.json states no checksum"
        elif found is None:
            detail = "its bytes overlap those of another instance"
        elif found != entry.crc32c:
            detail = f"{entry.size} bytes at {entry.start}"
        else:
            continue
        findings.append(Finding(key, Kind.WRONG_CHECKSUM, detail, entry.instance_uid_key))
    return tuple(findings)


def _listed(stored: StoredSeries, usable: Sequence[Entry], members: Sequence[TarMember]) -> Iterator[Finding]:
    """The tar's own listing against metadata.json."""
    by_start = {member.start: member for member in members}
    for entry in usable:
        uid = entry.instance_uid_key
        member = by_start.pop(entry.start, None)
        if member is None:
            yield Finding(stored.key, Kind.HIDDEN_MEMBER, f"no tar reader finds a member at {entry.start}", uid)
        elif (member.name, member.size) != (member_name(uid), entry.size):
            detail = f"the tar has {member.size} bytes of another name or size at {entry.start}"
            yield Finding(stored.key, Kind.TORN, detail, uid)
    for member in by_start.values():
        yield Finding(stored.key, Kind.ORPHAN_MEMBER, f"{member.size} bytes at {member.start}")


async def _read_once(bucket: Bucket, tar: ObjectInfo, entries: Sequence[Entry]) -> "_Reading":
    """The stream is read by one task, as buckets ask for; what it brings is looked at in a thread."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=2)
    loop = asyncio.get_running_loop()

    async def pump() -> None:
        try:
            async for chunk in _stream(bucket, tar):
                await queue.put(bytes(chunk))
            await queue.put(b"")
        except BaseException:
            while not queue.empty():  # who reads may have ended, and nobody would make room
                queue.get_nowait()
            queue.put_nowait(b"")
            raise

    def chunks() -> Iterator[bytes]:
        while chunk := asyncio.run_coroutine_threadsafe(queue.get(), loop).result():
            yield chunk

    reading = _Reading(chunks(), entries)
    await together([pump(), asyncio.to_thread(reading.read_all, tar.size)])
    return reading


def _stream(bucket: Bucket, tar: ObjectInfo) -> AsyncIterator[memoryview]:
    return bucket.stream(tar.key, ByteRange(0, tar.size), version=tar.version, chunk_bytes=CHUNK_BYTES)


class _Reading:
    """One pass over a tar: its members as they are listed, and the checksum of each entry's bytes."""

    def __init__(self, chunks: Iterator[bytes], entries: Sequence[Entry]) -> None:
        self.members: list[TarMember] = []
        self.checksums: dict[str, int] = {}
        self.problem: str | None = None
        """Why the listing ends where it does, if it does not end as a tar should."""
        self._chunks = chunks
        self._held = memoryview(b"")
        self._position = 0
        self._waiting: list[Entry] = []
        """Whose bytes have not all passed, the next one last; those that overlap others are left out."""
        for entry in sorted(entries, key=lambda each: each.start):
            if not self._waiting or self._waiting[-1].stop <= entry.start:
                self._waiting.append(entry)
        self._waiting.reverse()
        self._checksum = 0

    def read_all(self, size: int) -> None:
        """List the members, then go on to the end: instances may lie where no tar reader comes."""
        try:
            for member in read_members(self._read, size):
                self.members.append(member)
        except CorruptSeries as error:
            self.problem = str(error)
        while self._held or self._next():
            self._pass(len(self._held))

    def _read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), which lie behind all that was read before."""
        while self._position < start and (self._held or self._next()):
            self._pass(min(len(self._held), start - self._position))
        parts: list[bytes] = []
        while self._position < stop and (self._held or self._next()):
            parts.append(bytes(self._pass(min(len(self._held), stop - self._position))))
        if self._position != stop:
            raise CorruptSeries(f"the tar ends at {self._position}")
        return b"".join(parts)

    def _next(self) -> bool:
        self._held = memoryview(next(self._chunks, b""))
        return bool(self._held)

    def _pass(self, count: int) -> memoryview:
        """Let bytes go by; those of an instance are counted into its checksum."""
        data, self._held = self._held[:count], self._held[count:]
        start, stop = self._position, self._position + count
        self._position = stop
        while self._waiting and self._waiting[-1].start < stop:
            entry = self._waiting[-1]
            part = data[max(entry.start - start, 0) : entry.stop - start]
            self._checksum = google_crc32c.extend(self._checksum, bytes(part))
            if entry.stop > stop:
                break
            self.checksums[entry.instance_uid_key] = self._checksum
            self._checksum = 0
            self._waiting.pop()
        return data
