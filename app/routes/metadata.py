"""Retrieve metadata: PS3.18 §10.4.1.1.2, at study, series and instance level."""

from starlette.requests import Request
from starlette.responses import Response

from app.negotiation import choose_metadata
from app.responses import REVALIDATE, PiecesResponse, in_thread, not_modified, streamed
from app.services import accept_of, coding_of, instance_of, location_of, root_of, series_of, services, study_of
from storage.archive.metadata import MetadataBody
from storage.extrapolation import MetadataMode
from storage.series_index.splice import Coding

_VARY = "Accept, Accept-Encoding"
_JOINED_BYTES = 256 * 1024
"""Below this one write of a joined body is faster than several."""


async def retrieve_study_metadata(request: Request) -> Response:
    """The metadata of all instances of a study."""
    media_type = choose_metadata(accept_of(request))
    archive, mode, coding = services(request).archive, services(request).settings.studies_metadata, coding_of(request)
    keys = await archive.series_of_study(study_of(request))
    body = await archive.metadata.of_series(keys, mode=mode, coding=coding, root=root_of(request))
    return await _answer(request, body, media_type, mode, coding)


async def retrieve_series_metadata(request: Request) -> Response:
    """The metadata of all instances of a series."""
    media_type = choose_metadata(accept_of(request))
    archive, mode, coding = services(request).archive, services(request).settings.series_metadata, coding_of(request)
    body = await archive.metadata.of_series([series_of(request)], mode=mode, coding=coding, root=root_of(request))
    return await _answer(request, body, media_type, mode, coding)


async def retrieve_instance_metadata(request: Request) -> Response:
    """The metadata of one instance: always full, and an array all the same."""
    media_type = choose_metadata(accept_of(request))
    key, instance_uid = instance_of(request)
    coding = coding_of(request)
    body = await services(request).archive.metadata.of_instance(key, instance_uid, coding=coding, root=root_of(request))
    return await _answer(request, body, media_type, "full", coding)


async def _answer(
    request: Request, body: MetadataBody, media_type: str, mode: MetadataMode, coding: Coding
) -> Response:
    headers = {
        "content-location": location_of(request), "vary": _VARY,
        "x-cod-metadata": "deep" if body.is_deep else "quick", "x-metadata-mode": mode,
    }  # fmt: skip
    if body.is_deep:
        unchanged = not_modified(request, body.etag, headers)
        if unchanged is not None:
            return unchanged
        headers |= {"etag": body.etag, "cache-control": REVALIDATE}
    else:  # a better answer is being made
        headers["cache-control"] = "no-store"
    if coding != "identity":
        headers["content-encoding"] = coding
    if mode == "extrapolate":
        headers["warning"] = '299 codweb "Some attributes are extrapolated from a sample of instances."'
    headers["content-type"] = media_type
    if body.chunks is not None:
        return await streamed(request, in_thread(body.chunks), headers, None)
    if body.length > _JOINED_BYTES:
        return PiecesResponse(body.parts, headers)
    return Response(b"".join(body.parts), headers=headers)
