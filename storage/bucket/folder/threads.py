"""Threads that wait for a disk, apart from the threads that compute: a read never queues behind a compression."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_THREADS = 16
"""They wait and hardly compute: as many requests as keep one disk, or one file server, busy."""


class DiskThreads:
    """Runs blocking calls one owner at a time: whoever awaited a call may close what the call used."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="folder")

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in a thread; when cancelled, let the call end first.

        A cancelled caller closes its descriptor. A call still running would then read from, or write into, whatever
        file gets that number next. A call that has not begun is dropped.
        """
        job = self._pool.submit(call)
        outcome = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            if not job.cancel():
                while not job.done():
                    with contextlib.suppress(asyncio.CancelledError):  # a second one: the first is raised below
                        await asyncio.wait([outcome])
            raise

    async def close(self) -> None:
        """Wait for what runs, and end the threads."""
        await asyncio.to_thread(self._pool.shutdown)
