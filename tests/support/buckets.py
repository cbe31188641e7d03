"""Buckets around a bucket: one that records, one that fails on demand, one that is far away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from storage.bucket.base import Bucket, ObjectBytes, ObjectInfo, Piece, StoredRange
from storage.errors import StorageError
from storage.ranges import ByteRange

Hook = Callable[[str, str], None]
"""Called with the verb and the key, before the call goes to the bucket inside."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a bucket. `start` and `stop` are None where no range was asked; a whole read has none."""

    verb: str
    key: str
    start: int | None = None
    stop: int | None = None


class WrappedBucket:
    """Hands every call to the bucket inside; `before` sees it first, `moved` learns how many bytes came back."""

    def __init__(self, inner: Bucket) -> None:
        self.inner = inner

    async def before(self, request: Request) -> None:
        """May wait, or raise instead of the bucket inside."""

    async def moved(self, request: Request, count: int) -> None:
        """Bytes that a read, or one chunk of a stream, brought; may wait, or raise."""

    async def given(self, request: Request, piece: Piece) -> None:
        """New bytes of a write, or a piece of an upload, before they go to the bucket inside; may wait, or raise."""

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def cheap_head(self) -> bool:
        return self.inner.cheap_head

    async def read(self, key: str, range: ByteRange | None = None, *, version: str | None = None) -> ObjectBytes:
        request = Request("read", key) if range is None else Request("read", key, range.start, range.stop)
        await self.before(request)
        answer = await self.inner.read(key, range, version=version)
        await self.moved(request, len(answer.data))
        return answer

    async def stream(
        self, key: str, range: ByteRange, *, version: str | None = None, chunk_bytes: int = 512 * 1024
    ) -> AsyncIterator[memoryview]:
        request = Request("stream", key, range.start, range.stop)
        await self.before(request)
        async for chunk in self.inner.stream(key, range, version=version, chunk_bytes=chunk_bytes):
            await self.moved(request, len(chunk))
            yield chunk

    async def head(self, key: str) -> ObjectInfo:
        await self.before(Request("head", key))
        return await self.inner.head(key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        await self.before(Request("list", prefix))
        async for info in self.inner.list(prefix, after=after):
            yield info

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        request = Request("write", key)
        await self.before(request)
        await self.given(request, data)
        return await self.inner.write(key, data)

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        request = Request("upload", key)
        await self.before(request)

        async def passed_on() -> AsyncIterator[Piece]:
            async for piece in pieces:
                await self.given(request, piece)
                yield piece

        return await self.inner.upload(key, passed_on())

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        request = Request("create", key)
        await self.before(request)
        await self.given(request, data)
        return await self.inner.create(key, data)

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        request = Request("replace", key)
        await self.before(request)
        await self.given(request, data)
        return await self.inner.replace(key, data, version=version)

    async def delete(self, key: str) -> None:
        await self.before(Request("delete", key))
        await self.inner.delete(key)

    async def close(self) -> None:
        await self.inner.close()


class RecordingBucket(WrappedBucket):
    """Remembers each request, those that failed too, and counts the bytes that came back and those that were sent.

    Stored ranges of uploads are listed apart, one by one as the caller named them; whether a store copies them or
    fetches them after all is for the bucket inside to say.
    """

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self.requests: list[Request] = []
        self.bytes_read = 0
        self.sent: Counter[str] = Counter()
        """New bytes by the key that they were written to."""
        self.copied: list[tuple[str, StoredRange]] = []
        """Stored ranges, each with the key that it was copied to."""

    async def before(self, request: Request) -> None:
        self.requests.append(request)

    async def moved(self, request: Request, count: int) -> None:
        self.bytes_read += count

    async def given(self, request: Request, piece: Piece) -> None:
        if isinstance(piece, StoredRange):
            self.copied.append((request.key, piece))
        else:
            self.sent[request.key] += len(piece)

    def bytes_sent(self, key_suffix: str = "") -> int:
        """New bytes to keys that end so; copied ranges do not count."""
        return sum(count for key, count in self.sent.items() if key.endswith(key_suffix))

    def bytes_copied(self, key_suffix: str = "") -> int:
        """Bytes of stored ranges that were copied to keys that end so."""
        return sum(stored.range.length for key, stored in self.copied if key.endswith(key_suffix))

    def count(self, verb: str | None = None, key_suffix: str | None = None) -> int:
        """How many requests of this verb went to keys that end so."""
        return sum(
            (verb is None or request.verb == verb) and (key_suffix is None or request.key.endswith(key_suffix))
            for request in self.requests
        )

    def reset(self) -> None:
        self.requests.clear()
        self.bytes_read = 0
        self.sent.clear()
        self.copied.clear()


@dataclass(slots=True)
class _Rule:
    verb: str | None
    key_predicate: Callable[[str], bool]
    error: Exception
    times: int | None
    after_bytes: int
    moved: int = 0

    def meets(self, request: Request) -> bool:
        return self.times != 0 and self.verb in (None, request.verb) and self.key_predicate(request.key)

    def strike(self) -> None:
        self.moved = 0
        if self.times is not None:
            self.times -= 1
        raise self.error


class FailingBucket(WrappedBucket):
    """Fails as it is told, and lets a test do something to the store just before a call."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self._rules: list[_Rule] = []
        self._hooks: list[Hook] = []

    def fail(
        self,
        verb: str | None,
        key_predicate: Callable[[str], bool],
        error: Exception,
        times: int | None = None,
    ) -> None:
        """From now on raise `error` instead of calling: for one verb or (None) all, as often as `times` or always."""
        self._rules.append(_Rule(verb, key_predicate, error, times, after_bytes=0))

    def break_off(
        self, key_predicate: Callable[[str], bool], after_bytes: int, error: StorageError, times: int | None = None
    ) -> None:
        """Let streams run until more than `after_bytes` bytes came, and raise instead of the chunk that exceeds them."""
        self._rules.append(_Rule("stream", key_predicate, error, times, after_bytes=max(after_bytes, 1)))

    def break_off_upload(
        self, key_predicate: Callable[[str], bool], after_bytes: int, error: StorageError, times: int | None = None
    ) -> None:
        """As `break_off`, for uploads: the pieces before were taken, stored ranges count by their length."""
        self._rules.append(_Rule("upload", key_predicate, error, times, after_bytes=max(after_bytes, 1)))

    def before_each(self, hook: Hook) -> None:
        """Call `hook(verb, key)` before every call, e.g. to replace an object between two reads."""
        self._hooks.append(hook)

    def heal(self) -> None:
        """Forget all rules and hooks."""
        self._rules.clear()
        self._hooks.clear()

    async def before(self, request: Request) -> None:
        for hook in [*self._hooks]:
            hook(request.verb, request.key)
        for rule in self._rules:
            if rule.after_bytes == 0 and rule.meets(request):
                rule.strike()

    async def given(self, request: Request, piece: Piece) -> None:
        await self.moved(request, piece.range.length if isinstance(piece, StoredRange) else len(piece))

    async def moved(self, request: Request, count: int) -> None:
        for rule in self._rules:
            if rule.after_bytes > 0 and rule.meets(request):
                rule.moved += count
                if rule.moved > rule.after_bytes:
                    rule.strike()


class SlowBucket(WrappedBucket):
    """Every request waits as if the store were far away, and bytes come at a limited rate."""

    def __init__(self, inner: Bucket, latency_seconds: float, bytes_per_second: float = float("inf")) -> None:
        super().__init__(inner)
        self._latency_seconds = latency_seconds
        self._bytes_per_second = bytes_per_second

    @property
    def cheap_head(self) -> bool:
        return False

    async def before(self, request: Request) -> None:
        await asyncio.sleep(self._latency_seconds)

    async def moved(self, request: Request, count: int) -> None:
        await asyncio.sleep(count / self._bytes_per_second)
