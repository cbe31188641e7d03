"""What the parts of a multipart upload are: pure planning, by the rules of S3.

A part is new bytes, or a range that the service copies. Source: Amazon S3 User Guide, "Multipart upload limits": at most
10,000 parts, each but the last at least 5 MiB, none above 5 GiB (UploadPartCopy too).
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from storage.bucket.base import Piece, StoredRange
from storage.bucket.pieces import Fetch
from storage.ranges import ByteRange

MIB = 1 << 20

PART_BYTES = 8 * MIB
"""Of new bytes; also the longest body that is written by a single request."""
LATER_PART_BYTES = 64 * MIB
EARLY_PARTS = 4000
"""So many parts of the first size (31 GiB, all of one size for the services that ask it), then longer ones (375 GiB)."""

LEAST_BYTES = 5 * MIB
"""S3's own bound: a stored range below it is fetched and sent."""
COPY_BYTES = 256 * MIB
"""Of a range that is copied by one request: its answer must begin in time, also where disks turn (`read_seconds`)."""
LATER_COPY_BYTES = 5 * 1024 * MIB

Part = bytes | StoredRange


async def parts_of(pieces: AsyncIterator[Piece], fetch: Fetch) -> AsyncIterator[Part]:
    """Pieces as parts; at least one, which may be empty. A piece's buffer may be reused.

    A stored range is copied but for what `fetch` brings of it: its beginning, when the new bytes before it are too few
    for a part; all of it, when what would be left is too short for one. Of each range that is less than 10 MiB (in the
    first 4,000 parts; of an upload of very many parts less than 128 MiB).

    Args:
        fetch: asked for an empty range too: only its answer tells that the object is the named one.
    """
    new = _NewBytes()
    async for piece in pieces:
        if not isinstance(piece, StoredRange):
            for part in new.add(piece):
                yield part
            continue
        begin, rest = _divided(piece, new.length, new.number)
        if begin is not None:
            async for chunk in fetch(begin):
                for part in new.add(chunk):
                    yield part
        if rest is not None:
            if new.length > 0:
                yield new.take()
            for copied in _copies(rest, new.number):
                new.number += 1
                yield copied
    if new.length > 0 or new.number == 1:
        yield new.take()


class _NewBytes:
    """What is gathered for the next part, and its number."""

    __slots__ = ("_gathered", "number")

    def __init__(self) -> None:
        self.number = 1
        self._gathered = bytearray()

    @property
    def length(self) -> int:
        return len(self._gathered)

    def add(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Take over a chunk. The parts that are full: never the last one, more bytes follow each."""
        view = memoryview(chunk)
        while len(view) > 0:
            size = PART_BYTES if self.number <= EARLY_PARTS else LATER_PART_BYTES
            if len(self._gathered) == size:
                yield self.take()
                continue
            fitting = view[: size - len(self._gathered)]
            self._gathered += fitting
            view = view[len(fitting) :]

    def take(self) -> bytes:
        part = bytes(self._gathered)
        self._gathered = bytearray()
        self.number += 1
        return part


def _divided(stored: StoredRange, gathered: int, number: int) -> tuple[StoredRange | None, StoredRange | None]:
    """What of a range is fetched, at its beginning, and what is copied.

    Args:
        gathered: new bytes before it that are no part yet; `number` is that of their part.
    """
    missing = max(0, _least(number) - gathered) if gathered > 0 else 0
    if stored.range.length - missing < _least(number + 1):
        return stored, None
    at = stored.range.start + missing
    begin = replace(stored, range=ByteRange(stored.range.start, at)) if missing > 0 else None
    return begin, replace(stored, range=ByteRange(at, stored.range.stop))


def _copies(stored: StoredRange, number: int) -> Iterator[StoredRange]:
    """A range as parts from `number` on; it is long enough for one."""
    position, stop = stored.range.start, stored.range.stop
    while position < stop:
        rest = stop - position
        length = min(rest, COPY_BYTES if number <= EARLY_PARTS else LATER_COPY_BYTES)
        if 0 < rest - length < _least(number + 1):  # the last one would be too short: it gets some of this one's
            length = rest - _least(number + 1)
        yield replace(stored, range=ByteRange(position, position + length))
        position += length
        number += 1


def _least(number: int) -> int:
    """The shortest part of this number, the last one but for its end: parts must suffice for the longest object."""
    return LEAST_BYTES if number <= EARLY_PARTS else LATER_PART_BYTES
