"""The lock of a series, `.gradient.lock`: who may write, and what they are about to write.

The object is created only if it is absent, so of many writers exactly one wins, ours and the published library's alike.
Its body is the library's own shape (gzip JSON, v2.0) and lists the instances that are there or to come, so that no
override of "empty and stale" locks applies to it; the top-level `codweb` object says who holds it. The version that the
creation answered is the proof of ownership: it is checked before every later write and before the release.

The lock is the journal too: before a tar is replaced, the body becomes the new metadata.json, with a `codweb_journal`
that tells the two tars apart. Whoever finds the lock of a dead writer can so finish its work, or leave the old state.
"""

import os
import platform
import subprocess
import sys
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from storage.bucket.base import Bucket, ObjectInfo
from storage.cod.metadata import decompressed
from storage.errors import CorruptSeries, ObjectChanged, ObjectNotFound, SeriesLocked, StorageUnavailable
from storage.keys import SeriesKey
from storage.ranges import ByteRange

MAX_BODY_BYTES = 256 << 20
"""How much of somebody's lock is read, to learn who holds it."""


MAX_FIELD_LENGTH = 200
"""Longest text of somebody's lock that is repeated in a message."""

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

_STARTED_FIELD = 21
"""Of /proc/<pid>/stat, counted from 0: clock ticks after boot. With the pid it names one process for ever."""


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The `codweb` object of a lock: enough to tell whether the writer can still be alive."""

    owner: str
    host: str
    boot_id: str
    """Of the start of the system; empty where it has no name."""
    pid: int
    since: str
    """UTC, ISO 8601."""
    started: str = ""
    """When the process began, in the system's own count; empty where it tells none."""
    pid_namespace: str = ""
    """Containers of one host have pids of their own: those of another are never judged."""

    @classmethod
    def this_process(cls, owner: str = "codweb ingest") -> "LockOwner":
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(owner, platform.node(), _boot_id(), pid, since, _started(pid), _pid_namespace())

    @property
    def is_this_process(self) -> bool:
        mine = LockOwner.this_process()
        return self._identity == mine._identity

    @property
    def is_on_this_host(self) -> bool:
        """Whether its process is one that can be asked for here: same host, start of the system, and container."""
        mine = LockOwner.this_process()
        return self._identity[:3] == mine._identity[:3]

    @property
    def is_dead(self) -> bool:
        """Whether the process that wrote this certainly no longer runs; what cannot be known is False."""
        mine = LockOwner.this_process()
        if self.host != mine.host:
            return False
        if not (self.boot_id and mine.boot_id):
            return False  # a name alone does not tell two hosts apart
        if self.boot_id != mine.boot_id:
            return True
        if self.pid_namespace != mine.pid_namespace:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # it runs under another user; or the number is none
            return False
        return _is_ended(self.pid) or (bool(self.started) and _started(self.pid) not in ("", self.started))

    @property
    def _identity(self) -> tuple[str, str, str, int, str]:
        return self.host, self.boot_id, self.pid_namespace, self.pid, self.started


@dataclass(frozen=True, slots=True)
class Journal:
    """The `codweb_journal` object of a lock: the rest of its body is what metadata.json is about to become.

    Written after all bytes of the new tar are handed over and before they take the place of the old ones, so the tar
    tells on which side of the change a writer died.
    """

    tar_before: str | None
    """Version of the tar that is replaced; None: there was none."""
    tar_size: int
    """Bytes of the new tar."""
    is_removal: bool = False
    """The series goes altogether: metadata.json first, then the tar."""


@dataclass(frozen=True, slots=True)
class LockText:
    """What a lock says, read back."""

    owner: LockOwner | None
    """None: a lock of the published library, or one that cannot be read."""
    journal: Journal | None
    document: bytes
    """The body as JSON text: the library's shape, with our objects at its end."""


