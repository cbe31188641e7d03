"""Mending a stored series under its lock: what its entries say of its bytes, and gaps in its tar. No P10 is ever changed.

An entry is corrected only where the bytes in the tar are those that it names, by their checksum: what is torn or damaged
is left as it is, for whoever still has the source.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from storage.bucket import Bucket, ObjectInfo
from storage.checking.findings import Finding, Kind
from storage.cod.entry import Entry, OriginalUids
from storage.errors import ObjectChanged, SeriesInMotion
from storage.ingest.describe import Description, describe
from storage.ingest.report import RefusedFile
from storage.ingest.sources import OpenSource
from storage.keys import SeriesKey
from storage.ranges import ByteRange
from storage.writing import Change, Correction, SeriesWriter, writing

OWNER = "codweb check --repair-store"

ENTRY_KINDS = frozenset({Kind.WRONG_TABLE, Kind.LOSSY_METADATA})
"""Wrong in metadata.json alone."""
REPAIRABLE = ENTRY_KINDS | {Kind.HIDDEN_MEMBER, Kind.MISSING_INDEX}

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Repair:
    """What was mended of one series."""

    series: SeriesKey
    corrected: tuple[str, ...]
    """Instances whose entries were rewritten."""
    is_tar_rewritten: bool
    is_index_rebuilt: bool
    left: tuple[str, ...]
    """What could not be mended, a sentence each."""


async def repair_series(
    bucket: Bucket, key: SeriesKey, findings: Sequence[Finding], *, wait_seconds: float = 0.0
) -> Repair:
    """Mend what can be mended of the findings of one series, in one change.

    Raises:
        SeriesLocked: a writer is at it.
        CorruptSeries: its metadata.json and its tar do not describe one series; nothing was touched.
        StorageUnavailable: the bucket does not answer.
    """
    kinds = {finding.kind for finding in findings}
    wanted = sorted({found.instance_uid for found in findings if found.kind in ENTRY_KINDS and found.instance_uid})
    async with writing(bucket, key, owner=OWNER, wait_seconds=wait_seconds) as series:
        if series.stored.document is not None and series.stored.document.is_deid:
            return Repair(
                key, (), False, False, (f"{key}: de-identified series are served as they are, and never rewritten",)
            )
        corrected: dict[str, Correction] = {}
        left: list[str] = []
        for uid in wanted:
            found = await _correction(bucket, series, uid)
            if isinstance(found, Correction):
                corrected[uid] = found
            else:
                left.append(found)
        change = Change(
            corrected=corrected,
            closes_gaps=Kind.HIDDEN_MEMBER in kinds,
            rebuilds_index=Kind.MISSING_INDEX in kinds,
        )
        if corrected or change.closes_gaps or change.rebuilds_index:
            await series.commit(change)
        return Repair(key, tuple(corrected), change.closes_gaps, change.rebuilds_index, tuple(left))


async def _correction(bucket: Bucket, series: SeriesWriter, uid: str) -> Correction | str:
    """What the bytes of an instance say; or why its entry stays."""
    stored = series.stored
    entry = stored.entries.get(uid)
    if entry is None or entry.problem is not None or stored.tar is None:
        return f"instance {uid}: there is nothing to mend it by"
    place = _StoredPlace(bucket, stored.tar, entry, asyncio.get_running_loop())
    found = await asyncio.to_thread(describe, place, bucket.url)
    if isinstance(found, RefusedFile):
        return f"instance {uid}: {found.reason}"
    if not _is_of(entry, found):
        return f"instance {uid}: the bytes in the tar are not those of its entry"
    uids = OriginalUids(found.series.study_uid, found.series.series_uid, found.instance_uid)
    return Correction(found.metadata, found.offset_table, found.has_pixeldata, uids)


def _is_of(entry: Entry, found: Description) -> bool:
    return entry.crc32c == found.crc32c and entry.instance_uid_key == found.instance_uid


class _StoredPlace:
    """An instance inside the tar of its series, as a source: read by ranges of one version of the tar, from a thread."""

    def __init__(self, bucket: Bucket, tar: ObjectInfo, entry: Entry, loop: asyncio.AbstractEventLoop) -> None:
        self._bucket = bucket
        self._tar = tar
        self._entry = entry
        self._loop = loop
        self.name = self.shown = f"instance {entry.instance_uid_key}"
        self.size = entry.size
        self.stamp = tar.version

    def open(self) -> AbstractContextManager[OpenSource]:
        return nullcontext(OpenSource(self, size=self.size, mtime=self._tar.updated))

    def read(self, start: int, stop: int) -> bytes:
        wanted = ByteRange(start, stop).shifted(self._entry.start)
        reading = self._bucket.read(self._tar.key, wanted, version=self._tar.version)
        try:
            return bytes(asyncio.run_coroutine_threadsafe(reading, self._loop).result().data)
        except ObjectChanged as error:
            raise SeriesInMotion(f"{self._tar.key}: replaced while its lock is ours") from error

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self.size, _CHUNK_BYTES):
            yield self.read(start, min(start + _CHUNK_BYTES, self.size))

    def check(self) -> None:
        """Every read names the version of the tar, and fails where it is another."""
