"""Answers: single parts with Range, multiparts, streams whose first bytes are there before the status is."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.byte_ranges import requested_range
from app.coding import is_unmodified
from storage.ranges import ByteRange

REVALIDATE = "private, no-cache"
"""Caches may keep it and must ask each time: series are appended to and rewritten."""

Buffer = bytes | memoryview

_TURN_BYTES = 256 * 1024
"""Of a stream, after which others have their turn."""
_PIECE_BYTES = 16 * 1024
"""What a smaller piece counts for."""


def entity_tag(*facts: Hashable, weak: bool = False) -> str:
    """A quoted entity tag of the facts that decide an answer's bytes."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()
    return f'W/"{digest}"' if weak else f'"{digest}"'


remembered_tag = lru_cache(maxsize=4096)(entity_tag)
"""The same, for few and short facts that come again: frames that a viewer asks for one by one."""


def not_modified(request: Request, etag: str, headers: Mapping[str, str] | None = None) -> Response | None:
    """304 if the client holds the representation already, else None."""
    if not is_unmodified(_header(request, b"if-none-match"), etag):
        return None
    return Response(status_code=304, headers={"etag": etag, "cache-control": REVALIDATE, **(headers or {})})


def range_of(request: Request, length: int, etag: str) -> ByteRange | None:
    """The range to send of a representation of `length` bytes; None: all of it.

    Only GET knows ranges, and `If-Range` asks for one only while the representation is still the same: half of one
    file followed by half of another is a wrong picture (RFC 9110 §14.2, §13.1.5). Raises RangeNotSatisfiable.
    """
    asked = _header(request, b"range")
    if asked is None or request.method != "GET":
        return None
    condition = _header(request, b"if-range")
    if condition is not None and (condition != etag or etag.startswith("W/")):
        return None
    return requested_range(asked, length)


def _header(request: Request, wanted: bytes) -> str | None:
    """The first line of a header; `Request.headers` decodes them all."""
    for name, value in request.scope["headers"]:
        if name == wanted:
            decoded: str = value.decode("latin-1")
            return decoded
    return None


def single_part(request: Request, body: Buffer, headers: Mapping[str, str]) -> Response:
    """One representation in memory, or the range of it that was asked for; `headers` hold its etag.

    Raises RangeNotSatisfiable.
    """
    length = len(body)
    part = range_of(request, length, headers["etag"])
    own = {"accept-ranges": "bytes", **headers}
    if part is None:
        return PiecesResponse([body], own)
    own["content-range"] = f"bytes {part.start}-{part.stop - 1}/{length}"
    return PiecesResponse([memoryview(body)[part.start : part.stop]], own, status=206)


def described(headers: Mapping[str, str], length: int | None, status: int = 200) -> Response:
    """The answer to HEAD, without reading what it describes; a length that only reading would tell is left out.

    Source: RFC 9110 §9.3.2.
    """
    answer = Response(status_code=status, headers=headers)
    del answer.headers["content-length"]  # of the body that is not sent
    if length is not None:
        answer.headers["content-length"] = str(length)
    return answer


class PiecesResponse(Response):
    """A body in memory, in pieces that are written one after the other instead of being joined first.

    The hottest answers are of this kind, so it takes header names in lower case and does without Starlette's own way of
    filling a response.
    """

    def __init__(self, pieces: Sequence[Buffer], headers: Mapping[str, str], status: int = 200) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self._pieces = pieces
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.raw_headers.append((b"content-length", b"%d" % sum(map(len, pieces))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self._pieces[-1] if self._pieces else b""})


async def streamed(
    request: Request, chunks: AsyncIterator[Buffer], headers: Mapping[str, str], length: int | None, status: int = 200
) -> Response:
    """A stream. What fails before its first bytes is still an error answer; what fails later breaks the connection."""
    own = dict(headers)
    if request.method == "HEAD":
        return described(own, length, status)
    if length is not None:
        own["content-length"] = str(length)
    first = await anext(chunks, b"")
    return StreamingResponse(_resumed(first, chunks), status_code=status, headers=own)


async def _resumed(first: Buffer, rest: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
    yield first
    unheard = 0
    async for chunk in rest:
        # Neither a folder's chunks nor writing to a client that has gone ever wait: without this the loop would stand
        # still until the stream ends, and nobody could notice that it is not wanted any more.
        unheard += max(len(chunk), _PIECE_BYTES)
        if unheard >= _TURN_BYTES:
            unheard = 0
            await asyncio.sleep(0)
        yield chunk


async def in_thread(chunks: Iterator[Buffer]) -> AsyncIterator[Buffer]:
    """Chunks whose making is too much work for the event loop."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
