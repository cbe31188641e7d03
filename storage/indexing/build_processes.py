"""Deep builds in processes of their own, so that minutes of header parsing never stand before a frame."""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from storage.bucket import open_bucket
from storage.bucket.options import BucketOptions
from storage.child_process import end_with_the_parent, interrupts_blocked
from storage.errors import StorageError
from storage.indexing.indexer import Indexer
from storage.keys import SeriesKey
from storage.series_index.layout import Depth
from storage.state import StateFolder

PROCESSES = 2
"""Deepening in the background uses one at a time, so that one is left for whoever is waiting; started when needed."""


NICENESS = 5
"""Where cores are few, answers come first."""


class BuildProcesses:
    """Quick builds here, deep ones in processes of their own, which open the bucket again by its URL."""

    def __init__(
        self,
        indexer: Indexer,
        bucket_url: str,
        state_base: Path,
        root: str,
        *,
        options: BucketOptions = BucketOptions(),
        share: bool = False,
        processes: int = PROCESSES,
    ) -> None:
        """Start nothing yet.

        Args:
            options: how each process opens the bucket.
            share: as the indexer's.
            processes: the most that run at a time.
        """
        self._indexer = indexer
        self._arguments = (bucket_url, options, state_base, root, share)
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    async def build(self, key: SeriesKey, depth: Depth) -> None:
        """As `Indexer.build`; a process that dies (out of memory, say) costs this series an error and no other."""
        if depth == "quick":
            return await self._indexer.build(key, depth)
        loop = asyncio.get_running_loop()
        try:
            pool = self._executor()
            with interrupts_blocked():
                building = loop.run_in_executor(pool, _build_in_process, *self._arguments, key, depth)
            await building
        except BrokenProcessPool as error:
            if self._pool is pool:  # or another waiter has closed it, and a new one runs
                self.close()
            raise StorageError(f"the process that read the headers of {key} died") from error
        return None

    def close(self) -> None:
        """Stop the processes at once; what they were building is left out, for index files appear whole or not at all."""
        pool, self._pool = self._pool, None
        if pool is not None:
            workers = [*pool._processes.values()]  # Python 3.14 has kill_workers() for this
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:  # or the interpreter would wait for them when it exits, a large series long
                worker.terminate()

    def _executor(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                max_workers=self._processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
            )
        return self._pool


def _begin() -> None:
    os.nice(NICENESS)
    end_with_the_parent()


def _build_in_process(
    bucket_url: str, options: BucketOptions, state_base: Path, root: str, share: bool, key: SeriesKey, depth: Depth
) -> None:
    async def build() -> None:
        bucket = open_bucket(bucket_url, options=options)
        try:
            indexer = Indexer(bucket, StateFolder(state_base, bucket.url), root=root, share=share)
            await indexer.build(key, depth)
        finally:
            await bucket.close()

    asyncio.run(build())
