"""Retrieve bulk data: PS3.18 §10.4.1.1.5. Every BulkDataURI that metadata answers name leads here."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from app.errors import RequestError
from app.multipart import Multipart, PartHead
from app.negotiation import choose_bulkdata, choose_frames
from app.responses import REVALIDATE, Buffer, entity_tag, not_modified, range_of, streamed
from app.routes.frames import frames_answer, stored_pixels
from app.services import accept_of, instance_of, root_of, services
from storage.archive.bulkdata import OpenBulkdata, parse_attribute_path

_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


async def retrieve_bulkdata(request: Request) -> Response:
    """The value at an attribute path; encapsulated pixels come as their frames."""
    key, instance_uid = instance_of(request)
    path = parse_attribute_path(request.path_params["attribute_path"].upper())
    if path is None:
        raise RequestError("bulk data are named by a tag of 8 hex digits, or tag/item/tag… inside sequences")
    accept = accept_of(request)
    archive = services(request).archive
    if await archive.bulkdata.is_encapsulated(key, instance_uid, path):
        frames = await archive.frames.open(key, instance_uid)
        numbers = range(1, frames.pixels.frame_count + 1)
        return await frames_answer(request, frames, numbers, choose_frames(accept, stored_pixels(frames), len(numbers)))
    value = await archive.bulkdata.open(key, instance_uid, path)
    form = choose_bulkdata(accept, value.media_type)
    etag = entity_tag(value.identity, path, form, weak=form.multipart)
    unchanged = not_modified(request, etag, {"vary": "Accept"})
    if unchanged is not None:
        return unchanged
    headers = {"etag": etag, "cache-control": REVALIDATE, "vary": "Accept"}
    named, location = _named(form.media_type), f"{root_of(request)}{value.path}"
    if form.multipart:
        return await _multipart(request, value, form.media_type, PartHead(named, location, value.length), headers)
    part = range_of(request, value.length, etag)
    headers |= {"content-type": named, "content-location": location, "accept-ranges": "bytes"}
    if part is None:
        return await streamed(request, value.chunks(None), headers, value.length)
    headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{value.length}"
    return await streamed(request, value.chunks(part), headers, part.length, status=206)


def _named(media_type: str) -> str:
    """Bare bytes are little-endian whatever the store holds, and say so; a document is of its own type."""
    if media_type != "application/octet-stream":
        return media_type
    return f"{media_type}; transfer-syntax={_EXPLICIT_VR_LITTLE_ENDIAN}"


async def _multipart(
    request: Request, value: OpenBulkdata, media_type: str, head: PartHead, headers: dict[str, str]
) -> Response:
    multipart = Multipart(media_type)
    headers["content-type"] = multipart.content_type
    parts = _one(head, value)
    return await streamed(request, multipart.stream(parts), headers, multipart.content_length([head]))


async def _one(head: PartHead, value: OpenBulkdata) -> AsyncIterator[tuple[PartHead, AsyncIterator[Buffer]]]:
    yield head, value.chunks(None)
