"""The series indexes at hand: opened once, checked for freshness, built when missing, shared by all who ask.

Freshness: a bucket whose `head` is free (a folder) is asked on every use; elsewhere an index older than
`revalidate_seconds` is served once more while one shared check runs behind it (0: always check first).
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from storage.bucket import Bucket
from storage.errors import ObjectNotFound, SeriesNotFound, StorageError
from storage.keys import SeriesKey
from storage.series_index.layout import Depth
from storage.series_index.reader import SeriesIndex, UnusableIndex
from storage.state import StateFolder
from storage.together import together

logger = logging.getLogger(__name__)

OPEN_INDEXES = 512
"""Indexes kept open; each costs a mapping, and its pages only while they are read."""


class Builder(Protocol):
    """Builds the index file of one series (in this process or another); see `storage.indexing.indexer`."""

    async def build(self, key: SeriesKey, depth: Depth) -> None: ...


@dataclass(slots=True)
class _Opened:
    index: SeriesIndex
    checked_at: float


class IndexShelf:
    """Hands out the series index of a key, fresh enough and deep enough."""

    def __init__(self, bucket: Bucket, state: StateFolder, builder: Builder, *, revalidate_seconds: float) -> None:
        self._bucket = bucket
        self._state = state
        self._builder = builder
        self._revalidate_seconds = revalidate_seconds
        self._opened: OrderedDict[SeriesKey, _Opened] = OrderedDict()
        self._builds: dict[tuple[SeriesKey, Depth], asyncio.Task[SeriesIndex]] = {}
        self._checks: dict[SeriesKey, asyncio.Task[None]] = {}
        self.on_built: Callable[[SeriesIndex], None] | None = None
        """Called after each build, with the new index."""

    async def get(
        self, key: SeriesKey, *, depth: Depth = "quick", with_metadata: bool = False, reads_tar: bool = False
    ) -> SeriesIndex:
        """The index of a series.

        Args:
            depth: "deep" waits for a deep build where only a quick index is there.
            with_metadata: the metadata blocks are needed; some quick indexes have none worth sending.
            reads_tar: the caller reads the tar next, under the version of the index: a changed one shows itself then,
                so an open index is held against metadata.json only.

        Raises:
            SeriesNotFound: the bucket holds no metadata.json for it.
            CorruptSeries, StorageUnavailable: it cannot be read.
        """
        index = await self._current(key, with_tar=not reads_tar) or await self._build(key, "quick")
        if index.header.depth == "quick" and (depth == "deep" or (with_metadata and not index.header.has_metadata)):
            index = await self._build(key, "deep")
        return index

    async def get_all(
        self, keys: Sequence[SeriesKey], *, depth: Depth = "quick", with_metadata: bool = False
    ) -> list[SeriesIndex]:
        """The indexes of several series, in their order; those that were removed since they were listed are left out.

        Raises:
            SeriesNotFound: none of them is there any more.
            CorruptSeries, StorageUnavailable: one of them cannot be read.
        """

        async def present(key: SeriesKey) -> SeriesIndex | None:
            try:
                return await self.get(key, depth=depth, with_metadata=with_metadata)
            except SeriesNotFound:
                return None

        found = [index for index in await together(map(present, keys)) if index is not None]
        if not found:
            raise SeriesNotFound(f"no {keys[0]}")
        return found

    async def refresh(self, key: SeriesKey) -> SeriesIndex:
        """The index after a read met another version than the index was built for."""
        opened = self._opened.get(key)
        if opened is not None and await self._matches_bucket(opened.index):
            return opened.index
        self._opened.pop(key, None)
        return await self._build(key, "quick")

    def opened(self, key: SeriesKey) -> SeriesIndex | None:
        """The index if it is open already; asks nobody."""
        opened = self._opened.get(key)
        return opened.index if opened is not None else None

    async def close(self) -> None:
        """Cancel what is under way in this process."""
        tasks = [*self._builds.values(), *self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._opened.clear()

    async def _current(self, key: SeriesKey, *, with_tar: bool) -> SeriesIndex | None:
        """An index that may be used now, or None if one must be built."""
        opened = self._opened.get(key)
        if opened is None:
            index = self._open_file(key)
            if index is None or not await self._matches_bucket(index):
                return None
            self._put(index)
            return index
        self._opened.move_to_end(key)
        if self._bucket.cheap_head or self._revalidate_seconds == 0:
            if await self._matches_bucket(opened.index, with_tar=with_tar):
                return opened.index
            self._opened.pop(key, None)
            return None
        if time.monotonic() - opened.checked_at > self._revalidate_seconds and key not in self._checks:
            self._start_check(key, opened)
        return opened.index

    async def _matches_bucket(self, index: SeriesIndex, *, with_tar: bool = True) -> bool:
        """Whether the index was built for the objects that the bucket holds now."""
        try:
            metadata = await self._bucket.head(index.key.metadata)
        except ObjectNotFound as error:
            self._opened.pop(index.key, None)
            raise SeriesNotFound(f"no {index.key}") from error
        if metadata.version != index.header.metadata_version:
            return False
        if not with_tar:
            return True
        try:
            tar_version: str | None = (await self._bucket.head(index.key.tar)).version
        except ObjectNotFound:
            tar_version = None
        return tar_version == index.header.tar_version

    def _start_check(self, key: SeriesKey, opened: _Opened) -> None:
        async def check() -> None:
            try:
                if not await self._matches_bucket(opened.index):
                    await self._build(key, "quick")
                opened.checked_at = time.monotonic()
            except SeriesNotFound:
                pass
            except StorageError as error:
                logger.warning("could not revalidate %s: %s", key, error)
            finally:
                self._checks.pop(key, None)

        self._checks[key] = asyncio.create_task(check())

    async def _build(self, key: SeriesKey, depth: Depth) -> SeriesIndex:
        """Build, or wait for whoever builds it already; a failure is forgotten, one waiter's cancelling harms nobody."""
        task = self._builds.get((key, depth))
        if task is None:
            task = asyncio.create_task(self._run(key, depth))
            self._builds[key, depth] = task
            task.add_done_callback(lambda done: self._forget(key, depth, done))
        return await asyncio.shield(task)

    def _forget(self, key: SeriesKey, depth: Depth, task: "asyncio.Task[SeriesIndex]") -> None:
        if self._builds.get((key, depth)) is task:
            del self._builds[key, depth]
        if not task.cancelled():
            task.exception()  # seen: nobody may be waiting any more

    def _run(self, key: SeriesKey, depth: Depth) -> Coroutine[None, None, SeriesIndex]:
        async def run() -> SeriesIndex:
            await self._builder.build(key, depth)
            index = self._open_file(key)
            if index is None:
                raise StorageError(f"the index of {key} could not be kept: is the state folder full or read-only?")
            self._put(index)
            if self.on_built is not None:
                self.on_built(index)
            return index

        return run()

    def _open_file(self, key: SeriesKey) -> SeriesIndex | None:
        try:
            return SeriesIndex(self._state.series_index(key))
        except UnusableIndex:
            return None

    def _put(self, index: SeriesIndex) -> None:
        self._opened[index.key] = _Opened(index, time.monotonic())
        self._opened.move_to_end(index.key)
        while len(self._opened) > OPEN_INDEXES:
            self._opened.popitem(last=False)
