"""What to ingest: every file under the sources, described once and gathered by series, with everything refused named.

Files that an earlier run has read, and that are in the datastore today, are not opened. Files that are not DICOM are
normal in a folder of DICOM files: they are listed, never fatal.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import aclosing
from dataclasses import dataclass

from storage.bucket.base import Bucket
from storage.errors import StorageError
from storage.ingest.candidate import Candidates
from storage.ingest.described import Described
from storage.ingest.describing import Unusable
from storage.ingest.ledger import Ledger, Row, Seen, SeenRefused
from storage.ingest.pool import BATCH_BYTES, BATCH_FILES, MIN_POOL_FILES, Pool
from storage.ingest.report import InstanceNote, Progress, RefusedFile, Report
from storage.ingest.sources import Place
from storage.ingest.stored import Known, known_instances
from storage.keys import SeriesKey
from storage.together import together
from storage.writing import read_stored

AHEAD_BATCHES = 200
"""How far finding files may be ahead of reading them, in `LOOK_UP_FILES`: a total is known early, memory has an end."""

LOOK_UP_FILES = 256
"""Files that are looked up in the ledger by one query."""

KNOWN_INSTANCES = 500_000
"""Stored instances that are kept in memory while rows of the ledger are held against them; about 150 MB."""

READS_AT_ONCE = 8
"""Of metadata.json, while rows of the ledger are held against them."""


Answer = asyncio.Future[list[Described | Unusable]]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file to be described, and its number among all."""

    number: int
    place: Place


