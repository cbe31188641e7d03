"""One series while somebody works on it: the asyncio core of `open_series`.

Changes are collected and committed together, on leaving or when asked; an exception leaves the series as it was.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from io import UnsupportedOperation
from typing import Literal

import google_crc32c

from storage.bucket import Bucket, BucketOptions
from storage.checking.findings import Finding
from storage.errors import (
    CorruptSeries,
    InstanceNotFound,
    InstanceUnreadable,
    ObjectChanged,
    SeriesInMotion,
    SeriesNotFound,
)
from storage.ingest.describe import MIN_SERIES_UID_LENGTH
from storage.ingest.sources import Scratch
from storage.keys import SeriesKey
from storage.library.append_result import AppendResult
from storage.library.appending import Appender, Rules
from storage.library.custom_fields import CustomFields
from storage.library.dependencies import Dependency, DependencyReport, Fate, judge_dependency
from storage.library.describing import Naming, UidHash
from storage.library.instance import Instance, stored_dependencies
from storage.library.integrity import check_integrity
from storage.library.new_file import NewFile, Source
from storage.library.pending import Pending
from storage.ranges import ByteRange
from storage.together import together
from storage.writing import SeriesWriter, StoredSeries, look_at_lock, read_stored, writing

Mode = Literal["r", "w", "a"]

OWNER = "codweb library"
"""What a lock says of its holder."""

ATTEMPTS = 3
"""How often a reader that takes no lock looks again when a writer changes the series under it."""

DEPENDENCIES_AT_ONCE = 8


class SeriesSession:
    """A series that is open; made by `open_session`. Not shared between tasks."""

    def __init__(
        self,
        bucket: Bucket,
        naming: Naming,
        stored: StoredSeries,
        writer: SeriesWriter | None,
        *,
        is_rewrite: bool,
        is_deid: bool,
        options: BucketOptions,
        scratch: Scratch,
    ) -> None:
        self._bucket = bucket
        self._naming = naming
        self._writer = writer
        self._options = options
        self._scratch = scratch
        self._pending = Pending(stored, is_rewrite, is_deid)

    @property
    def key(self) -> SeriesKey:
        return self._naming.key

    @property
    def is_writable(self) -> bool:
        return self._writer is not None

    @property
    def custom(self) -> CustomFields:
        return CustomFields(lambda: self._pending, is_writable=self.is_writable)

    @property
    def instances(self) -> list[Instance]:
        """What is stored and stays, in the order of metadata.json, then what was appended."""
        pending = self._pending
        stored = [Instance.stored(entry) for uid, entry in pending.stored.entries.items() if pending.is_kept(uid)]
        return stored + [Instance.pending(each.new) for each in pending.additions.values()]

    def instance(self, uid: str) -> Instance:
        """Raises InstanceNotFound."""
        addition = self._pending.additions.get(uid)
        if addition is not None:
            return Instance.pending(addition.new)
        if not self._pending.is_kept(uid):
            raise self._absent(uid)
        return Instance.stored(self._pending.stored.entries[uid])

    @property
    def dependencies(self) -> list[str]:
        """Each once, in the order of the instances."""
        return list(dict.fromkeys(uri for instance in self.instances for uri in instance.dependencies))

    async def append(self, files: Iterable[NewFile | Source], rules: Rules) -> AppendResult:
        """Offer files to the series; nothing is written yet. Raises as `Appender.append` does."""
        self._check_writable()
        if self._pending.is_deid and self._naming.uid_hash is None:
            raise ValueError("to append to a store of hashed UIDs, open the series with its uid_hash_func")
        trial = self._pending.copy()
        appender = Appender(
            trial,
            self._naming,
            rules,
            scratch=self._scratch,
            options=self._options,
            read_held=partial(self._read, trial),
        )
        result = await appender.append(files)
        self._pending = trial
        return result

    def remove(self, uids: Iterable[str]) -> None:
        """Take instances away, all of them or none. Raises InstanceNotFound."""
        self._check_writable()
        if isinstance(uids, str):
            raise TypeError("remove takes a list of UIDs: [uid], not uid")
        trial = self._pending.copy()
        for uid in dict.fromkeys(uids):
            trial.remove(uid)
        self._pending = trial

    async def commit(self) -> None:
        """Store what was collected, in one change.

        Raises:
            ValueError: mode w, and nothing was appended that could take the place of what is stored.
            Others: as `SeriesWriter.commit` does.
        """
        writer = self._check_writable()
        pending = self._pending
        if pending.is_empty:
            return
        if pending.is_rewrite and not pending.additions:
            raise ValueError(
                f"{self.key} was opened with mode='w' and no instance was appended: nothing is written, what is stored "
                "stays. To take instances away, open it with mode='a' and remove them"
            )
        for change in pending.changes():
            await writer.commit(change)
            self._pending = Pending(writer.stored, is_deid=pending.is_deid)

    async def read(self, uid: str) -> bytes:
        """The P10 of an instance, its checksum proven.

        Raises:
            InstanceNotFound: the series has no such instance.
            InstanceUnreadable: the stored bytes are not those that were written; or an appended file changed.
            SeriesInMotion: the same, and a writer is at work.
            StorageUnavailable: the bucket does not answer.
        """
        return await self._read(self._pending, uid)

    async def check(self) -> tuple[Finding, ...]:
        """What is wrong with the stored series; nothing, if it is whole. Raises StorageUnavailable."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await check_integrity(self._bucket, self._pending.stored)
            except ObjectChanged:
                if self.is_writable:
                    raise
                await self._look_again()
        return await check_integrity(self._bucket, self._pending.stored)

    async def delete_dependencies(self, *, is_dry_run: bool) -> DependencyReport:
        """Delete the files that stored instances stand for, if the series is whole and they are proven to be in it.

        Raises:
            ValueError: changes wait for a commit.
            StorageUnavailable: the series cannot be checked.
        """
        if not is_dry_run:
            self._check_writable()
            if not self._pending.is_empty:
                raise ValueError("commit first: dependencies go only when what stands for them is stored")
        findings = await self.check()
        pending = self._pending
        named_by: dict[str, list[str]] = {}
        for uid, entry in pending.stored.entries.items():
            for uri in stored_dependencies(entry) if entry.problem is None else ():
                named_by.setdefault(uri, []).append(uid)
        if findings:
            reason = "the series is not whole"
            kept = tuple(Dependency(uri, tuple(uids), Fate.KEPT, reason) for uri, uids in named_by.items())
            return DependencyReport(is_dry_run, findings, kept)
        work = [
            partial(
                judge_dependency,
                uri,
                {uid: pending.fingerprints(uid) for uid in uids},
                options=self._options,
                is_dry_run=is_dry_run,
            )
            for uri, uids in named_by.items()
        ]
        judged: list[Dependency] = []
        for start in range(0, len(work), DEPENDENCIES_AT_ONCE):
            judged += await together([each() for each in work[start : start + DEPENDENCIES_AT_ONCE]])
        return DependencyReport(is_dry_run, (), tuple(judged))

    async def _read(self, pending: Pending, uid: str) -> bytes:
        addition = pending.additions.get(uid)
        if addition is not None:
            data = b"".join([bytes(chunk) async for chunk in addition.new.read()])
            if google_crc32c.value(data) != addition.new.crc32c:
                raise InstanceUnreadable(f"instance {uid}: the file that was appended has changed since")
            return data
        for _ in range(ATTEMPTS):
            if not pending.is_kept(uid):
                raise self._absent(uid)
            stored_data = await self._stored_bytes(pending.stored, uid)
            if stored_data is not None:
                return stored_data
            if self.is_writable or not await self._look_again():
                break
            pending = self._pending
        if not self.is_writable and await look_at_lock(self._bucket, self.key) is not None:
            raise SeriesInMotion(f"instance {uid} of {self.key}: a writer is at work, its bytes cannot be proven now")
        raise InstanceUnreadable(f"instance {uid} of {self.key}: its bytes are not those that metadata.json describes")

    async def _stored_bytes(self, stored: StoredSeries, uid: str) -> bytes | None:
        """The bytes that an entry speaks of; None if they are not those of its checksum, or the tar is another one."""
        entry, tar = stored.entries[uid], stored.tar
        if entry.problem is not None:
            raise InstanceUnreadable(entry.problem)
        if tar is None or entry.stop > tar.size:
            return None
        try:
            read = await self._bucket.read(tar.key, ByteRange(entry.start, entry.stop), version=tar.version)
        except ObjectChanged:
            return None
        data = bytes(read.data)
        return data if entry.crc32c in (None, google_crc32c.value(data)) else None

    async def _look_again(self) -> bool:
        """For a reader without a lock: see what is stored now; whether it is something else."""
        before = self._pending.stored
        stored = await read_stored(self._bucket, self.key)
        if stored.is_absent:
            raise SeriesNotFound(f"{self.key} was taken away while it was being read")
        self._pending.stored = stored
        return (before.metadata_version, before.tar_version) != (stored.metadata_version, stored.tar_version)

    def _check_writable(self) -> SeriesWriter:
        if self._writer is None:
            raise UnsupportedOperation("the series is open for reading: open it with mode='a' to change it")
        return self._writer

    def _absent(self, uid: str) -> InstanceNotFound:
        return InstanceNotFound(f"{self.key} holds no instance {uid}")


