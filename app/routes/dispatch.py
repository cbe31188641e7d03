"""Matches the DICOMweb resources before FastAPI does: its router and dependencies cost more than many an answer.

FastAPI keeps the description of the searches (`app.routes.search`), and answers everything that is not matched here.
"""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from app.routes import REFUSED, RETRIEVE, search
from app.routes.rendered import refuse_rendered
from app.services import SERVICE_PREFIX, services

_METHODS = ("GET", "HEAD")


class Resources:
    """Answers retrieve and search requests, and hands on everything else.

    What an endpoint raises goes to `Problems`, without passing a second framework's handlers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = SERVICE_PREFIX + "/"
        # the deepest retrieve resources, which are asked for most, first
        endpoints = [
            *((resource.path, resource.endpoint) for resource in reversed(RETRIEVE)),
            *((path, search.search) for path in search.PATHS),
            *((path, refuse_rendered) for path in REFUSED),
        ]
        self._routes = [(compile_path(SERVICE_PREFIX + path)[0], endpoint) for path, endpoint in endpoints]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self._prefix):
            for pattern, endpoint in self._routes:
                found = pattern.match(scope["path"])
                if found is None:
                    continue
                if scope["method"] not in _METHODS:
                    raise HTTPException(405, headers={"allow": ", ".join(_METHODS)})
                scope["path_params"] = found.groupdict()
                request = Request(scope, receive, send)
                with services(request).archive.courtesy:
                    answer = await endpoint(request)
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)
