"""Rendered images and thumbnails: PS3.18 §10.4.1.1.3, .4. Not made yet, and refused with the reason."""

from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotAcceptable


async def refuse_rendered(request: Request) -> Response:
    """406: this release sends frames as they are stored and decodes none."""
    raise NotAcceptable(
        "Images are not rendered by this release: ask for /frames and decode them.",
        ['multipart/related; type="application/octet-stream"; transfer-syntax=*'],
    )
