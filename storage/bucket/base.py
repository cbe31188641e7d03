"""The face of a bucket: objects by key over versioned byte ranges. Folder, memory, S3 and GCS stand behind it.

Every read names the version it expects when it has one, and every answer names the version it came from, so that two
reads of one object can never be mixed. Absent is `ObjectNotFound`, and nothing else ever is.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from storage.ranges import ByteRange


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as the bucket describes it."""

    key: str
    size: int
    version: str
    """Opaque; equal if and only if the bytes are the same object: ETag, generation, or a file's dev-inode-size-mtime."""
    updated: float
    """Seconds since the epoch of the last change."""


@dataclass(frozen=True, slots=True)
class ObjectBytes:
    """Bytes of one read, exactly as many as the range asked, and the version they came from."""

    data: bytes | memoryview
    version: str
    size: int
    """Size of the whole object in bytes."""


@dataclass(frozen=True, slots=True)
class StoredRange:
    """Bytes that the bucket holds already: a range of one of its objects, as part of another or of the same one."""

    key: str
    range: ByteRange
    version: str
    """The object is exactly this version, or nothing is made of its bytes."""


Piece = bytes | memoryview | StoredRange
"""What an upload is made of: new bytes, and bytes that are copied inside the bucket."""


class Bucket(Protocol):
    """Objects by key. Keys are relative, `/`-separated, without empty, `.` or `..` segments; others raise `ValueError`.

    Raises, everywhere: `StorageUnavailable` when the store fails or does not answer in time.
    """

    @property
    def url(self) -> str:
        """What `open_bucket` takes to open the same place again (state is keyed by it)."""

    @property
    def cheap_head(self) -> bool:
        """Whether `head` costs no network request, so that freshness may be checked on every use (a folder)."""

    async def read(self, key: str, range: ByteRange | None = None, *, version: str | None = None) -> ObjectBytes:
        """Read a range of an object, or all of it.

        Args:
            range: half-open; None reads the whole object. An empty range answers `b""` after checking the version.
            version: expect exactly this version.

        Raises:
            ObjectNotFound: the bucket says that there is no such object.
            ObjectTruncated: the object ends before `range.stop`; nothing shortened is ever returned.
            ObjectChanged: the object is not `version` (any more).
        """

    def stream(
        self, key: str, range: ByteRange, *, version: str | None = None, chunk_bytes: int = 512 * 1024
    ) -> AsyncIterator[memoryview]:
        """Read a range in chunks, one request (or one open descriptor) for all of it; raises as `read` does.

        The sum of the chunks is exactly the range. A chunk is valid until the next one is taken.
        """

    async def head(self, key: str) -> ObjectInfo:
        """Describe an object. Raises ObjectNotFound."""

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts after `after`, in ascending order of their UTF-8 bytes."""

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        """Create or replace an object, atomically: a reader sees the old bytes or the new ones."""

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        """As `write`, from a stream, in bounded memory: the object becomes the sum of the pieces.

        Stored ranges are copied by the store where it can, and fetched and sent where it cannot; they may be of `key`
        itself. The object is replaced when `pieces` has ended, and not before: what it does after its last piece still
        meets the old object. If it raises, or anything below, the object stays as it was.

        Args:
            pieces: the buffer of one may be used again once the next is asked for.

        Raises:
            ObjectNotFound, ObjectTruncated, ObjectChanged: of a stored range, as `read` with its version raises.
        """

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        """Create an object that must not exist: of many callers at once exactly one wins. Raises ObjectExists."""

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        """Replace an object that must be `version`. Raises ObjectChanged, ObjectNotFound."""

    async def delete(self, key: str) -> None:
        """Delete an object; absent already is no error."""

    async def close(self) -> None:
        """Give back connections and threads; the bucket is not used afterwards."""
