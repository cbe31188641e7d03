"""A bucket on the network: every answer checked, every failure that may pass tried again, within bounds.

What is sure here for every store: exactly the bytes that were asked, of one version; a failure is never an absence;
one read is one request when nothing fails.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import TypeVar

from storage.bucket.base import ObjectBytes, ObjectInfo, Piece, StoredRange
from storage.bucket.object_key import check_key, check_prefix, is_key
from storage.bucket.options import Patience
from storage.bucket.pieces import joined
from storage.bucket.remote.attempts import Attempts
from storage.bucket.remote.clock import Clock
from storage.bucket.remote.hedge import hedged
from storage.bucket.remote.in_flight import InFlight
from storage.bucket.remote.loan import Loan
from storage.bucket.remote.store import Answer, Condition, Store
from storage.errors import ObjectChanged, ObjectExists, ObjectNotFound, ObjectTruncated, StorageUnavailable, TryAgain
from storage.ranges import ByteRange

LOWEST_BYTES_PER_SECOND = 64 * 1024
"""A body that comes more slowly than this, all in all, counts as stuck."""

Result = TypeVar("Result")


class RemoteBucket:
    """The objects of a `Store`, with `patience`."""

    def __init__(self, store: Store, patience: Patience, clock: Clock | None = None) -> None:
        self._store = store
        self._patience = patience
        self._begin_seconds = patience.connect_seconds + patience.read_seconds
        self._attempts = Attempts(patience, clock)
        self._in_flight = InFlight(patience)

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def cheap_head(self) -> bool:
        return False

    async def read(self, key: str, range: ByteRange | None = None, *, version: str | None = None) -> ObjectBytes:
        check_key(key)
        if range is None:
            info, data = await self._attempts.run(key, partial(self._whole, key, version))
            return ObjectBytes(data, info.version, info.size)
        if range.start == range.stop:
            info = await self._nothing(key, range.start, version)
            return ObjectBytes(b"", info.version, info.size)
        try:
            return await self._attempts.run(key, partial(self._range, key, range, version))
        except ObjectTruncated:
            await self._still(key, version)
            raise

    async def stream(
        self, key: str, range: ByteRange, *, version: str | None = None, chunk_bytes: int = 512 * 1024
    ) -> AsyncIterator[memoryview]:
        check_key(key)
        if chunk_bytes < 1:
            raise ValueError(f"a chunk of {chunk_bytes} bytes")
        if range.start == range.stop:
            await self._nothing(key, range.start, version)
            return
        trial = self._attempts.trial(key)
        position = range.start
        while position < range.stop:
            rest = ByteRange(position, range.stop)
            try:
                async with Loan(self._patience.idle_stream_seconds) as loan:
                    await loan.enter(self._in_flight.stream())
                    await loan.enter(self._in_flight.place())
                    answer = await loan.enter(self._opened(key, rest, version))
                    pieces = await loan.enter(aclosing(self._pieces(key, answer, rest)))
                    version = answer.info.version  # what goes on after a break must be the same object
                    async for piece in pieces:
                        trial.progress()
                        view = memoryview(piece)
                        for start in _steps(len(view), chunk_bytes):
                            chunk = view[start : start + chunk_bytes]
                            with loan.idle():
                                yield chunk
                            position += len(chunk)
                        if loan.is_given_back:
                            break
            except TryAgain as error:
                await trial.after(error)
            except ObjectTruncated:
                await self._still(key, version)
                raise

    async def head(self, key: str) -> ObjectInfo:
        check_key(key)
        return await self._attempts.run(key, partial(self._once, key, partial(self._store.head, key)))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        trial = self._attempts.trial(f"listing of {prefix!r}")
        pages = self._store.list(prefix, after)
        while True:
            try:
                page = await self._once(prefix, partial(anext, pages, None))
            except TryAgain as error:
                await trial.after(error)
                pages = self._store.list(prefix, after)
                continue
            if page is None:
                return
            trial.progress()
            for info in page:
                if not info.key:  # an empty object named as the prefix itself: a folder, in web consoles
                    continue
                if not (info.key > after and info.key.startswith(prefix)):  # code points sort as UTF-8 bytes do
                    raise StorageUnavailable(f"the store lists {info.key!r} after {after!r}: not in order")
                after = info.key
                if is_key(info.key):  # others put what is no key to us beside it, e.g. empty objects named as folders
                    yield info

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        return await self._put(key, data, None)

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        return await self._put(key, data, Condition(None))

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        return await self._put(key, data, Condition(version))

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        check_key(key)
        async with self._in_flight.uploads:
            try:
                return await self._store.upload(key, joined(pieces), self._fetch)
            except TryAgain as error:  # the pieces are gone: only who has them can begin again
                raise StorageUnavailable(f"{key}: the upload broke off: {error}") from error

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._attempts.run(key, partial(self._once, key, partial(self._store.delete, key)))

    async def close(self) -> None:
        await self._store.close()

    def _fetch(self, stored: StoredRange) -> AsyncIterator[memoryview]:
        """What a store asks for that does not copy a stored range: with all the patience of a stream."""
        return self.stream(stored.key, stored.range, version=stored.version)

    async def _range(self, key: str, range: ByteRange, version: str | None) -> ObjectBytes:
        seconds = self._patience.hedge_seconds
        if seconds <= 0:
            return await self._get(key, range, version)
        attempt = partial(self._get, key, range, version)
        return await hedged(attempt, seconds, lambda: not self._in_flight.is_full)

    async def _get(self, key: str, range: ByteRange, version: str | None) -> ObjectBytes:
        get = partial(self._store.get, key, range, version)
        info, data = await self._once(key, get, body_bytes=range.length)
        _check(key, info, range, version)
        if len(data) != range.length:
            raise TryAgain(f"{key}: wanted {range.length} bytes at {range.start}, got {len(data)}")
        return ObjectBytes(data, info.version, info.size)

    async def _whole(self, key: str, version: str | None) -> tuple[ObjectInfo, bytes | memoryview]:
        """As a stream: an object of unknown size has no time of its own, but its pieces have."""
        async with self._in_flight.place(), self._opened(key, None, version) as answer:
            info = answer.info
            pieces = [piece async for piece in self._pieces(key, answer, ByteRange(0, info.size))]
        return info, pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _nothing(self, key: str, at: int, version: str | None) -> ObjectInfo:
        """What an empty range needs to know: a store has no answer to it, so the object is asked for instead."""
        info = await self.head(key)
        _check(key, info, ByteRange(at, at), version)
        return info

    async def _still(self, key: str, version: str | None) -> None:
        """Raise ObjectChanged if the object that proved too short is another one by now."""
        if version is not None:
            _check(key, await self.head(key), None, version)

    @asynccontextmanager
    async def _opened(self, key: str, range: ByteRange | None, version: str | None) -> AsyncIterator[Answer]:
        """One GET whose answer has begun in time and describes what was asked."""
        opening: AbstractAsyncContextManager[Answer] = self._store.stream(key, range, version)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._begin_seconds):
                    answer = await stack.enter_async_context(opening)
            except TimeoutError as error:
                raise TryAgain(f"{key}: no answer began within {self._begin_seconds:g} s") from error
            _check(key, answer.info, range, version)
            wanted = range or ByteRange(0, answer.info.size)
            if answer.range != wanted:
                raise TryAgain(f"{key}: wanted {wanted}, the store sends {answer.range}")
            yield answer

    async def _pieces(self, key: str, answer: Answer, wanted: ByteRange) -> AsyncGenerator[bytes | memoryview, None]:
        """The body, each piece in time, and exactly as long as `wanted`."""
        chunks = aiter(answer.chunks)
        position = wanted.start
        while True:
            try:
                async with asyncio.timeout(self._patience.read_seconds):
                    piece = await anext(chunks, None)
            except TimeoutError as error:
                raise TryAgain(f"{key}: nothing came for {self._patience.read_seconds:g} s at {position}") from error
            if piece is None:
                break
            position += len(piece)
            if position > wanted.stop:
                break
            yield piece
        if position != wanted.stop:
            raise TryAgain(f"{key}: wanted bytes up to {wanted.stop}, the body ended at {position}")

    async def _put(self, key: str, data: bytes, condition: Condition | None) -> ObjectInfo:
        """One object, written whole. With a condition exactly one writer wins, and that one is told so."""
        check_key(key)
        put = partial(self._store.put, key, data, condition)
        is_unsure = False

        async def attempt() -> ObjectInfo:
            nonlocal is_unsure
            try:
                return await self._once(key, put, body_bytes=len(data))
            except TryAgain:
                is_unsure = True
                raise
            except (ObjectExists, ObjectChanged) as refusal:
                if is_unsure and (info := await self._ours(key, data)) is not None:
                    return info
                raise refusal

        return await self._attempts.run(f"{key}: not known to be written", attempt)

    async def _ours(self, key: str, data: bytes) -> ObjectInfo | None:
        """What an earlier attempt wrote although its answer was lost: an object that holds exactly our bytes."""
        try:
            info, stored = await self._attempts.run(key, partial(self._whole, key, None))
        except ObjectNotFound:
            return None
        return info if stored == data else None

    async def _once(self, key: str, request: Callable[[], Awaitable[Result]], *, body_bytes: int = 0) -> Result:
        """One request in a place of its own, in time."""
        seconds = self._begin_seconds + body_bytes / LOWEST_BYTES_PER_SECOND
        async with self._in_flight.place():
            try:
                async with asyncio.timeout(seconds):
                    return await request()
            except TimeoutError as error:
                raise TryAgain(f"{key}: no answer within {seconds:.3g} s") from error


def _check(key: str, info: ObjectInfo, range: ByteRange | None, version: str | None) -> None:
    """The version first: a shorter object under the same key is another object, not a truncated one."""
    if version is not None and info.version != version:
        raise ObjectChanged(f"{key}: version {info.version} instead of {version}")
    if range is not None and range.stop > info.size:
        raise ObjectTruncated(f"{key}: wanted bytes up to {range.stop}, it has {info.size}")


def _steps(length: int, step: int) -> Iterable[int]:
    """Where the pieces of a chunk begin; a function, because `range` is a byte range everywhere else here."""
    return range(0, length, step)
