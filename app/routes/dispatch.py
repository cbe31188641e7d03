"""Matches the retrieve resources before FastAPI does: its router would cost a small frame as much as reading it."""

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.routes import REFUSED, RETRIEVE
from app.routes.rendered import refuse_rendered
from app.services import SERVICE_PREFIX

_METHODS = ("GET", "HEAD")


class Retrieve:
    """Answers `RETRIEVE`, and hands on everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = f"{SERVICE_PREFIX}/studies/"
        # the deepest, which are asked for most, first
        self._routes = [
            Route(SERVICE_PREFIX + resource.path, resource.endpoint, methods=list(_METHODS))
            for resource in reversed(RETRIEVE)
        ] + [Route(SERVICE_PREFIX + path, refuse_rendered, methods=list(_METHODS)) for path in REFUSED]

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
