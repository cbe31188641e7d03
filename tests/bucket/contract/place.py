"""A bucket under test, how its store is reached without it, and what tests put there."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol

import pytest

from storage.bucket import Bucket, Piece, StoredRange
from storage.ranges import ByteRange

KEY = "studies/1.2.3/series/4.5.6.tar"
DATA = bytes(range(256)) * 40
"""10,240 bytes, no two neighbouring ones alike."""

LARGE = b"".join(number.to_bytes(4, "big") for number in range(5 * 1024 * 1024 // 4))
"""5 MiB in which every aligned word says where it is."""

ODD_KEYS = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/..",
    "a/../b",
    "./a",
    "a/./b",
    "a\0b",
    "a\\b",
    "a\nb",
    "\ud800",
    ".codweb-tmp-1",
    "a/.codweb-tmp-1",
    "k" * 1025,
    "é" * 513,
)


class Place(Protocol):
    """A bucket under test, and hands that reach its store without it."""

    @property
    def bucket(self) -> Bucket: ...

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object as another program would."""

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None."""

    def keys(self) -> list[str]:
        """Every object of the store, in any order; unfinished writes count."""

    def broken(self, key: str) -> Bucket:
        """A bucket over the same store for which `key` is there and cannot be read."""


async def listed(bucket: Bucket, prefix: str = "", after: str = "") -> list[str]:
    return [info.key async for info in bucket.list(prefix, after=after)]


async def streamed(bucket: Bucket, key: str, range: ByteRange, chunk_bytes: int, version: str | None = None) -> bytes:
    chunks = [bytes(part) async for part in bucket.stream(key, range, version=version, chunk_bytes=chunk_bytes)]
    assert all(0 < len(chunk) <= chunk_bytes for chunk in chunks)
    return b"".join(chunks)


async def in_pieces(pieces: Iterable[Piece], error: Exception | None = None) -> AsyncIterator[Piece]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece
    if error is not None:
        raise error


async def stored(bucket: Bucket, key: str, start: int, stop: int) -> StoredRange:
    """A range of an object as it is now."""
    return StoredRange(key, ByteRange(start, stop), (await bucket.head(key)).version)


class ContractBase:
    """What a bucket's test class fills in."""

    def make_place(self, folder: Path) -> Place:
        """An empty store; `folder` is empty and the test's own."""
        raise NotImplementedError

    @pytest.fixture
    async def place(self, tmp_path: Path) -> AsyncIterator[Place]:
        place = self.make_place(tmp_path)
        yield place
        await place.bucket.close()
