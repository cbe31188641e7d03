"""The application: settings in, ASGI app out. Importing this opens nothing; `uvicorn app.main:app` works lazily."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.middleware import Cors, Paths, Problems
from app.processes.crew import Crew
from app.routes import RETRIEVE, Resource, search, service
from app.routes.dispatch import Resources
from app.services import SERVICE_PREFIX, Services
from app.settings import Settings
from app.upkeep import keep_up
from storage.archive import Archive
from storage.bucket import Bucket, open_bucket
from storage.errors import StorageError
from storage.extrapolation import Extrapolation, tags_of_keywords

logger = logging.getLogger("codweb")


def create_app(settings: Settings, bucket: Bucket | None = None, *, crew: Crew | None = None) -> FastAPI:
    """The server for one datastore.

    Args:
        bucket: read this instead of `settings.datastore` (tests, embedding); deep builds then run in this process.
        crew: the other processes of the same server; one of them syncs and deepens, and this one does not.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        archive = open_archive(settings, bucket)
        await _reach(archive)
        if crew is None:
            upkeep = asyncio.create_task(keep_up(archive, settings.sync_seconds))
            archive.deepening.start()
        else:
            upkeep = None
            archive.shelf.on_opened = crew.tell_opened
        app.state.services = Services(settings, archive, upkeep, crew or Crew.of_one())
        try:
            yield
        finally:
            if upkeep is not None:
                upkeep.cancel()
                with suppress(asyncio.CancelledError):
                    await upkeep
            await archive.close()

    app = _Application(
        title="codweb", version=__version__, description=_DESCRIPTION, lifespan=lifespan, telemetry=_SILENT
    )
    app.include_router(service.router)
    app.include_router(search.router, prefix=SERVICE_PREFIX)
    app.front = Cors(Problems(Paths(Resources(AsyncExitStackMiddleware(app.router)))), origins=settings.cors_origins)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI documents this way of extending it
    return app


class _Application(FastAPI):
    """FastAPI behind our own front, not the other way round: its layers cost as much as finding a frame.

    What the front does not answer itself (the service's own routes, the documentation) goes on to FastAPI's router.
    """

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        scope["app"] = self
        await self.front(scope, receive, send)


def open_archive(settings: Settings, bucket: Bucket | None = None) -> Archive:
    """The archive that settings describe. Raises StorageUnavailable for a folder that is not there."""
    rules = Extrapolation(
        study_tags=tags_of_keywords(settings.studies_extrapolated_tags),
        series_tags=tags_of_keywords(settings.series_extrapolated_tags),
        rule=settings.extrapolate_rule,
    )
    return Archive(
        bucket if bucket is not None else open_bucket(settings.datastore, options=settings.bucket_options),
        settings.state_dir,
        root=settings.public_url or settings.local_url + SERVICE_PREFIX,
        rules=rules,
        revalidate_seconds=settings.revalidate_seconds,
        deepen=settings.deepen,
        own_process=bucket is None,
        read_ahead=settings.read_ahead_options,
        bucket_options=settings.bucket_options,
        share=settings.share_indexes,
        workers=settings.workers,
    )


async def _reach(archive: Archive) -> None:
    """Make a bucket on the network ready; one that does not answer now may later, and then it is served."""
    if archive.bucket.cheap_head:
        return
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            await archive.reach()
    except StorageError as error:
        logger.warning("%s cannot be read now: %s", archive.bucket.url, error)
    except TimeoutError:
        logger.warning("%s does not answer within %d seconds", archive.bucket.url, _REACH_SECONDS)


def _openapi(app: FastAPI) -> dict[str, Any]:  # Any: an OpenAPI document
    """The documentation of FastAPI's routes, and of the plain ones."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for resource in RETRIEVE:
            path = SERVICE_PREFIX + resource.path.replace(":path", "")
            schema["paths"][path] = {"get": _operation(resource, path)}
        app.openapi_schema = schema
    return app.openapi_schema


def _operation(resource: Resource, path: str) -> dict[str, Any]:  # Any: a part of an OpenAPI document
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return {
        "tags": ["Retrieve (WADO-RS)"],
        "summary": resource.summary,
        "operationId": resource.endpoint.__name__,
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {
            "200": {"description": resource.summary, "content": {resource.media_type: {}}},
            **{status: {"description": text} for status, text in _FAILURES.items()},
        },
    }


_REACH_SECONDS = 5
_DESCRIPTION = "DICOMweb (QIDO-RS, WADO-RS) straight from Cloud Optimized DICOM."
_SILENT: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own telemetry tells paths, which name patients' studies, and costs 25 µs a request to find out it is off."""
_FAILURES = {
    "400": "Malformed path or parameter",
    "404": "Not in the datastore",
    "406": "No acceptable media type or transfer syntax",
    "500": "Stored bytes and metadata disagree",
    "503": "The bucket does not answer, or the series is being rewritten; see Retry-After",
}


def __getattr__(name: str) -> FastAPI:
    """`app.main:app` for uvicorn: made from the environment when it is asked for, not on import."""
    if name == "app":
        return create_app(Settings())
    raise AttributeError(name)
