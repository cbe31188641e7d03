"""A bucket in memory: for tests, and for a datastore that need not outlive the process (`memory://name`)."""

import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from storage.bucket.base import ObjectBytes, ObjectInfo, Piece, StoredRange
from storage.bucket.object_key import check_key, check_prefix
from storage.bucket.pieces import joined
from storage.errors import ObjectChanged, ObjectExists, ObjectNotFound, ObjectTruncated
from storage.ranges import ByteRange


@dataclass(frozen=True, slots=True)
class _Stored:
    data: bytes
    version: str
    updated: float


class MemoryBucket:
    """Objects in a dictionary; versions are counted and never used twice.

    Answers are views, as a folder's are: a caller that needs `bytes` finds out here.

    Args:
        cheap_head: what the property says; False lets tests meet the code paths of a remote bucket.
    """

    def __init__(self, name: str = "", *, cheap_head: bool = False) -> None:
        self._name = name
        self._cheap_head = cheap_head
        self._objects: dict[str, _Stored] = {}
        self._versions = itertools.count(1)

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def cheap_head(self) -> bool:
        return self._cheap_head

    async def read(self, key: str, range: ByteRange | None = None, *, version: str | None = None) -> ObjectBytes:
        stored = self._expect(key, range, version)
        view = memoryview(stored.data)
        data = view if range is None else view[range.start : range.stop]
        return ObjectBytes(data, stored.version, len(stored.data))

    async def stream(
        self, key: str, range: ByteRange, *, version: str | None = None, chunk_bytes: int = 512 * 1024
    ) -> AsyncIterator[memoryview]:
        if chunk_bytes < 1:
            raise ValueError(f"a chunk of {chunk_bytes} bytes")
        stored = self._expect(key, range, version)
        view = memoryview(stored.data)
        position = range.start
        while position < range.stop:
            # A real store may go on with the old bytes or break off; this one breaks off, so that tests meet it.
            if self._objects.get(key) is not stored:
                raise ObjectChanged(f"{key}: changed after {position - range.start} bytes of a stream")
            following = min(position + chunk_bytes, range.stop)
            yield view[position:following]
            position = following

    async def head(self, key: str) -> ObjectInfo:
        return _describe(key, self._find(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        check_prefix(prefix)
        # Python compares text by code point, which is the order of UTF-8 bytes.
        for key in sorted(key for key in self._objects if key.startswith(prefix) and key > after):
            stored = self._objects.get(key)
            if stored is not None:
                yield _describe(key, stored)

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        check_key(key)
        return self._put(key, data)

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        check_key(key)
        data = bytearray()
        async for piece in joined(pieces):
            if isinstance(piece, StoredRange):
                stored = self._expect(piece.key, piece.range, piece.version)
                data += memoryview(stored.data)[piece.range.start : piece.range.stop]
            else:
                data += piece
        return self._put(key, data)

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        check_key(key)
        if key in self._objects:
            raise ObjectExists(key)
        return self._put(key, data)

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        stored = self._find(key)
        if stored.version != version:
            raise ObjectChanged(f"{key}: version {stored.version} instead of {version}")
        return self._put(key, data)

    async def delete(self, key: str) -> None:
        check_key(key)
        self._objects.pop(key, None)

    async def close(self) -> None:
        """Nothing to give back: the objects stay, for whoever opens the same name."""

    def _put(self, key: str, data: bytes | bytearray) -> ObjectInfo:
        stored = _Stored(bytes(data), str(next(self._versions)), time.time())
        self._objects[key] = stored
        return _describe(key, stored)

    def _find(self, key: str) -> _Stored:
        check_key(key)
        stored = self._objects.get(key)
        if stored is None:
            raise ObjectNotFound(key)
        return stored

    def _expect(self, key: str, range: ByteRange | None, version: str | None) -> _Stored:
        stored = self._find(key)
        if version is not None and stored.version != version:
            raise ObjectChanged(f"{key}: version {stored.version} instead of {version}")
        if range is not None and range.stop > len(stored.data):
            raise ObjectTruncated(f"{key}: wanted bytes up to {range.stop}, it has {len(stored.data)}")
        return stored


def _describe(key: str, stored: _Stored) -> ObjectInfo:
    return ObjectInfo(key, len(stored.data), stored.version, stored.updated)