@asynccontextmanager
async def open_session(
    bucket: Bucket,
    key: SeriesKey,
    *,
    mode: Mode = "r",
    hashed_uids: bool = False,
    uid_hash_func: UidHash | None = None,
    wait_seconds: float = 0.0,
    options: BucketOptions,
) -> AsyncIterator[SeriesSession]:
    """Open a series; see `open_series`, which says the same for code without an event loop.

    Raises:
        ValueError: the arguments contradict each other, or what is stored.
        SeriesNotFound: mode r, and there is no such series.
        CorruptSeries, StorageUnavailable: what is stored cannot be read.
        SeriesLocked, SeriesUnfinished: as `storage.writing.writing` raises.
    """
    _check_arguments(key, mode, hashed_uids, uid_hash_func)
    naming = Naming(key, bucket.url, uid_hash_func)
    with Scratch() as scratch:
        if mode == "r":
            stored = await read_stored(bucket, key)
            if stored.is_absent:
                raise SeriesNotFound(f"{bucket.url} holds no {key}")
            _check_stored(stored, mode, hashed_uids)
            yield SeriesSession(
                bucket, naming, stored, None, is_rewrite=False, is_deid=hashed_uids, options=options, scratch=scratch
            )
            return
        async with writing(bucket, key, owner=OWNER, wait_seconds=wait_seconds) as writer:
            _check_stored(writer.stored, mode, hashed_uids)
            session = SeriesSession(
                bucket,
                naming,
                writer.stored,
                writer,
                is_rewrite=mode == "w",
                is_deid=hashed_uids,
                options=options,
                scratch=scratch,
            )
            yield session
            await session.commit()


def _check_arguments(key: SeriesKey, mode: str, hashed_uids: bool, uid_hash_func: UidHash | None) -> None:
    if mode not in ("r", "w", "a"):
        raise ValueError(f"mode {mode!r} is none: r reads, w writes anew, a appends")
    if uid_hash_func is not None and not hashed_uids:
        raise ValueError("uid_hash_func without hashed_uids=True: say that the keys of the store are hashed UIDs")
    if mode != "r" and min(len(key.study_uid), len(key.series_uid)) < MIN_SERIES_UID_LENGTH:
        raise ValueError(f"study or series UID shorter than the {MIN_SERIES_UID_LENGTH} characters COD asks for")


def _check_stored(stored: StoredSeries, mode: Mode, hashed_uids: bool) -> None:
    if stored.document is None:
        if stored.tar is not None and mode != "w":
            raise CorruptSeries(f"{stored.key} has a tar and no metadata.json; `codweb check` tells more")
        return
    if stored.document.is_deid != hashed_uids:
        kind = "hashed UIDs" if stored.document.is_deid else "the UIDs of its files"
        raise ValueError(f"{stored.key} is stored under {kind}: open it with hashed_uids={stored.document.is_deid}")
