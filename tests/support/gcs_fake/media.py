"""The bytes of an object, as both APIs send them.

Source: https://cloud.google.com/storage/docs/xml-api/reference-headers (X-Goog-*), .../docs/transcoding.
"""

import asyncio
import gzip
import re

from aiohttp import web

from tests.support.gcs_fake.faults import Fault
from tests.support.gcs_fake.objects import Refused, Stored

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PIECE_BYTES = 256 * 1024


async def send_media(
    request: web.Request, stored: Stored, fault: Fault | None, *, takes_gzip: bool
) -> web.StreamResponse:
    """The whole object or one range of it, decompressed for who does not accept gzip."""
    headers = {
        "X-Goog-Generation": str(stored.generation),
        "X-Goog-Metageneration": str(stored.metageneration),
        "X-Goog-Storage-Class": stored.storage_class,
        "X-Goog-Hash": f"crc32c={stored.crc32c},md5={stored.md5}",
        "X-Goog-Stored-Content-Encoding": stored.content_encoding or "identity",
        "X-Goog-Stored-Content-Length": str(len(stored.data)),
        "Last-Modified": stored.last_modified,
        "ETag": f'"{stored.generation}"',
        "Content-Type": stored.content_type,
        "Accept-Ranges": "bytes",
    }
    is_head = request.method == "HEAD"
    if stored.content_encoding == "gzip" and not takes_gzip and "no-transform" not in stored.cache_control:
        # The range is ignored, and neither Content-Encoding nor Content-Length is sent.
        answer = web.StreamResponse(status=200, headers=headers)
        return await _send(request, answer, gzip.decompress(stored.data), fault, is_head=is_head)
    if stored.content_encoding:
        headers["Content-Encoding"] = stored.content_encoding
    status, data = 200, stored.data
    wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted is not None:
        start = int(wanted[1])
        stop = min(int(wanted[2]) + 1 if wanted[2] else len(data), len(data))
        if start >= len(data):
            raise Refused(416, "The requested range cannot be satisfied.", "requestedRangeNotSatisfiable")
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        status, data = 206, data[start:stop]
    headers["Content-Length"] = str(len(data))
    return await _send(request, web.StreamResponse(status=status, headers=headers), data, fault, is_head=is_head)


async def _send(
    request: web.Request, answer: web.StreamResponse, data: bytes, fault: Fault | None, *, is_head: bool
) -> web.StreamResponse:
    await answer.prepare(request)
    if is_head:
        return answer
    limit = len(data) if fault is None or fault.body_bytes is None else fault.body_bytes
    if fault is not None and fault.stall_seconds:
        await answer.write(data[: len(data) // 2])
        await asyncio.sleep(fault.stall_seconds)
        data = data[len(data) // 2 :]
    for start in range(0, min(limit, len(data)), _PIECE_BYTES):
        await answer.write(data[start : min(start + _PIECE_BYTES, limit)])
    if limit < len(data):
        await asyncio.sleep(0.05)  # let what was written leave before the connection goes
        if request.transport is not None:
            request.transport.abort()
        return answer
    await answer.write_eof()
    return answer
