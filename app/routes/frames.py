"""Retrieve frames: PS3.18 §10.4.1.1.6 (Pixel Data Resources). Stored bytes, never decoded."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from app.address import parse_frame_list
from app.errors import NotAcceptable
from app.multipart import Multipart, PartHead
from app.negotiation import FrameForm, StoredPixels, choose_frames
from app.responses import (
    REVALIDATE,
    Buffer,
    PiecesResponse,
    described,
    entity_tag,
    not_modified,
    remembered_tag,
    single_part,
    streamed,
)
from app.services import accept_of, asked_of, instance_of, reader_of, services
from storage.archive.frames import OpenFrames

_HELD_BYTES = 8 << 20
"""Frames up to this are read at once; more are streamed."""
_COPIED_BYTES = 64 * 1024
"""Bodies up to this are joined into one write; larger ones are cheaper to write in pieces than to copy."""


async def retrieve_frames(request: Request) -> Response:
    """The frames of the list, in its order, repeats kept."""
    key, instance_uid = instance_of(request)
    numbers = parse_frame_list(request.path_params["frame_list"])
    asked = asked_of(request)
    accept = asked.accept
    # metadata only, usually mapped
    frames = await services(request).archive.frames.open(key, instance_uid, reader=reader_of(request))
    pixels = frames.pixels
    name = (pixels.transfer_syntax_uid, pixels.is_native, pixels.is_big_endian, len(numbers) == 1)
    form = asked.forms.get(name)
    if form is None:
        form = choose_frames(accept, stored_pixels(frames), len(numbers))  # 406 before any pixel is read
        asked.forms[name] = form
    if pixels.is_video and any(number > 1 for number in numbers):
        raise NotAcceptable("a video is one stream: ask for frame 1 to get all of it")
    return await frames_answer(request, frames, numbers, form)


async def retrieve_all_frames(request: Request) -> Response:
    """All frames of an instance, as one multipart (an extension that other servers have too)."""
    key, instance_uid = instance_of(request)
    accept = accept_of(request)
    frames = await services(request).archive.frames.open(key, instance_uid)
    numbers = range(1, frames.pixels.frame_count + 1)
    return await frames_answer(request, frames, numbers, choose_frames(accept, stored_pixels(frames), len(numbers)))


def stored_pixels(frames: OpenFrames) -> StoredPixels:
    """What negotiation asks about an instance."""
    pixels = frames.pixels
    return StoredPixels(pixels.transfer_syntax_uid, pixels.is_native, pixels.is_big_endian)


async def frames_answer(
    request: Request, frames: OpenFrames, numbers: "tuple[int, ...] | range", form: FrameForm
) -> Response:
    """Read the frames and put them into the form that was chosen."""
    etag = _tag(frames, numbers, form)
    unchanged = not_modified(request, etag, {"vary": "Accept"})
    if unchanged is not None:
        return unchanged
    indices = [number - 1 for number in numbers]
    size = await frames.size_of(indices)  # 404 for a frame that is not there, before any pixel is read
    base = f"{asked_of(request).root}{frames.path}/frames/"
    headers = {"etag": etag, "cache-control": REVALIDATE, "vary": "Accept"}
    if not form.multipart:
        headers |= {"content-type": form.part_content_type, "content-location": f"{base}{numbers[0]}"}
        if request.method == "HEAD":
            return described({"accept-ranges": "bytes", **headers}, None)
        before = frames.identity
        [payload] = await frames.read(indices)
        if frames.identity != before:  # the series changed meanwhile: these bytes are of the new one
            headers["etag"] = _tag(frames, numbers, form)
        return single_part(request, payload, headers)
    multipart = Multipart(form.media_type, form.transfer_syntax_uid)
    headers["content-type"] = multipart.content_type
    if request.method == "HEAD":
        return described(headers, None)
    if size > _HELD_BYTES:
        stream = multipart.stream(_parts(frames, numbers, form, base))
        return await streamed(request, stream, headers, None)
    before = frames.identity
    payloads = await frames.read(indices)
    if frames.identity != before:
        headers["etag"] = _tag(frames, numbers, form)
    parts = [
        (PartHead(form.part_content_type, f"{base}{number}", len(payload)), payload)
        for number, payload in zip(numbers, payloads, strict=True)
    ]
    is_copied = size <= _COPIED_BYTES
    return PiecesResponse([multipart.join_small(parts)] if is_copied else multipart.pieces(parts), headers)


def _tag(frames: OpenFrames, numbers: "tuple[int, ...] | range", form: FrameForm) -> str:
    """The entity tag of the frames as they are known now: reading may find the tar replaced, and read the new one."""
    facts = (*frames.identity, tuple(numbers), form.multipart, form.media_type, form.transfer_syntax_uid)
    tag = remembered_tag if len(numbers) == 1 else entity_tag
    return tag(*facts, weak=form.multipart)


async def _parts(
    frames: OpenFrames, numbers: "tuple[int, ...] | range", form: FrameForm, base: str
) -> AsyncIterator[tuple[PartHead, AsyncIterator[Buffer]]]:
    """The parts of a body too large to hold."""
    count = 0
    async for payload in frames.read_in_batches([number - 1 for number in numbers]):
        yield PartHead(form.part_content_type, f"{base}{numbers[count]}", len(payload)), _once(payload)
        count += 1


async def _once(payload: Buffer) -> AsyncIterator[Buffer]:
    yield payload
