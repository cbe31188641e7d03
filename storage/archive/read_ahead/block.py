"""A block: bytes of a tar that one request brings; whoever waits for some of them is woken as soon as they are there."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush

from storage.archive.read_ahead.access_order import Run
from storage.ranges import ByteRange


class BlockFailed(Exception):
    """The request broke off before the bytes came. Never leaves this package: whoever waited reads for himself."""


class Block:
    """The bytes of one range, as far as they have come."""

    __slots__ = (
        "_chunks",
        "_is_failed",
        "_starts",
        "_waiters",
        "filled",
        "is_touched",
        "range",
        "readers",
        "run",
        "task",
    )

    def __init__(self, range: ByteRange, run: Run) -> None:
        self.range = range
        self.run = run
        """Who caused it."""
        self.task: asyncio.Task[None] | None = None
        """Brings the bytes; None once it has ended."""
        self.filled = 0
        self.readers = 0
        """Reads that are under way in it."""
        self.is_touched = False
        """Whether any read has used it."""
        self._chunks: list[bytes] = []
        self._starts: list[int] = []
        self._is_failed = False
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def is_complete(self) -> bool:
        return self.filled == self.range.length

    def add(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes. Raises ValueError: more than the range has."""
        stop = self.filled + len(chunk)
        if stop > self.range.length:
            raise ValueError(f"{stop} bytes for a block of {self.range.length}")
        self._starts.append(self.filled)
        self._chunks.append(bytes(chunk))  # the stream may use its buffer again
        self.filled = stop
        self._wake()

    def fail(self) -> None:
        """No more bytes will come."""
        self._is_failed = True
        self._wake()

    async def read(self, wanted: ByteRange) -> bytes:
        """Bytes that lie inside the block, as soon as they are there.

        A copy: a slow client must not keep a whole block in memory.

        Raises BlockFailed.
        """
        start, stop = wanted.start - self.range.start, wanted.stop - self.range.start
        if self.filled < stop and not self._is_failed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heappush(self._waiters, (stop, id(future), future))
            await future
        if self.filled < stop:
            raise BlockFailed
        return b"".join(self._pieces(start, stop))

    def _pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        place = bisect_right(self._starts, start) - 1
        while start < stop:
            base, chunk = self._starts[place], self._chunks[place]
            yield memoryview(chunk)[start - base : stop - base]
            start = base + len(chunk)
            place += 1

    def _wake(self) -> None:
        while self._waiters and (self._is_failed or self._waiters[0][0] <= self.filled):
            future = heappop(self._waiters)[2]
            if not future.done():  # a waiter may have been cancelled
                future.set_result(None)
