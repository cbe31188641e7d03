"""The narrow face of an object store on the network: one request each, without patience and without doubt.

`RemoteBucket` stands before it and adds what is the same for every store: keys and answers checked, attempts
repeated, requests counted and bounded. A store only translates: calls to requests, refusals to our errors.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from storage.bucket.base import ObjectInfo, Piece
from storage.bucket.pieces import Fetch
from storage.ranges import ByteRange


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be true of an object for a write to happen."""

    version: str | None
    """The object is this version; None: there is no such object."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer to a GET, and its body."""

    info: ObjectInfo
    """Of the whole object, as this answer describes it."""
    range: ByteRange
    """What the store says that it sends (a store may shorten a range that goes beyond the end)."""
    chunks: AsyncIterator[bytes | memoryview]
    """The body, once; raises TryAgain when it breaks off."""


class Store(Protocol):
    """One bucket (and a prefix in it) of an object store. Keys are valid keys and relative to the prefix.

    Raises, everywhere: `TryAgain` for what may pass, `StorageUnavailable` for what will not.
    """

    @property
    def url(self) -> str:
        """The address, as `open_bucket` takes it."""

    async def get(
        self, key: str, range: ByteRange | None, version: str | None
    ) -> tuple[ObjectInfo, bytes | memoryview]:
        """One GET, its whole body in memory: the way of small ranges.

        Raises:
            ObjectNotFound, ObjectChanged (the store refused the version), ObjectTruncated (416: begins behind the end).
        """

    def stream(self, key: str, range: ByteRange | None, version: str | None) -> AbstractAsyncContextManager[Answer]:
        """One GET, its body as it comes; raises as `get`, on entry. Leaving early gives the connection up.

        Not named `open`: that is the class method that reaches a bucket, `open(bucket, prefix, options)`.
        """

    async def head(self, key: str) -> ObjectInfo:
        """Raises ObjectNotFound."""

    def list(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
        """Pages of a listing, ascending; one request each."""

    async def put(self, key: str, data: bytes, condition: "Condition | None") -> ObjectInfo:
        """One PUT. Raises ObjectExists, ObjectChanged or ObjectNotFound when the condition is not met."""

    async def upload(self, key: str, pieces: AsyncIterator[Piece], fetch: Fetch) -> ObjectInfo:
        """As `put` without condition, in parts; nothing is replaced before all of them are there.

        Args:
            fetch: reads the stored ranges that the store does not copy itself (`fetched`: none of them).

        Raises:
            ObjectNotFound, ObjectTruncated, ObjectChanged: of a stored range.
        """

    async def delete(self, key: str) -> None:
        """Absent already is no error."""

    async def close(self) -> None:
        """Give back connections and threads."""
