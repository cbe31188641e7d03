"""Matches the DICOMweb resources before FastAPI does: its router and dependencies cost more than many an answer.

FastAPI keeps the description of the searches (`app.routes.search`), and answers everything that is not matched here.
"""

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.routes import REFUSED, RETRIEVE, Endpoint, search
from app.routes.rendered import refuse_rendered
from app.services import SERVICE_PREFIX

_METHODS = ("GET", "HEAD")


class Resources:
    """Answers retrieve and search requests, and hands on everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = SERVICE_PREFIX + "/"
        # the deepest retrieve resources, which are asked for most, first
        self._routes: list[BaseRoute] = [
            *(_route(resource.path, resource.endpoint) for resource in reversed(RETRIEVE)),
            *(_route(path, search.search) for path in search.PATHS),
            *(_route(path, refuse_rendered) for path in REFUSED),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self._prefix):
            for route in self._routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    return await route.handle(scope, receive, send)
                if match is Match.PARTIAL:
                    raise HTTPException(405, headers={"allow": ", ".join(_METHODS)})
        return await self._app(scope, receive, send)


def _route(path: str, endpoint: Endpoint) -> Route:
    return Route(SERVICE_PREFIX + path, endpoint, methods=list(_METHODS))
