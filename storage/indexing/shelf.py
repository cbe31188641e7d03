"""The series indexes at hand: opened once, checked for freshness, built when missing, shared by all who ask.

Freshness: a bucket whose `head` is free (a folder) is asked on every use; elsewhere an index older than
`revalidate_seconds` is served once more while one shared check runs behind it (0: always check first).

Another process (a worker, the maintenance process, `codweb index`) may put a deeper or newer index in place of an open
one. So the index file is looked at again on use, at most once in `LOOK_SECONDS`: one `stat`, 1.6 µs.
"""

import asyncio
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
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
LOOK_SECONDS = 1.0
"""How long an open index may be used before its file is looked at again: the delay with which others' work is seen."""

FileIdentity = tuple[int, int]
"""Device and inode: an index file is never changed, only replaced, and while it is open its inode is not reused."""


class Builder(Protocol):
    """Builds the index file of one series (in this process or another); see `storage.indexing.indexer`."""

    async def build(self, key: SeriesKey, depth: Depth) -> None: ...


@dataclass(slots=True)
class _Opened:
    index: SeriesIndex
    file: FileIdentity | None
    checked_at: float
    """When it was last held against the bucket."""
    looked_at: float
    """When its file was last held against the one in the state folder."""


class IndexShelf:
    """Hands out the series index of a key, fresh enough and deep enough."""

    def __init__(
        self,
        bucket: Bucket,
        state: StateFolder,
        builder: Builder,
        *,
        revalidate_seconds: float,
        open_indexes: int = OPEN_INDEXES,
    ) -> None:
        """`open_indexes`: how many stay open, the most recently used."""
        self._bucket = bucket
        self._state = state
        self._builder = builder
        self._revalidate_seconds = revalidate_seconds
        self._open_indexes = open_indexes
        self._opened: OrderedDict[SeriesKey, _Opened] = OrderedDict()
        self._builds: dict[tuple[SeriesKey, Depth], asyncio.Task[SeriesIndex]] = {}
        self._checks: dict[SeriesKey, asyncio.Task[None]] = {}
        self.on_opened: Callable[[SeriesIndex], None] | None = None
        """Called with each index that comes onto the shelf: after a build, and when its file is opened."""

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

    async def is_current(self, index: SeriesIndex) -> bool:
        """Whether the bucket holds the objects that an index was built for. Raises SeriesNotFound, StorageUnavailable."""
        return await self._matches_bucket(index)

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
            found = self._open_file(key)
            if found is None or not await self._matches_bucket(found.index):
                return None
            self._put(found)
            return found.index
        self._opened.move_to_end(key)
        if time.monotonic() - opened.looked_at > LOOK_SECONDS:
            opened = self._looked_at(opened)
        if self._bucket.cheap_head or self._revalidate_seconds == 0:
            if await self._matches_bucket(opened.index, with_tar=with_tar):
                return opened.index
            self._opened.pop(key, None)
            return None
        if time.monotonic() - opened.checked_at > self._revalidate_seconds and key not in self._checks:
            self._start_check(key, opened)
        return opened.index

    def _looked_at(self, opened: _Opened) -> _Opened:
        """The same index, or the one that another process has put in its place.

        One for other versions of the series is used too, and held against the bucket as soon as one that is too old.
        """
        opened.looked_at = time.monotonic()
        file = _identity(opened.index.path)
        if file is None or file == opened.file:  # what was deleted is still good while it is open
            return opened
        found = self._open_file(opened.index.key)
        if found is None:
            return opened
        if _versions(found.index) == _versions(opened.index):
            found.checked_at = opened.checked_at
        else:
            found.checked_at = -math.inf
        self._put(found)
        return found

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
            built = self._open_file(key)
            if built is None:
                raise StorageError(f"the index of {key} could not be kept: is the state folder full or read-only?")
            self._put(built)
            return built.index

        return run()

    def _open_file(self, key: SeriesKey) -> _Opened | None:
        path = self._state.series_index(key)
        file = _identity(path)  # before it is opened: if it is replaced in between, the next look sees it
        try:
            index = SeriesIndex(path)
        except UnusableIndex:
            return None
        now = time.monotonic()
        return _Opened(index, file, checked_at=now, looked_at=now)

    def _put(self, opened: _Opened) -> None:
        key = opened.index.key
        self._opened[key] = opened
        self._opened.move_to_end(key)
        while len(self._opened) > self._open_indexes:
            self._opened.popitem(last=False)
        if self.on_opened is not None:
            self.on_opened(opened.index)


def _identity(path: Path) -> FileIdentity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _versions(index: SeriesIndex) -> tuple[str, str | None]:
    return index.header.metadata_version, index.header.tar_version
