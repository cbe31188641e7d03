"""A bucket that is far away: latency with jitter and a tail, and every stream at its own bandwidth."""

import asyncio
from collections.abc import AsyncIterator

from benchmarks.far_s3.distance import Distance, Latencies, Pace
from storage.bucket.base import Bucket, ObjectBytes, ObjectInfo, Piece, StoredRange
from storage.ranges import ByteRange
from tests.support.buckets import Request, WrappedBucket

PAGE_KEYS = 1000
"""Keys of one page of a listing, each a request (S3 ListObjectsV2, max-keys)."""


class FarBucket(WrappedBucket):
    """Every request waits, and its bytes come piece by piece at the bandwidth of one stream; streams run side by side.

    The waits depend on the seed, on what is asked and how often it was asked before, and not on the order in which
    different requests arrive: a test that runs twice waits the same.
    """

    def __init__(
        self,
        inner: Bucket,
        *,
        latency_seconds: float = 0.03,
        bytes_per_second_per_stream: float = 100e6,
        jitter: float = 0.0,
        tail_probability: float = 0.0,
        tail_factor: float = 10.0,
        seed: int = 1,
    ) -> None:
        """`jitter`: part of the latency, evenly around it; `tail_probability`: of waiting `tail_factor` times as long."""
        super().__init__(inner)
        self._bytes_per_second = bytes_per_second_per_stream
        self._latencies = Latencies(
            Distance(latency_seconds, bytes_per_second_per_stream, jitter, tail_probability, tail_factor, seed)
        )

    @property
    def cheap_head(self) -> bool:
        return False

    async def before(self, request: Request) -> None:
        await asyncio.sleep(self._latencies.next(f"{request.verb}/{request.key}/{request.start}/{request.stop}"))

    async def read(self, key: str, range: ByteRange | None = None, *, version: str | None = None) -> ObjectBytes:
        answer = await super().read(key, range, version=version)
        await self._pace().arrive(len(answer.data))
        return answer

    async def stream(
        self, key: str, range: ByteRange, *, version: str | None = None, chunk_bytes: int = 512 * 1024
    ) -> AsyncIterator[memoryview]:
        await self.before(Request("stream", key, range.start, range.stop))
        pace = self._pace()
        async for chunk in self.inner.stream(key, range, version=version, chunk_bytes=chunk_bytes):
            await pace.arrive(len(chunk))
            yield chunk

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        count = 0
        async for info in self.inner.list(prefix, after=after):
            if count % PAGE_KEYS == 0:
                await self.before(Request("list", f"{prefix}/{after}/{count}"))
            count += 1
            yield info
        if count == 0:
            await self.before(Request("list", f"{prefix}/{after}/{count}"))

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        await self._pace().arrive(len(data))
        return await super().write(key, data)

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        await self._pace().arrive(len(data))
        return await super().create(key, data)

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        await self._pace().arrive(len(data))
        return await super().replace(key, data, version=version)

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        return await super().upload(key, self._paced(pieces))

    async def _paced(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        pace = self._pace()
        async for piece in pieces:
            if not isinstance(piece, StoredRange):  # the store copies those: they come no way
                await pace.arrive(len(piece))
            yield piece

    def _pace(self) -> "_Pace":
        return _Pace(self._bytes_per_second, asyncio.get_running_loop().time())


class _Pace(Pace):
    """A pace by the clock of the event loop."""

    async def arrive(self, count: int) -> None:
        """Wait until the next `count` bytes have come."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self.due(count, now) - now))
