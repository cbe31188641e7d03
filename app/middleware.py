"""What happens to every request and answer, as pure ASGI layers (`BaseHTTPMiddleware` costs twelve times as much).

Cors       headers on every answer, errors included; preflights are answered here, at once
Problems   every error becomes application/problem+json, or breaks the connection if bytes are out already
Paths      slashes tidied, encoded slashes refused
"""

import json
import logging
import re
from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import PROBLEM_MEDIA_TYPE, RangeNotSatisfiable, problem, retry_after_seconds, status_of

logger = logging.getLogger("codweb.requests")

_ALLOW_METHODS = b"GET, HEAD, OPTIONS"
_ALLOW_HEADERS = b"Accept, Accept-Encoding, Authorization, Content-Type, If-None-Match, Range"
_EXPOSE_HEADERS = (
    b"Accept-Ranges, Content-Encoding, Content-Length, Content-Location, Content-Range, ETag, Link, Retry-After, "
    b"Warning, X-COD-Metadata, X-Metadata-Mode, X-Total-Count"
)
_MAX_AGE_SECONDS = b"7200"
"""Chromium keeps a preflight no longer than this."""

RawHeaders = list[tuple[bytes, bytes]]


class Cors:
    """Cross-origin access: reading only, without credentials when any origin may."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)  # as browsers write them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        extra = self._headers(scope)
        if scope["method"] == "OPTIONS":
            return await _send_options(send, extra)

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        return await self._app(scope, receive, with_cors)

    def _headers(self, scope: Scope) -> RawHeaders:
        always = [(b"cross-origin-resource-policy", b"cross-origin"), (b"x-content-type-options", b"nosniff")]
        if self._any:
            allowed = b"*"
        else:
            always.append((b"vary", b"Origin"))
            allowed = next((value for name, value in scope["headers"] if name == b"origin"), b"")
            if allowed not in self._origins:
                return always
        return [
            *always,
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSE_HEADERS),
        ]


async def _send_options(send: Send, extra: RawHeaders) -> None:
    """A preflight, or a plain OPTIONS: what may be done here, for everybody, without looking at anything."""
    headers = [
        (b"allow", _ALLOW_METHODS),
        (b"access-control-allow-methods", _ALLOW_METHODS),
        (b"access-control-allow-headers", _ALLOW_HEADERS),
        (b"access-control-max-age", _MAX_AGE_SECONDS),
        (b"content-length", b"0"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Problems:
    """Errors as application/problem+json (RFC 9457). Once bytes are out, an error breaks the connection instead."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_started = False

        async def watched(message: Message) -> None:
            nonlocal is_started
            is_started = is_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            _log(scope, error, is_started)
            if is_started:
                raise  # the server closes the connection: a broken body never ends politely
            await _send_problem(send, error)


async def _send_problem(send: Send, error: Exception) -> None:
    document = _document(error)
    body = json.dumps(document).encode()
    status = document["status"]
    assert isinstance(status, int)
    headers = [
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    seconds = retry_after_seconds(error)
    if seconds is not None:
        headers.append((b"retry-after", str(seconds).encode()))
    if isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", f"bytes */{error.length}".encode()))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:  # the router names the methods of one of a path's routes only
        headers.append((b"allow", _ALLOW_METHODS))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_HINTS = {
    404: "Nothing is at this address. DICOMweb begins at /dicomweb, e.g. /dicomweb/studies; /docs describes it.",
    405: "This release reads only: GET and HEAD.",
}
"""What to say where the framework only knows the status."""


def _document(error: Exception) -> dict[str, object]:
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        detail = _HINTS.get(error.status_code, error.detail) if error.detail == phrase else error.detail
        return {"type": "about:blank", "title": phrase, "status": error.status_code, "detail": detail}
    return problem(error)


def _log(scope: Scope, error: Exception, is_started: bool) -> None:
    """Failures are logged by class and message, which name no patient; strangers with their trace."""
    status = error.status_code if isinstance(error, HTTPException) else status_of(error)
    if is_started:
        logger.error("an answer was broken off: %s: %s", type(error).__name__, error)
    elif status >= 500 and "detail" in (shown := _document(error)) and "error" not in shown:
        logger.error("unexpected error", exc_info=error)
    elif status >= 500:
        logger.warning("%d %s: %s", status, type(error).__name__, error)


_SLASHES = re.compile("/{2,}")


class Paths:
    """Paths as clients spell them: `//` counts as `/`, a slash at the end does not count."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or b""
            if b"%2f" in raw.lower() or b"%00" in raw:
                raise HTTPException(400, "an encoded slash or NUL cannot be part of a path")
            path: str = scope["path"]
            if "//" in path or (path.endswith("/") and path != "/"):
                scope = {**scope, "path": _SLASHES.sub("/", path).rstrip("/") or "/"}
        await self._app(scope, receive, send)
