"""What a route needs and where it finds it: the archive, the settings, and what the request says of itself."""

import asyncio
from dataclasses import dataclass, field
from functools import lru_cache

from starlette.requests import Request

from app.accept import Accept
from app.address import path_uid
from app.asked import TELLING, Asked
from app.processes.crew import Crew
from app.settings import Settings
from storage.archive import Archive
from storage.keys import SeriesKey
from storage.series_index.splice import Coding

SERVICE_PREFIX = "/dicomweb"


@dataclass(slots=True)
class Services:
    """One server's parts, put into `app.state` by the lifespan."""

    settings: Settings
    archive: Archive
    upkeep: asyncio.Task[None] | None
    """Keeps the catalogue up to date; ends after the first sync if none is to follow. None: another process does it."""
    crew: Crew
    asked: dict[object, Asked] = field(default_factory=dict)
    """The ways in which clients have asked lately."""
    minds_peers: bool = field(init=False)
    """Whether it matters from where a request came."""

    def __post_init__(self) -> None:
        self.minds_peers = self.archive.reads_ahead or bool(self.settings.trusted_proxies)


def services(request: Request) -> Services:
    """The services of the app that a request came to."""
    found: Services = request.scope["app"].state.services  # put there by the lifespan, before any request
    return found


def asked_of(request: Request) -> Asked:
    """What the request says of itself."""
    scope = request.scope
    known: Asked | None = scope.get(_ASKED)
    if known is not None:
        return known
    found = services(request)
    server, client, query = scope.get("server"), scope.get("client"), scope["query_string"]
    headers = tuple([header for header in scope["headers"] if header[0] in TELLING])
    peer = client[0] if client is not None and found.minds_peers else ""
    name = (scope.get("scheme", "http"), server[1] if server is not None else None, peer, query, headers)
    asked = found.asked.get(name)
    if asked is None:
        asked = Asked(found.settings, SERVICE_PREFIX, *name)
        # searches differ each time, and need little of it; a stranger's long headers are not worth keeping
        if len(query) <= _LARGEST_QUERY and sum(len(value) for _, value in headers) <= _LARGEST_HEADERS:
            if len(found.asked) >= _MOST_ASKED:
                found.asked.clear()
            found.asked[name] = asked
    scope[_ASKED] = asked
    return asked


_ASKED = "codweb.asked"
_MOST_ASKED = 1024
_LARGEST_QUERY = 256
_LARGEST_HEADERS = 4096


def root_of(request: Request) -> str:
    """The service root by which the client reached this server. Raises UnknownHost."""
    return asked_of(request).root


def accept_of(request: Request) -> Accept:
    """What the client accepts. Raises NotAcceptable: nothing said, in strict mode."""
    return asked_of(request).accept


def coding_of(request: Request) -> Coding:
    """The content coding of the answer."""
    return asked_of(request).coding


def reader_of(request: Request) -> str:
    """Names the client, see `Asked.reader`; empty where nobody reads ahead."""
    return asked_of(request).reader if services(request).archive.reads_ahead and request.scope.get("client") else ""


def location_of(request: Request) -> str:
    """The URL of the resource that was asked for, without the query. Raises UnknownHost."""
    path: str = request.scope["path"]
    return root_of(request) + path.removeprefix(SERVICE_PREFIX)


def study_of(request: Request) -> str:
    """The study UID of the path. Raises RequestError."""
    return path_uid(request.path_params["study_uid"])


def series_of(request: Request) -> SeriesKey:
    """The series of the path. Raises RequestError."""
    path = request.path_params
    return _series(path["study_uid"], path["series_uid"])


def instance_of(request: Request) -> tuple[SeriesKey, str]:
    """The instance of the path: its series, and its UID. Raises RequestError."""
    path = request.path_params
    return _series(path["study_uid"], path["series_uid"]), _uid(path["instance_uid"])


@lru_cache(maxsize=4096)
def _series(study_uid: str, series_uid: str) -> SeriesKey:
    return SeriesKey(path_uid(study_uid), path_uid(series_uid))


_uid = lru_cache(maxsize=16384)(path_uid)
