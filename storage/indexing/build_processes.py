"""Deep builds in processes of their own, so that minutes of header parsing never stand before a frame."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from storage.bucket import open_bucket
from storage.errors import StorageError
from storage.indexing.indexer import Indexer
from storage.keys import SeriesKey
from storage.series_index.layout import Depth
from storage.state import StateFolder

WORKERS = 2
"""Deepening in the background uses one at a time, so that one is left for whoever is waiting; started when needed."""


class BuildProcesses:
    """Quick builds here, deep ones in processes of their own, which open the bucket again by its URL."""

    def __init__(self, indexer: Indexer, bucket_url: str, state_base: Path, root: str) -> None:
        self._indexer = indexer
        self._arguments = (bucket_url, state_base, root)
        self._pool: ProcessPoolExecutor | None = None

    async def build(self, key: SeriesKey, depth: Depth) -> None:
        """As `Indexer.build`; a process that dies (out of memory, say) costs this series an error and no other."""
        if depth == "quick":
            return await self._indexer.build(key, depth)
        loop = asyncio.get_running_loop()
        try:
            # made first, for it starts multiprocessing's resource tracker, and that unblocks signals
            pool = self._executor()
            with _interrupts_blocked():
                building = loop.run_in_executor(pool, _build_in_process, *self._arguments, key, depth)
            await building
        except BrokenProcessPool as error:
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
                max_workers=WORKERS, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_the_server
            )
        return self._pool


def _end_with_the_server() -> None:
    """A build process whose server was killed ends too, whatever it is at."""
    server = multiprocessing.parent_process()
    assert server is not None  # this runs in a child

    def watch() -> None:
        server.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A process that is started now is deaf to Ctrl+C, from its first line on: this one acts on it and ends that one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _build_in_process(bucket_url: str, state_base: Path, root: str, key: SeriesKey, depth: Depth) -> None:
    async def build() -> None:
        bucket = open_bucket(bucket_url)
        try:
            await Indexer(bucket, StateFolder(state_base, bucket.url), root=root).build(key, depth)
        finally:
            await bucket.close()

    asyncio.run(build())
