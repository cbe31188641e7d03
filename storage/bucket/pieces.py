"""What uploads of every bucket do with their pieces: neighbouring stored ranges are one; some are fetched after all."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from storage.bucket.base import Piece, StoredRange
from storage.bucket.object_key import check_key
from storage.ranges import ByteRange

Fetch = Callable[[StoredRange], AsyncIterator[bytes | memoryview]]
"""Reads a stored range as `Bucket.stream` reads it."""


async def joined(pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """The same bytes; a stored range that goes on where the one before it ends is no piece of its own.

    A caller may name a thousand neighbours one by one, and none of them costs a request.

    Raises:
        ValueError: the key of a stored range that is none.
    """
    held: StoredRange | None = None
    async for piece in pieces:
        if not isinstance(piece, StoredRange):
            if held is not None:
                yield held
                held = None
            yield piece
            continue
        check_key(piece.key)
        if held is None:
            held = piece
        elif (held.key, held.version, held.range.stop) == (piece.key, piece.version, piece.range.start):
            held = replace(held, range=ByteRange(held.range.start, piece.range.stop))
        else:
            yield held
            held = piece
    if held is not None:
        yield held


async def fetched(pieces: AsyncIterator[Piece], fetch: Fetch) -> AsyncIterator[bytes | memoryview]:
    """The same bytes, all of them new: for a store that copies no ranges."""
    async for piece in pieces:
        if isinstance(piece, StoredRange):
            async for chunk in fetch(piece):
                yield chunk
        else:
            yield piece
