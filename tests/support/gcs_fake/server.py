"""The fake's HTTP server: an event loop in a thread of its own, on a free port of this machine."""

import asyncio
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from types import TracebackType
from urllib.parse import unquote

from aiohttp import web

from tests.support.gcs_fake.faults import Chooser, Fault, Faults
from tests.support.gcs_fake.json_api import JsonApi, conditions_of
from tests.support.gcs_fake.media import send_media
from tests.support.gcs_fake.objects import FakeObjects, Preconditions, Refused

_JSON_API = ("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/")
_KEPT_BYTES = 4096
_XML_CODES = {
    "No such object": "NoSuchKey",
    "The specified bucket does not exist.": "NoSuchBucket",
    "The requested range cannot be satisfied.": "InvalidRange",
    "Bucket is a requester pays bucket but no user project provided.": "UserProjectMissing",
}
"""Source: https://cloud.google.com/storage/docs/xml-api/reference-status."""


class GcsFake:
    """Start with `with`; `endpoint` is its address, `objects` what it holds.

    Attributes:
        requests: method and raw path with query of every request, in order.
        headers, bodies: of the same requests; of a body its beginning.
        needs_project: refuse requests that name no project to pay (requester pays).
        drops_accept_encoding: behave as behind a proxy that does not pass on which codings the client takes.
    """

    def __init__(self) -> None:
        self.objects = FakeObjects()
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.needs_project = False
        self.drops_accept_encoding = False
        self.endpoint = ""
        self._faults = Faults()
        self._json = JsonApi(self.objects)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gcs-fake", daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> "GcsFake":
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._call(self._start()).result(10)}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def open_sessions(self) -> int:
        """Resumable uploads that are neither finished nor cancelled."""
        return self._json.open_sessions

    def fail(self, chooser: Chooser, fault: Fault, times: int = 1) -> None:
        """The next `times` requests that `chooser` takes meet the fault."""
        self._faults.add(chooser, fault, times)

    def fail_reads(self, fault: Fault, times: int = 1) -> None:
        """As `fail`, for requests for bytes by the XML API."""
        self.fail(lambda request: not request.path.startswith(_JSON_API), fault, times)

    def heal(self) -> None:
        """Forget all faults, and the requests so far."""
        self.needs_project = self.drops_accept_encoding = False
        self._faults.clear()
        self.requests.clear()
        self.headers.clear()
        self.bodies.clear()

    def _call(self, coroutine: "Awaitable[int | None]") -> "Future[int | None]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type] # always a coroutine

    async def _start(self) -> int:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path))
        self.headers.append(dict(request.headers))
        body = await request.read()
        self.bodies.append(body[:_KEPT_BYTES])
        fault = self._faults.take(request)
        if fault is not None:
            if fault.before is not None:
                fault.before()
            if fault.reset:
                return await self._hang_up(request)
            if fault.status is not None:
                return web.Response(status=fault.status, headers=fault.headers, text=fault.body)
        try:
            if self.needs_project and not _names_payer(request):
                message = "Bucket is a requester pays bucket but no user project provided."
                raise Refused(400, message, "required")
            answer = await self._answer(request, fault)
        except Refused as refused:
            answer = _refusal(request, refused)
        if fault is not None and fault.swallow:
            return await self._hang_up(request)
        return answer

    async def _hang_up(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _answer(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        """JSON API below /storage/v1, /download and /upload; every other path is the XML API's."""
        # `%2F` in a name is not a slash of the path, so the raw one is split.
        parts = [unquote(part) for part in request.raw_path.partition("?")[0].split("/")[1:]]
        method = request.method
        match parts:
            case ["upload", "storage", "v1", "b", bucket, "o"]:
                if method == "POST":
                    return await self._json.insert(request, bucket)
                return await self._json.proceed(request) if method == "PUT" else self._json.cancel(request)
            case ["storage", "v1", "b", bucket, "o"]:
                return self._json.list(request, bucket)
            case ["storage", "v1", "b", bucket, "o", name] | ["download", "storage", "v1", "b", bucket, "o", name]:
                generation = int(request.query["generation"]) if "generation" in request.query else None
                conditions = conditions_of(request)
                if method == "GET" and request.query.get("alt") == "media":
                    stored = self.objects.get(bucket, name, generation, conditions)
                    return await send_media(request, stored, fault, takes_gzip=self._takes_gzip(request))
                if method == "GET":
                    return self._json.describe(bucket, name, generation, conditions)
                if method == "PATCH":
                    return await self._json.patch(request, bucket, name)
                self.objects.delete(bucket, name, generation, conditions)
                return web.Response(status=204)
            case [bucket, *rest] if method in ("GET", "HEAD") and rest:
                return await self._xml(request, bucket, "/".join(rest), fault)
        raise Refused(400, f"the fake does not know {method} {request.raw_path}", "invalid")

    def _takes_gzip(self, request: web.Request) -> bool:
        return "gzip" in request.headers.get("Accept-Encoding", "") and not self.drops_accept_encoding

    async def _xml(self, request: web.Request, bucket: str, name: str, fault: Fault | None) -> web.StreamResponse:
        """Reads by the XML API. Source: https://cloud.google.com/storage/docs/xml-api/get-object-download."""
        expected = request.headers.get("x-goog-if-generation-match")
        conditions = Preconditions(generation_match=None if expected is None else int(expected))
        generation = int(request.query["generation"]) if "generation" in request.query else None
        stored = self.objects.get(bucket, name, generation, conditions)
        return await send_media(request, stored, fault, takes_gzip=self._takes_gzip(request))


def _names_payer(request: web.Request) -> bool:
    """The address of an upload's session carries the project that it was begun with."""
    return any(name in request.query for name in ("userProject", "upload_id")) or (
        "X-Goog-User-Project" in request.headers
    )


def _refusal(request: web.Request, refused: Refused) -> web.Response:
    """JSON or XML as the API in question speaks, and plain words for who asked the JSON API for bytes."""
    if refused.status == 304:
        return web.Response(status=304)
    if request.query.get("alt") == "media":
        return web.Response(status=refused.status, text=refused.message)
    if not request.path.startswith(_JSON_API):
        code = _XML_CODES.get(refused.message.partition(":")[0], "InvalidArgument")
        message = "The specified key does not exist." if code == "NoSuchKey" else refused.message
        text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return web.Response(status=refused.status, text=text, content_type="application/xml")
    error = {"message": refused.message, "domain": "global", "reason": refused.reason}
    return web.json_response(
        {"error": {"code": refused.status, "message": refused.message, "errors": [error]}}, status=refused.status
    )
