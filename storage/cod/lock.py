"""The lock of a series, `.gradient.lock`: who may write, and what they are about to write.

The object is created only if it is absent, so of many writers exactly one wins, ours and the published library's alike.
Its body is the library's own shape (gzip JSON, v2.0) and already lists the instances to come, so that no override of
"empty and stale" locks applies to it; the top-level `codweb` object says who holds it. The version that the creation
answered is the proof of ownership: it is checked before every later write and before the release.
"""

import os
import platform
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from storage.bucket.base import Bucket
from storage.errors import ObjectChanged, ObjectExists, ObjectNotFound, SeriesLocked
from storage.keys import SeriesKey
from storage.ranges import ByteRange

MAX_BODY_BYTES = 64 << 20
"""How much of somebody's lock is read, and how much of it is inflated, to learn who holds it."""

MAX_FIELD_LENGTH = 200
"""Longest text of somebody's lock that is repeated in a message."""

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The `codweb` object of a lock: enough to tell whether the writer can still be alive."""

    owner: str
    host: str
    boot_id: str
    """Empty where the system has none (macOS)."""
    pid: int
    since: str
    """UTC, ISO 8601."""

    @classmethod
    def this_process(cls, owner: str = "codweb ingest") -> "LockOwner":
        try:
            boot_id = BOOT_ID_FILE.read_text(encoding="ascii").strip()
        except OSError:
            boot_id = ""
        return cls(owner, platform.node(), boot_id, os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class SeriesLock:
    """A lock that this process holds."""

    series: SeriesKey
    version: str

    async def verify(self, bucket: Bucket) -> None:
        """Make sure that the lock is still the one that was acquired. Raises SeriesLocked."""
        try:
            info = await bucket.head(self.series.lock)
        except ObjectNotFound as error:
            raise SeriesLocked(f"{self.series}: our lock was removed while we were writing") from error
        if info.version != self.version:
            raise SeriesLocked(f"{self.series}: our lock was replaced while we were writing")

    async def release(self, bucket: Bucket) -> None:
        """Delete the lock, only if it is ours (not every store honours a conditional delete). Raises SeriesLocked."""
        await self.verify(bucket)
        await bucket.delete(self.series.lock)


async def acquire_lock(bucket: Bucket, series: SeriesKey, body: bytes) -> SeriesLock:
    """Take the lock of a series by creating it with `body` (see `storage.cod.writing.encode_series`).

    Raises:
        SeriesLocked: somebody holds it; the message names who and since when, if the lock tells.
    """
    try:
        info = await bucket.create(series.lock, body)
    except ObjectExists as error:
        raise SeriesLocked(await describe_lock(bucket, series)) from error
    return SeriesLock(series, info.version)


async def describe_lock(bucket: Bucket, series: SeriesKey) -> str:
    """One sentence on who holds the lock of a series."""
    try:
        info = await bucket.head(series.lock)
        wanted = ByteRange(0, min(info.size, MAX_BODY_BYTES))
        body = (await bucket.read(series.lock, wanted, version=info.version)).data
    except (ObjectNotFound, ObjectChanged):
        return f"{series}: another writer held the lock a moment ago; try again"
    owner = read_owner(body)
    if owner is None:
        since = datetime.fromtimestamp(info.updated, UTC).isoformat(timespec="seconds")
        return f"{series} is locked by another writer since {since}; the lock does not say by whom"
    return (
        f"{series} is locked by {_printable(owner.owner)} (process {owner.pid} on host {_printable(owner.host)}) "
        f"since {_printable(owner.since)}; if that process no longer runs, it was interrupted: "
        f"check the series, then remove the object {series.lock}"
    )


def read_owner(body: bytes | memoryview) -> LockOwner | None:
    """Who holds a lock of this body; None if it does not say, as locks of the published library do not."""
    if bytes(body[:2]) == b"\x1f\x8b":
        try:
            body = zlib.decompressobj(wbits=31).decompress(body, MAX_BODY_BYTES)
        except zlib.error:
            return None
    try:
        return msgspec.json.decode(body, type=_LockBody).codweb
    except (
        ValueError,
        RecursionError,
    ):  # not JSON, not UTF-8, too deep: a broken or foreign body: the lock counts all the same
        return None


@dataclass(frozen=True, slots=True)
class _LockBody:
    """The part of a lock that says who holds it."""

    codweb: LockOwner | None = None


def _printable(text: str) -> str:
    """Text of somebody's lock, made safe for one line of a terminal or log."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_FIELD_LENGTH])
