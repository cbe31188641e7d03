"""A store in memory that fails by script, and a clock that does not wait: what `RemoteBucket` is tested with."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from storage.bucket.base import ObjectInfo, Piece
from storage.bucket.pieces import Fetch, fetched
from storage.bucket.remote import Answer, Condition
from storage.bucket.remote.clock import Clock
from storage.errors import ObjectChanged, ObjectExists, ObjectNotFound, ObjectTruncated, TryAgain
from storage.ranges import ByteRange

PIECE_BYTES = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request; the parts may be combined."""

    before: Callable[[], None] | None = None
    """Called before the request is heard: changes the store, or raises."""
    seconds: float = 0
    """The answer waits so long."""
    lost: Exception | None = None
    """The request is heard, its answer is this."""
    keep: int | None = None
    """Only so many bytes of the body come."""
    broken: Exception | None = None
    """After them the body breaks off so; None: it just ends."""
    pause: float = 0
    """Before each piece of a body."""


def failing(error: Exception) -> Fault:
    """A request that is refused."""

    def refuse() -> None:
        raise error

    return Fault(before=refuse)


UNAVAILABLE = failing(TryAgain("503"))
LOST = Fault(lost=TryAgain("connection reset"))


class ScriptedStore:
    """Objects in a dictionary. The nth request meets the nth fault of `script`; None is no fault, the end of it too."""

    def __init__(self, *script: Fault | None) -> None:
        self.script = [*script]
        self.requests: list[tuple[str, str, ByteRange | None, str | None]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.is_closed = False
        self._versions = itertools.count(1)

    @property
    def url(self) -> str:
        return "scripted://store"

    def verbs(self) -> list[str]:
        return [verb for verb, *_ in self.requests]

    def keep(self, key: str, data: bytes) -> str:
        """Put an object there, without a request. Its version."""
        version = f"v{next(self._versions)}"
        self.objects[key] = (data, version)
        return version

    async def get(
        self, key: str, range: ByteRange | None, version: str | None
    ) -> tuple[ObjectInfo, bytes | memoryview]:
        async with self._request("get", key, range, version) as fault:
            info, data = self._cut(key, range, version)
            return info, data[: fault.keep]

    @asynccontextmanager
    async def stream(self, key: str, range: ByteRange | None, version: str | None) -> AsyncIterator[Answer]:
        async with self._request("stream", key, range, version) as fault:
            info, data = self._cut(key, range, version)
            chunks = self._chunks(data, fault)
            sent = ByteRange(0, info.size) if range is None else range
            yield Answer(info, sent, chunks)
            await chunks.aclose()

    async def head(self, key: str) -> ObjectInfo:
        async with self._request("head", key):
            return self._info(key)

    async def list(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
        while True:
            async with self._request("list", prefix, version=after):
                keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)[:3]
                page = [self._info(key) for key in keys]
            if not page:
                return
            after = page[-1].key
            yield page

    async def put(self, key: str, data: bytes, condition: Condition | None) -> ObjectInfo:
        async with self._request("put", key):
            if condition is not None and condition.version is None and key in self.objects:
                raise ObjectExists(key)
            if condition is not None and condition.version is not None and self._info(key).version != condition.version:
                raise ObjectChanged(key)
            self.keep(key, data)
            return self._info(key)

    async def upload(self, key: str, pieces: AsyncIterator[Piece], fetch: Fetch) -> ObjectInfo:
        data = b"".join([bytes(chunk) async for chunk in fetched(pieces, fetch)])
        return await self.put(key, data, None)

    async def delete(self, key: str) -> None:
        async with self._request("delete", key):
            self.objects.pop(key, None)

    async def close(self) -> None:
        self.is_closed = True

    @asynccontextmanager
    async def _request(
        self, verb: str, key: str, range: ByteRange | None = None, version: str | None = None
    ) -> AsyncIterator[Fault]:
        fault = (self.script.pop(0) if self.script else None) or Fault()
        self.requests.append((verb, key, range, version))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(fault.seconds)
            if fault.before is not None:
                fault.before()
            yield fault
            if fault.lost is not None:
                raise fault.lost
        finally:
            self.in_flight -= 1

    async def _chunks(self, data: bytes, fault: Fault) -> AsyncIterator[bytes | memoryview]:
        kept = data[: fault.keep]
        for start in range(0, len(kept), PIECE_BYTES):
            await asyncio.sleep(fault.pause)
            yield kept[start : start + PIECE_BYTES]
        if fault.broken is not None:
            raise fault.broken

    def _info(self, key: str) -> ObjectInfo:
        if key not in self.objects:
            raise ObjectNotFound(key)
        data, version = self.objects[key]
        return ObjectInfo(key, len(data), version, 0)

    def _cut(self, key: str, range: ByteRange | None, version: str | None) -> tuple[ObjectInfo, bytes]:
        info = self._info(key)
        if version is not None and info.version != version:
            raise ObjectChanged(key)
        data, _ = self.objects[key]
        if range is None:
            return info, data
        if range.start >= len(data):
            raise ObjectTruncated(key)
        return info, data[range.start : range.stop]


class StillClock:
    """Time that passes only while somebody sleeps, and chance that always draws the same."""

    def __init__(self, drawn: float = 1.0) -> None:
        self.slept: list[float] = []
        self.clock = Clock(now=lambda: sum(self.slept), sleep=self._sleep, draw=lambda: drawn)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
