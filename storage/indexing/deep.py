"""The deep road: P10 headers re-read from the tar by ranges. Everything in such an index is faithful, proven, located.

An instance whose bytes are not its own keeps what metadata.json says of it, and the reason why it cannot be served.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from storage.attributes import ui_value
from storage.bucket import Bucket, ObjectInfo
from storage.cod.metadata import Entry, SeriesMetadata
from storage.dicom.json import JsonOptions, json_chunks
from storage.dicom.p10 import open_p10
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.indexing.draft import Draft, DraftInstance, SeriesVersions, kept_of
from storage.indexing.header_reader import FIRST_READ_BYTES, InstanceSource, Located, read_located, tail_start
from storage.indexing.quick import hint_of, original_uid, place_problem, quick_instance
from storage.levels import AVAILABLE_TRANSFER_SYNTAX_UID, KEPT_TAGS
from storage.ranges import ByteRange, coalesce

logger = logging.getLogger(__name__)

GAP_BYTES = 256 * 1024
SPAN_BYTES = 8 << 20
"""Headers are fetched in runs: small instances lie closer together than a request is worth."""
READS_AHEAD = 4
_LARGEST_WHOLE_JSON = 8 << 20


@dataclass(frozen=True, slots=True)
class _Candidate:
    uid: str
    entry: Entry

    @property
    def place(self) -> ByteRange:
        return ByteRange(self.entry.start, self.entry.stop)

    @property
    def first_read(self) -> ByteRange:
        return ByteRange(self.entry.start, min(self.entry.stop, self.entry.start + FIRST_READ_BYTES))


async def fill_deep(draft: Draft, metadata: SeriesMetadata, versions: SeriesVersions, bucket: Bucket) -> None:
    """Add every entry to the draft, from its own header.

    Raises:
        ObjectChanged: the tar was replaced meanwhile; begin again.
        StorageUnavailable: the bucket does not answer.
    """
    candidates: list[_Candidate] = []
    for uid, entry in metadata.entries.items():
        problem = place_problem(entry, versions)
        if problem is None:
            candidates.append(_Candidate(uid, entry))
        else:
            draft.add(quick_instance(draft, uid, entry, problem))
    if not candidates:
        return
    assert versions.tar is not None  # otherwise every entry has a problem
    reader = _DeepReader(draft, bucket, versions.tar)
    async for candidate, window in _first_windows(bucket, versions.tar, candidates):
        draft.add(await reader.instance(candidate, window))


async def _first_windows(
    bucket: Bucket, tar: ObjectInfo, candidates: Sequence[_Candidate]
) -> AsyncIterator[tuple[_Candidate, Window]]:
    """Each candidate with the beginning of its bytes, a few reads ahead."""
    plan = coalesce([each.first_read for each in candidates], gap_bytes=GAP_BYTES, span_bytes=SPAN_BYTES)
    waiting = deque(plan)
    reading: deque[asyncio.Task[tuple[int, memoryview]]] = deque()

    async def read(range: ByteRange) -> tuple[int, memoryview]:
        return range.start, memoryview((await bucket.read(tar.key, range, version=tar.version)).data)

    try:
        for planned in plan:
            while waiting and len(reading) < READS_AHEAD:
                reading.append(asyncio.create_task(read(waiting.popleft().range)))
            start, data = await reading.popleft()
            for member in planned.members:
                candidate = candidates[member]
                window = Window(candidate.place.length)
                first = candidate.first_read.shifted(-start)
                window.add(0, data[first.start : first.stop])
                yield candidate, window
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


class _DeepReader:
    """Turns one candidate after the other into an instance of the draft."""

    def __init__(self, draft: Draft, bucket: Bucket, tar: ObjectInfo) -> None:
        self._draft = draft
        self._bucket = bucket
        self._tar = tar

    async def instance(self, candidate: _Candidate, window: Window) -> DraftInstance:
        uid, entry = candidate.uid, candidate.entry
        source = InstanceSource(self._bucket, self._tar.key, self._tar.version, candidate.place, window)
        try:
            located = await read_located(source, original_uid(uid, entry), entry.stored_table)
            json_place, kept = await self._all_attributes(uid, source, located)
        except InstanceUnreadable as error:
            return quick_instance(self._draft, uid, entry, str(error))
        return DraftInstance(
            uid=uid,
            place=candidate.place,
            crc32c=entry.crc32c,
            transfer_syntax_uid=located.header.transfer_syntax_uid,
            kept={**kept, 0x00080018: ui_value(uid)},
            json_place=json_place,
            locator=located.locator.to_bytes(),
            hint=hint_of(uid, entry),
        )

    async def _all_attributes(
        self, uid: str, source: InstanceSource, located: Located
    ) -> tuple[tuple[int, int], dict[int, bytes]]:
        """As `_attributes`; what stands behind encapsulated pixels and cannot be read does not spoil the rest."""
        tail = await tail_start(source, located.locator, located.p10.stop)
        if tail is not None:
            try:
                return await source.parse(lambda window: self._attributes(uid, window, located, tail))
            except InstanceUnreadable as error:
                logger.warning("%s: behind the pixel data of instance %s: %s", self._draft.key, uid, error)
        return await source.parse(lambda window: self._attributes(uid, window, located, None))

    def _attributes(
        self, uid: str, window: Window, located: Located, tail: int | None
    ) -> tuple[tuple[int, int], dict[int, bytes]]:
        """Spool the attributes of an instance; returns where they lie, and those that derived rows keep."""
        draft, p10 = self._draft, open_p10(window)
        syntax = ui_value(located.header.transfer_syntax_uid)
        options = JsonOptions(bulkdata_base=draft.bulkdata_base(uid), extra={AVAILABLE_TRANSFER_SYNTAX_UID: syntax})
        place = draft.spool.put(json_chunks(p10, options, tail_start=tail))
        if place[1] > _LARGEST_WHOLE_JSON and draft.uid_map is None:
            return place, kept_of(b"".join(json_chunks(p10, replace(options, only=KEPT_TAGS))))
        text = b"".join(draft.spool.get(place))
        disclosed, kept = draft.disclosed(text, kept_of(text))
        return (place if disclosed is text else draft.spool.put((disclosed,))), kept
