"""The JSON API of objects: insert (media, multipart, resumable), get, list, patch, delete.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from typing import Any
from urllib.parse import quote

from aiohttp import web

from tests.support.gcs_fake.objects import FakeObjects, Preconditions, Refused, Stored

_PROPERTIES = {
    "contentType": "content_type",
    "contentEncoding": "content_encoding",
    "cacheControl": "cache_control",
    "storageClass": "storage_class",
    "metadata": "metadata",
}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_MULTIPLE = 256 * 1024
"""Of which every part of a resumable upload but the last must be a multiple."""


@dataclass(slots=True)
class _Session:
    """A resumable upload under way."""

    bucket: str
    name: str
    conditions: Preconditions
    properties: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)
    finished: Stored | None = None


def conditions_of(request: web.Request) -> Preconditions:
    def number(name: str) -> int | None:
        if name not in request.query:
            return None
        try:
            return int(request.query[name])
        except ValueError:
            raise Refused(400, f"Invalid value for {name}", "invalidParameter") from None

    return Preconditions(number("ifGenerationMatch"), number("ifGenerationNotMatch"), number("ifMetagenerationMatch"))


def resource(bucket: str, name: str, stored: Stored) -> dict[str, Any]:
    """An object as the API describes it."""

    def stamp(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    described = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{stored.generation}",
        "name": name,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "contentType": stored.content_type,
        "storageClass": stored.storage_class,
        "size": str(len(stored.data)),
        "md5Hash": stored.md5,
        "crc32c": stored.crc32c,
        "etag": f"g{stored.generation}m{stored.metageneration}",
        "timeCreated": stamp(stored.created),
        "updated": stamp(stored.updated),
    }
    for theirs, ours in _PROPERTIES.items():
        if value := getattr(stored, ours):
            described[theirs] = value
    return described


class JsonApi:
    """Everything but the bytes of objects."""

    def __init__(self, objects: FakeObjects) -> None:
        self._objects = objects
        self._sessions: dict[str, _Session] = {}

    @property
    def open_sessions(self) -> int:
        return sum(session.finished is None for session in self._sessions.values())

    def describe(self, bucket: str, name: str, generation: int | None, conditions: Preconditions) -> web.Response:
        return _json(resource(bucket, name, self._objects.get(bucket, name, generation, conditions)))

    def list(self, request: web.Request, bucket: str) -> web.Response:
        """Ascending; `startOffset` is inclusive; a page token is the last name of the page before."""
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        offset, token = query.get("startOffset", ""), query.get("pageToken", "")
        limit = min(int(query.get("maxResults", 1000)), 1000)
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        answer: dict[str, Any] = {"kind": "storage#objects"}
        last = ""
        for name in self._objects.names(bucket):
            folder = _folder(name, prefix, delimiter)
            shown = folder or name
            if not name.startswith(prefix) or name.encode() < offset.encode() or (token and shown <= token):
                continue
            if folder in prefixes:
                continue
            if len(items) + len(prefixes) == limit:
                answer["nextPageToken"] = last
                break
            last = shown
            if folder:
                prefixes.append(folder)
            elif (stored := self._objects.live(bucket, name)) is not None:
                items.append(resource(bucket, name, stored))
        answer |= {"items": items} if items else {}
        answer |= {"prefixes": prefixes} if prefixes else {}
        return _json(answer)

    async def insert(self, request: web.Request, bucket: str) -> web.Response:
        conditions = conditions_of(request)
        self._objects.names(bucket)  # 404 for an absent bucket before anything is read
        match request.query.get("uploadType"):
            case "media":
                name, properties = request.query["name"], {"content_type": request.content_type}
                data = await request.read()
            case "multipart":
                given, properties, data = _multipart(request.headers["Content-Type"], await request.read())
                name = request.query.get("name") or str(given["name"])
                _check_crc(given, data)
            case "resumable":
                text = await request.text()
                given = json.loads(text) if text else {}
                name = request.query.get("name") or str(given["name"])
                identifier = f"upload-{len(self._sessions)}"
                self._sessions[identifier] = _Session(bucket, name, conditions, _properties(given))
                base = f"{request.scheme}://{request.host}/upload/storage/v1/b/{quote(bucket)}/o"
                return web.Response(headers={"Location": f"{base}?uploadType=resumable&upload_id={identifier}"})
            case _:
                raise Refused(400, "Unknown uploadType", "invalid")
        return _json(resource(bucket, name, self._objects.put(bucket, name, data, conditions, **properties)))

    async def proceed(self, request: web.Request) -> web.Response:
        """One part of a resumable upload, or the question how much is there (`bytes */…`)."""
        session = self._sessions.get(request.query.get("upload_id", ""))
        if session is None:
            raise Refused(410, "The upload session is gone", "gone")
        told = _CONTENT_RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if told is None:
            raise Refused(400, "Invalid Content-Range", "invalid")
        body = await request.read()
        if session.finished is None:
            if told[1] is not None:
                if int(told[1]) != len(session.data) or int(told[2]) + 1 - int(told[1]) != len(body):
                    raise Refused(400, "Invalid Content-Range", "invalid")
                if told[3] == "*" and len(body) % _MULTIPLE:
                    raise Refused(400, "A part must be a multiple of 256 KiB", "invalid")
                session.data += body
            if told[3] == "*" or int(told[3]) != len(session.data):
                kept = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
                return web.Response(status=308, headers=kept)
            session.finished = self._objects.put(
                session.bucket, session.name, bytes(session.data), session.conditions, **session.properties
            )
        return _json(resource(session.bucket, session.name, session.finished))

    def cancel(self, request: web.Request) -> web.Response:
        """Source: https://cloud.google.com/storage/docs/performing-resumable-uploads#cancel-upload."""
        self._sessions.pop(request.query.get("upload_id", ""), None)
        return web.Response(status=499)

    async def patch(self, request: web.Request, bucket: str, name: str) -> web.Response:
        text = await request.text()
        properties = _properties(json.loads(text) if text else {})
        return _json(resource(bucket, name, self._objects.patch(bucket, name, conditions_of(request), **properties)))


def _json(value: dict[str, Any]) -> web.Response:
    return web.json_response(value)


def _properties(given: dict[str, Any]) -> dict[str, Any]:
    return {ours: given[theirs] for theirs, ours in _PROPERTIES.items() if theirs in given}


def _multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """A JSON part and a part of bytes. Source: .../docs/json_api/v1/how-tos/multipart-upload."""
    message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    boundary = b"--" + str(message.get_param("boundary")).encode()
    described, content = (part.partition(b"\r\n\r\n")[2][:-2] for part in body.split(boundary)[1:3])
    given = json.loads(described)
    return given, _properties(given), content


def _check_crc(given: dict[str, Any], data: bytes) -> None:
    if given.get("crc32c", Stored(data, 0).crc32c) != Stored(data, 0).crc32c:
        raise Refused(400, "Provided CRC32C does not match the calculated one", "invalid")


def _folder(name: str, prefix: str, delimiter: str) -> str:
    if not delimiter:
        return ""
    before, found, _ = name[len(prefix) :].partition(delimiter)
    return prefix + before + found if found else ""
