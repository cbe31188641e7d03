"""Answers: single parts with Range, multiparts, streams whose first bytes are there before the status is."""

import hashlib
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.byte_ranges import requested_range
from app.coding import is_unmodified

REVALIDATE = "private, no-cache"
"""Caches may keep it and must ask each time: series are appended to and rewritten."""

Buffer = bytes | memoryview


def entity_tag(*facts: object, weak: bool = False) -> str:
    """A quoted entity tag of the facts that decide an answer's bytes."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()
    return f'W/"{digest}"' if weak else f'"{digest}"'


def not_modified(request: Request, etag: str, headers: Mapping[str, str] | None = None) -> Response | None:
    """304 if the client holds the representation already, else None."""
    if not is_unmodified(request.headers.get("if-none-match"), etag):
        return None
    return Response(status_code=304, headers={"etag": etag, "cache-control": REVALIDATE, **(headers or {})})


def single_part(request: Request, body: Buffer, headers: Mapping[str, str]) -> Response:
    """One representation in memory, or the range of it that was asked for. Raises RangeNotSatisfiable."""
    length = len(body)
    part = requested_range(request.headers.get("range"), length)
    own = {"accept-ranges": "bytes", **headers}
    if part is None:
        return Response(body, headers=own)
    own["content-range"] = f"bytes {part.start}-{part.stop - 1}/{length}"
    return Response(memoryview(body)[part.start : part.stop], status_code=206, headers=own)


async def streamed(
    request: Request, chunks: AsyncIterator[Buffer], headers: Mapping[str, str], length: int | None, status: int = 200
) -> Response:
    """A stream. What fails before its first bytes is still an error answer; what fails later breaks the connection."""
    own = dict(headers)
    if length is not None:
        own["content-length"] = str(length)
    if request.method == "HEAD":
        return Response(status_code=status, headers=own)
    first = await anext(chunks, b"")
    return StreamingResponse(_resumed(first, chunks), status_code=status, headers=own)


async def _resumed(first: Buffer, rest: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
    yield first
    async for chunk in rest:
        yield chunk
