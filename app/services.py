"""What a route needs and where it finds it: the archive, the settings, and what the request says of itself."""

import asyncio
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from starlette.requests import Request

from app.accept import Accept, parse_accept
from app.address import path_uid, service_root
from app.coding import choose_coding
from app.errors import NotAcceptable
from app.processes.crew import Crew
from app.query import decode_query
from app.settings import Settings
from storage.archive import Archive
from storage.keys import SeriesKey
from storage.series_index.splice import Coding

SERVICE_PREFIX = "/dicomweb"

_READER_CHARS = 512
_PORTS = re.compile(r"(?<=[0-9\]]):[0-9]{1,5}(?=[\s,;\"]|$)")
"""Ports of forwarded addresses: some proxies name the connection's, and a viewer has six of them."""


@dataclass(slots=True)
class Services:
    """One server's parts, put into `app.state` by the lifespan."""

    settings: Settings
    archive: Archive
    upkeep: asyncio.Task[None] | None
    """Keeps the catalogue up to date; ends after the first sync if none is to follow. None: another process does it."""
    crew: Crew


def services(request: Request) -> Services:
    """The services of the app that a request came to."""
    found = request.app.state.services
    assert isinstance(found, Services)  # put there by the lifespan, before any request
    return found


def root_of(request: Request) -> str:
    """The service root by which the client reached this server. Raises UnknownHost."""
    settings = services(request).settings
    server = request.scope.get("server")
    return _service_root(
        settings,
        str(request.scope.get("scheme", "http")),
        _addressing_headers(request),
        request.client.host if request.client is not None and settings.trusted_proxies else None,
        server[1] if server is not None else None,
    )


@lru_cache(maxsize=256)
def _service_root(
    settings: Settings, scheme: str, headers: tuple[tuple[str, str], ...], peer: str | None, port: int | None
) -> str:
    """Remembered: clients come by few addresses, and each answer has a link."""
    return service_root(
        scheme,
        dict(headers),
        peer,
        port,
        prefix=SERVICE_PREFIX,
        public_url=settings.public_url or None,
        trusted_proxies=settings.proxy_networks,
        allowed_hosts=settings.allowed_hosts,
    )


def reader_of(request: Request) -> str:
    """Names the client, so that its reads are looked at together: its address and User-Agent. Empty: nobody asks.

    Only a guess: clients that share one are read ahead of as one, which costs a little and shows nothing.
    """
    if not services(request).archive.reads_ahead or request.client is None:
        return ""
    host = request.client.host
    forwarded = ""
    if services(request).settings.trusted_proxies and _is_proxy(services(request).settings, host):
        forwarded = ",".join(request.headers.getlist("forwarded") or request.headers.getlist("x-forwarded-for"))
    agent = request.headers.get("user-agent", "")
    return f"{host} {_PORTS.sub('', forwarded[:_READER_CHARS])} {agent[:_READER_CHARS]}"


@lru_cache(maxsize=256)
def _is_proxy(settings: Settings, host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in settings.proxy_networks)


def location_of(request: Request) -> str:
    """The URL of the resource that was asked for, without the query. Raises UnknownHost."""
    path: str = request.scope["path"]
    return root_of(request) + path.removeprefix(SERVICE_PREFIX)


def accept_of(request: Request) -> Accept:
    """What the client accepts: the `accept` parameter first, then the header (PS3.18 §8.3.3.1).

    Raises:
        NotAcceptable: in strict mode, a request without either (PS3.18 §8.7.5).
    """
    query = request.scope["query_string"]
    named = [value for name, value in decode_query(query) if name.lower() == "accept"] if query else []
    headers = request.headers.getlist("accept")
    if not headers and not named and services(request).settings.strict:
        raise NotAcceptable("a request must say what it accepts (CODWEB_STRICT is on)")
    return parse_accept(headers, named)


def coding_of(request: Request) -> Coding:
    """The content coding of the answer."""
    return choose_coding(request.headers.get("accept-encoding", ""))


def study_of(request: Request) -> str:
    """The study UID of the path. Raises RequestError."""
    return path_uid(request.path_params["study_uid"])


def series_of(request: Request) -> SeriesKey:
    """The series of the path. Raises RequestError."""
    return SeriesKey(study_of(request), path_uid(request.path_params["series_uid"]))


def instance_of(request: Request) -> tuple[SeriesKey, str]:
    """The instance of the path: its series, and its UID. Raises RequestError."""
    return series_of(request), path_uid(request.path_params["instance_uid"])


def _addressing_headers(request: Request) -> tuple[tuple[str, str], ...]:
    """Host and what proxies add to it; several lines of one name joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        if raw_name == b"host" or raw_name == b"forwarded" or raw_name.startswith(b"x-forwarded-"):
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return tuple(headers.items())
