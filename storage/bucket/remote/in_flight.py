"""How many requests of one process are in flight at once. Waiting is fair: first come, first served; and has an end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from storage.bucket.options import Patience
from storage.errors import StorageUnavailable


class InFlight:
    """Places for requests, and two narrower gates, so that nobody waits for a place while keeping others from theirs.

    A stream holds a place while its consumer takes; a consumer that reads something else meanwhile needs a second one.
    Streams therefore never fill all places. An upload pulls its bytes from whatever its caller reads, often a stream of
    this bucket: it takes no place, only a gate of its own, and may wait for that as long as the uploads before it take.
    """

    def __init__(self, patience: Patience) -> None:
        requests = patience.requests
        if requests < 1:
            raise ValueError(f"{requests} requests in flight: at least 1 is needed")
        self.uploads = asyncio.Semaphore(uploads_of(requests))
        self._requests = requests
        self._seconds = patience.read_seconds
        self._places = asyncio.Semaphore(requests)
        self._streams = asyncio.Semaphore(max(1, requests // 2))

    @property
    def is_full(self) -> bool:
        return self._places.locked()

    def place(self) -> AbstractAsyncContextManager[None]:
        """A place for one request. Raises StorageUnavailable: none became free in time."""
        return self._within(self._places, f"{self._requests} requests")

    def stream(self) -> AbstractAsyncContextManager[None]:
        """What a stream needs before its place; raises as `place` does."""
        return self._within(self._streams, f"{max(1, self._requests // 2)} streams of {self._requests} requests")

    @asynccontextmanager
    async def _within(self, gate: asyncio.Semaphore, all_of_them: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                await gate.acquire()
        except TimeoutError as error:
            raise StorageUnavailable(
                f"this server is busy: {all_of_them} to the store are in flight, and none ended in {self._seconds:g} s"
            ) from error
        try:
            yield
        finally:
            gate.release()


def uploads_of(requests: int) -> int:
    """Uploads at once."""
    return max(1, requests // 8)