class SeriesLock:
    """A lock that this process holds. Not shared between tasks."""

    def __init__(self, series: SeriesKey, version: str) -> None:
        self.series = series
        self.version = version

    @classmethod
    async def create(cls, bucket: Bucket, series: SeriesKey, body: bytes) -> "SeriesLock":
        """Take the lock by creating it with `body` (see `storage.cod.writing.PackedSeries`). Raises ObjectExists."""
        return cls(series, (await bucket.create(series.lock, body)).version)

    async def verify(self, bucket: Bucket) -> None:
        """Make sure that the lock is still the one that was acquired. Raises SeriesLocked."""
        try:
            info = await bucket.head(self.series.lock)
        except ObjectNotFound as error:
            raise SeriesLocked(f"{self.series}: our lock was removed while we were writing") from error
        if info.version != self.version:
            raise SeriesLocked(f"{self.series}: our lock was replaced while we were writing")

    async def rewrite(self, bucket: Bucket, body: bytes) -> None:
        """Put another body into the lock, only if it is still ours. Raises SeriesLocked."""
        try:
            self.version = (await bucket.replace(self.series.lock, body, version=self.version)).version
        except ObjectNotFound as error:
            raise SeriesLocked(f"{self.series}: our lock was removed while we were writing") from error
        except ObjectChanged as error:
            raise SeriesLocked(f"{self.series}: our lock was replaced while we were writing") from error

    async def release(self, bucket: Bucket) -> None:
        """Delete the lock, only if it is ours (not every store honours a conditional delete). Raises SeriesLocked."""
        await self.verify(bucket)
        await bucket.delete(self.series.lock)


@cache
def _boot_id() -> str:
    """What names one start of one system; empty where it has no name."""
    try:
        if sys.platform == "darwin":
            told = subprocess.run(_MAC_BOOT_ID, capture_output=True, text=True, timeout=5, check=False)
            return told.stdout.strip()
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


_MAC_BOOT_ID = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]


def _started(pid: int) -> str:
    fields = _stat(pid)
    return fields[_STARTED_FIELD - 2] if fields else ""


def _is_ended(pid: int) -> bool:
    """Whether nothing is left of a process but its number, which its parent has not asked for (a zombie)."""
    return _stat(pid)[:1] in (["Z"], ["X"])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third one, the state, on; none where the system tells none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()  # the name, in brackets, may hold blanks


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


async def describe_lock(bucket: Bucket, series: SeriesKey) -> str:
    """One sentence on who holds the lock of a series."""
    try:
        info, text = await read_lock(bucket, series)
    except ObjectNotFound:
        return f"{series}: another writer held the lock a moment ago; try again"
    return lock_sentence(series, text.owner, info.updated)


def lock_sentence(series: SeriesKey, owner: LockOwner | None, updated: float) -> str:
    """Who holds a lock and since when, and what to do if nobody does."""
    if owner is None:
        since = datetime.fromtimestamp(updated, UTC).isoformat(timespec="seconds")
        return f"{series} is locked by another writer since {since}; the lock does not say by whom"
    return (
        f"{series} is locked by {_printable(owner.owner)} (process {owner.pid} on host {_printable(owner.host)}) "
        f"since {_printable(owner.since)}; if that process no longer runs, repeat the command on that host, "
        f"or look at the series with `codweb unlock`"
    )


async def read_lock(bucket: Bucket, series: SeriesKey) -> tuple[ObjectInfo, LockText]:
    """The lock of a series as it is now. Raises ObjectNotFound: nobody holds it."""
    for _ in range(_READ_ATTEMPTS):
        info = await bucket.head(series.lock)
        wanted = ByteRange(0, min(info.size, MAX_BODY_BYTES))
        try:
            body = (await bucket.read(series.lock, wanted, version=info.version)).data
        except ObjectChanged:
            continue  # its holder wrote into it
        return info, parse_lock(bytes(body))
    raise StorageUnavailable(f"{series}: its lock changes all the time")


_READ_ATTEMPTS = 5


def parse_lock(body: bytes) -> LockText:
    """What a lock of this body says; a broken or foreign body says nothing, and the lock counts all the same."""
    nothing = LockText(None, None, b"")
    try:
        body = decompressed(body, "a lock")
    except CorruptSeries:
        return nothing
    try:
        found = msgspec.json.decode(body, type=_LockBody)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, too deep
        return nothing
    return LockText(found.codweb, found.codweb_journal if found.codweb is not None else None, body)


def handed_over(text: LockText, owner: LockOwner) -> bytes:
    """The body of the same lock with another holder; its journal stays until somebody has settled it."""
    members = msgspec.json.decode(text.document, type=dict[str, msgspec.Raw]) if text.document else {}
    members["codweb"] = msgspec.Raw(msgspec.json.encode(owner))
    return zlib.compress(msgspec.json.encode(members), wbits=31)


@dataclass(frozen=True, slots=True)
class _LockBody:
    """The parts of a lock that are ours."""

    codweb: LockOwner | None = None
    codweb_journal: Journal | None = None


def _printable(text: str) -> str:
    """Text of somebody's lock, made safe for one line of a terminal or log."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_FIELD_LENGTH])
