"""Search: PS3.18 §10.6, the six QIDO-RS resources."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from app.coding import SMALLEST_COMPRESSED_BYTES, compress
from app.negotiation import choose_search
from app.query import SearchLimits, decode_query, parse_search
from app.services import accept_of, coding_of, root_of, series_of, services, study_of
from storage.catalogue.query import Level
from storage.links import fill_root

router = APIRouter(tags=["Search (QIDO-RS)"])

_RESPONSES: dict[int | str, dict[str, object]] = {
    200: {"description": "An array of DICOM JSON objects", "content": {"application/dicom+json": {}}},
    400: {"description": "A malformed key or value", "content": {"application/problem+json": {}}},
}

_LEVELS = {"studies": Level.STUDY, "series": Level.SERIES, "instances": Level.INSTANCE}

# Read by our own parser, which knows repeated keys, hex tags and keywords; declared here for the documentation.
Limit = Annotated[str | None, Query(description="Most results; 0 asks for none.")]
Offset = Annotated[str | None, Query(description="Results to skip.")]
IncludeField = Annotated[str | None, Query(description="Attributes to add: keywords or tags, comma-separated, or all.")]


@router.get("/studies", responses=_RESPONSES)
async def search_for_studies(
    request: Request, limit: Limit = None, offset: Offset = None, includefield: IncludeField = None
) -> Response:
    """Studies that match the keys of the query, newest first."""
    return await search(request)


@router.get("/series", responses=_RESPONSES)
async def search_for_series(
    request: Request, limit: Limit = None, offset: Offset = None, includefield: IncludeField = None
) -> Response:
    """Series of all studies."""
    return await search(request)


@router.get("/instances", responses=_RESPONSES)
async def search_for_instances(
    request: Request, limit: Limit = None, offset: Offset = None, includefield: IncludeField = None
) -> Response:
    """Instances of all studies; name a study or series where you can."""
    return await search(request)


@router.get("/studies/{study_uid}/series", responses=_RESPONSES)
async def search_for_series_of_study(
    request: Request, study_uid: str, limit: Limit = None, offset: Offset = None, includefield: IncludeField = None
) -> Response:
    """Series of one study, by SeriesNumber; an unknown study has none."""
    return await search(request)


@router.get("/studies/{study_uid}/instances", responses=_RESPONSES)
async def search_for_instances_of_study(
    request: Request, study_uid: str, limit: Limit = None, offset: Offset = None, includefield: IncludeField = None
) -> Response:
    """Instances of one study."""
    return await search(request)


@router.get("/studies/{study_uid}/series/{series_uid}/instances", responses=_RESPONSES)
async def search_for_instances_of_series(
    request: Request,
    study_uid: str,
    series_uid: str,
    limit: Limit = None,
    offset: Offset = None,
    includefield: IncludeField = None,
) -> Response:
    """Instances of one series, by InstanceNumber."""
    return await search(request)


async def search(request: Request) -> Response:
    """Answer any of the six: the path says which level, and inside of what."""
    level = _LEVELS[request.url.path.rstrip("/").rsplit("/", 1)[-1]]
    study_uid = study_of(request) if "study_uid" in request.path_params else None
    series_uid = series_of(request).series_uid if "series_uid" in request.path_params else None
    return await _answer(request, level, study_uid, series_uid)


PATHS = tuple(route.path for route in router.routes if isinstance(route, APIRoute))
"""Of the six resources, below the service root."""


async def _answer(request: Request, level: Level, study_uid: str | None, series_uid: str | None) -> Response:
    media_type = choose_search(accept_of(request))
    settings = services(request).settings
    limits = SearchLimits(default_limit=settings.search_default_limit, max_limit=settings.search_max_limit)
    parsed = parse_search(level, study_uid, series_uid, decode_query(request.scope["query_string"]), limits)
    page = await services(request).archive.searches.search(parsed.query)
    warnings = [*parsed.warnings, *page.warnings]
    if page.remaining:
        warnings.append(f"There are {page.remaining} additional results that can be requested")
    headers = {"vary": "Accept, Accept-Encoding", "cache-control": "private, no-cache", "content-type": media_type}
    if page.rows or page.remaining or not parsed.query.offset:  # beyond the end nobody has counted
        headers["x-total-count"] = str(parsed.query.offset + len(page.rows) + page.remaining)
    if warnings:
        headers["warning"] = ", ".join(f'299 codweb "{_quotable(warning)}"' for warning in warnings)
    if not page.rows and settings.search_empty_status == 204:
        del headers["content-type"]
        return Response(status_code=204, headers=headers)
    body = fill_root(b"[" + b",".join(page.rows) + b"]", root_of(request))
    coding = coding_of(request)
    if coding != "identity" and len(body) >= SMALLEST_COMPRESSED_BYTES:
        body = compress(body, coding)
        headers["content-encoding"] = coding
    return Response(body, headers=headers)


def _quotable(text: str) -> str:
    """Text for a quoted-string: printable ASCII without quotes and backslashes."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)
