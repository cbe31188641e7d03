"""An event loop in a thread, one a process, for reading buckets from code that waits: the workers of an ingest.

data = background().run(bucket.read(key, range))
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from multiprocessing.util import Finalize
from typing import TypeVar

from storage.bucket import Bucket, BucketOptions, open_bucket
from storage.errors import StorageError

CLOSE_SECONDS = 5

Result = TypeVar("Result")


class Background:
    """The loop, and the buckets that are open on it: one for each address, as long as the process lives."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._buckets: dict[tuple[str, BucketOptions], Bucket] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ingest-buckets", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is there: a fork has the object and not the thread."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[None, None, Result]) -> Result:
        """Wait for a coroutine that runs on the loop; raises what it raises."""
        if not self.is_alive:
            work.close()
            raise RuntimeError("the reader of buckets is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def bucket(self, url: str, options: BucketOptions) -> Bucket:
        """The bucket at an address. Raises as `open_bucket` does."""
        with self._lock:
            bucket = self._buckets.get((url, options))
            if bucket is None:
                bucket = self._buckets[url, options] = self.run(self._open(url, options))
            return bucket

    def close(self) -> None:
        """Close every bucket and end the thread."""
        if not self.is_alive:
            return
        with suppress(TimeoutError, StorageError):
            asyncio.run_coroutine_threadsafe(self._end_everything(), self._loop).result(CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _open(self, url: str, options: BucketOptions) -> Bucket:
        return open_bucket(url, options=options)

    async def _end_everything(self) -> None:
        """Streams that somebody left in the middle too: they cannot end on a loop that is closed."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        while self._buckets:
            await self._buckets.popitem()[1].close()


_lock = threading.Lock()
_background: Background | None = None


def background() -> Background:
    """The one of this process; closed when the process ends, or before."""
    global _background
    with _lock:
        if _background is None or not _background.is_alive:
            _background = Background()
            # `atexit` is not run in the children of multiprocessing; this is, in every process.
            Finalize(None, _background.close, exitpriority=10)
        return _background