class Planner:
    """Fills `candidates` with what may have to be stored, and the report with everything else."""

    def __init__(
        self,
        bucket: Bucket,
        candidates: Candidates,
        report: Report,
        progress: Progress,
        *,
        ledger: Ledger | None = None,
        jobs: int | None = None,
    ) -> None:
        self.same: dict[SeriesKey, int] = {}
        """Files that are stored already, counted by series, as far as that was known without opening them."""
        self.conflict: dict[SeriesKey, int] = {}
        self._bucket = bucket
        self._candidates = candidates
        self._report = report
        self._progress = progress
        self._ledger = ledger
        self._jobs = jobs
        self._known: dict[SeriesKey, Mapping[str, Known]] = {}

    async def read(self, places: AsyncIterator[Place]) -> None:
        """Read all there is to read.

        Raises:
            StorageError: a process that read files died; what a single file does wrong is in the report.
        """
        self._progress.begin("Reading", files=0, size=0)
        ahead: asyncio.Queue[list[Place] | None] = asyncio.Queue(AHEAD_BATCHES)
        finding = asyncio.create_task(self._find(places, ahead))
        try:
            async with aclosing(self._unread(ahead)) as unread:
                await self._describe_all(unread)
            await finding
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
            if self._ledger is not None:
                self._ledger.flush()
            self._known.clear()

    async def _find(self, places: AsyncIterator[Place], ahead: "asyncio.Queue[list[Place] | None]") -> None:
        """Ends the queue with None, also when finding fails."""
        found: list[Place] = []
        try:
            async for place in places:
                found.append(place)
                self._progress.expect(files=1, size=place.size)
                if len(found) == LOOK_UP_FILES:
                    await ahead.put(found)
                    found = []
        except Exception:  # raised to whoever waits for the task
            await ahead.put(None)
            raise
        await ahead.put(found)
        await ahead.put(None)

    async def _unread(self, ahead: "asyncio.Queue[list[Place] | None]") -> AsyncGenerator[_Found, None]:
        """Those that have to be opened."""
        number = 0
        while (places := await ahead.get()) is not None:
            settled = await self._settle(places) if self._ledger is not None and places else frozenset()
            for position, place in enumerate(places):
                if position not in settled:
                    yield _Found(number + position, place)
            number += len(places)

    async def _settle(self, places: Sequence[Place]) -> frozenset[int]:
        """Positions of those whose fate is known from the ledger, and holds today; they are in the report then."""
        assert self._ledger is not None
        rows = await asyncio.to_thread(self._ledger.look_up, places)
        await self._know({row.series for row in rows.values() if isinstance(row, Seen)})
        settled = frozenset(number for number, row in rows.items() if self._is_settled(places[number], row))
        self._progress.advance(files=len(settled), size=sum(places[number].size for number in settled))
        return settled

    def _is_settled(self, place: Place, row: Row) -> bool:
        if isinstance(row, SeenRefused):
            self._report.refused.append(RefusedFile(place.name, row.reason))
            return True
        known = self._known.get(row.series, {}).get(row.instance_uid)
        if known is None:
            return False
        note = InstanceNote(place.name, row.series.study_uid, row.series.series_uid, row.instance_uid)
        if known.is_same(place.size, row.crc32c):
            self._report.same.append(note)
            self.same[row.series] = self.same.get(row.series, 0) + 1
            return True
        if place.shown in known.noted:
            self._report.conflict.append(note)
            self.conflict[row.series] = self.conflict.get(row.series, 0) + 1
            return True
        return False

    async def _know(self, wanted: set[SeriesKey]) -> None:
        """Have what is stored of these series in memory; of one that cannot be read nothing is known."""
        while self._known and sum(map(len, self._known.values())) > KNOWN_INSTANCES:
            del self._known[next(iter(self._known))]
        at_once = asyncio.Semaphore(READS_AT_ONCE)

        async def know(key: SeriesKey) -> None:
            async with at_once:
                try:
                    self._known[key] = await known_instances(self._bucket, await read_stored(self._bucket, key))
                except StorageError:  # what is wrong is told when something is to be stored there
                    self._known[key] = {}

        await together(know(key) for key in sorted(wanted - self._known.keys()))

    async def _describe_all(self, unread: AsyncIterator[_Found]) -> None:
        """Describe files in a pool, few batches at a time, and take the results in the order of the files."""
        waiting: list[list[_Found]] = []
        pool: Pool | None = None
        begun: deque[tuple[list[_Found], Answer]] = deque()
        try:
            async with aclosing(_batches(unread)) as batches:
                async for batch in batches:
                    waiting.append(batch)
                    if pool is None and len(waiting) * BATCH_FILES < MIN_POOL_FILES:
                        continue  # how many there are decides where they are described
                    pool = pool or Pool(sum(map(len, waiting)), self._jobs)
                    await self._begin(pool, waiting, begun)
            pool = pool or Pool(sum(map(len, waiting)), self._jobs)
            await self._begin(pool, waiting, begun)
            while begun:
                await self._take(*begun.popleft())
        finally:
            for _, answer in begun:
                answer.cancel()
            if pool is not None:
                pool.close()

    async def _begin(
        self,
        pool: Pool,
        waiting: list[list[_Found]],
        begun: deque[tuple[list[_Found], Answer]],
    ) -> None:
        for batch in waiting:
            begun.append((batch, pool.describe([found.place for found in batch], self._bucket.url)))
            if len(begun) > 2 * pool.jobs:
                await self._take(*begun.popleft())
        waiting.clear()

    async def _take(self, batch: Sequence[_Found], answer: Answer) -> None:
        try:
            items = await answer
        except BrokenProcessPool as error:
            raise StorageError("a process that read files died; was there memory enough?") from error
        for found, item in zip(batch, items, strict=True):
            size = found.place.size
            row: Row | None
            if isinstance(item, Unusable):
                self._report.refused.append(item.note)
                row = SeenRefused(item.note.reason) if item.is_lasting else None
            else:
                self._candidates.add(found.number, item)
                row = Seen(item.series, item.instance_uid, item.crc32c)
            if self._ledger is not None and row is not None:
                self._ledger.remember(found.place, row)
            self._report.bytes_read += size
            self._progress.advance(files=1, size=size)


async def _batches(unread: AsyncIterator[_Found]) -> AsyncGenerator[list[_Found], None]:
    """Tasks for a pool."""
    batch: list[_Found] = []
    size = 0
    async for found in unread:
        batch.append(found)
        size += found.place.size
        if len(batch) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
