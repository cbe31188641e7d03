"""Uploads of unknown length, by the JSON API's resumable protocol, in bounded memory.

Nothing is visible before the last part; a session that is given up is cancelled. Google's client has the same protocol
behind a file object, which finishes the upload when it is collected as garbage.
Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus

import google_crc32c
from requests import Response

from storage.bucket.base import ObjectInfo
from storage.bucket.gcs.control import Control
from storage.bucket.gcs.place import Place
from storage.bucket.gcs.refusals import refusal
from storage.bucket.options import Patience
from storage.bucket.remote.attempts import Attempts
from storage.bucket.remote.content import Content, content_of
from storage.bucket.remote.finish import to_the_end
from storage.errors import StorageError, StorageUnavailable, TryAgain

PART_BYTES = 8 << 20
"""Of one request, and the longest body that is written by a single one; the protocol wants multiples of 256 KiB."""
_KEPT = re.compile(r"bytes=0-(\d+)")


@dataclass(frozen=True, slots=True)
class _Progress:
    kept: int
    """Bytes that the store has of an upload that goes on."""
    resource: str
    """JSON of the object, once all is there; else empty."""

    def is_through(self, stop: int, *, is_last: bool) -> bool:
        return self.resource != "" or (not is_last and self.kept == stop)


class Resumable:
    """Uploads to one bucket. What fails is repeated here: the bytes are gone from their source."""

    def __init__(self, place: Place, control: Control, patience: Patience) -> None:
        self._place = place
        self._control = control
        self._attempts = Attempts(patience)
        self._timeout = (patience.connect_seconds, patience.read_seconds)

    async def whole(self, key: str, data: bytes) -> ObjectInfo:
        """Write what turned out to be small."""
        return await self._attempts.run(f"{key}: uploading", partial(self._control.put, key, data, None))

    async def upload(self, key: str, first: bytearray, chunks: AsyncIterator[bytes | memoryview]) -> ObjectInfo:
        """Send `first`, more than one part, and what `chunks` still gives. Holds two parts in memory, and a chunk.

        Raises:
            StorageUnavailable: the store keeps other bytes than were sent, or gave up the session.
        """
        session = await self._attempts.run(f"{key}: uploading", partial(self._begun, key, content_of(key, first)))
        try:
            return await self._sent(key, session, first, chunks)
        except BaseException:
            await to_the_end(self._cancelled(key, session))
            raise

    async def _sent(
        self, key: str, session: str, buffer: bytearray, chunks: AsyncIterator[bytes | memoryview]
    ) -> ObjectInfo:
        checksum = google_crc32c.Checksum(bytes(buffer))
        position = 0
        while True:
            # Never all of it: the last part names the length of the object, and must not be empty.
            while len(buffer) > PART_BYTES:
                await self._part(key, session, position, bytes(buffer[:PART_BYTES]), is_last=False)
                del buffer[:PART_BYTES]
                position += PART_BYTES
            chunk = await anext(chunks, None)
            if chunk is None:
                break
            checksum.update(bytes(chunk))
            buffer += chunk
        resource = await self._part(key, session, position, bytes(buffer), is_last=True)
        return self._kept(key, resource, position + len(buffer), checksum.digest())

    async def _part(self, key: str, session: str, position: int, data: bytes, *, is_last: bool) -> str:
        """Send [position, position + len(data)); returns the resource when that was the last part."""
        stop = position + len(data)
        length = str(stop) if is_last else "*"
        kept: int | None = position
        trial = self._attempts.trial(f"{key}: uploading")
        while True:
            try:
                if kept is None:  # an attempt failed: how far did it come?
                    progress = await self._put(key, session, f"bytes */{length}", b"")
                    if progress.is_through(stop, is_last=is_last):
                        return progress.resource
                    kept = progress.kept
                    if not position <= kept < stop:
                        raise StorageUnavailable(f"{self._place.described(key)}: the store has lost part of an upload")
                progress = await self._put(key, session, f"bytes {kept}-{stop - 1}/{length}", data[kept - position :])
                if progress.is_through(stop, is_last=is_last):
                    return progress.resource
                raise TryAgain(f"{self._place.described(key)}: {progress.kept} of {stop} bytes were kept")
            except TryAgain as error:
                kept = None
                await trial.after(error)

    def _kept(self, key: str, body: str, size: int, crc32c: bytes) -> ObjectInfo:
        described = self._place.described(key)
        try:
            resource = json.loads(body)
            stored, checksum = int(resource["size"]), resource["crc32c"]
            created = float(int(datetime.fromisoformat(resource["timeCreated"]).timestamp()))
            info = ObjectInfo(key, stored, str(resource["generation"]), created)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable(f"{described}: the store does not say what it keeps of an upload") from error
        if stored != size or checksum != base64.b64encode(crc32c).decode():
            raise StorageUnavailable(f"{described}: {size} bytes were sent, and the store keeps {stored} other ones")
        return info

    async def _begun(self, key: str, content: Content) -> str:
        """Open a session, and return its address."""
        headers = {"X-Upload-Content-Type": content.media_type}
        body = b""
        if content.coding:
            headers["Content-Type"] = "application/json; charset=UTF-8"
            body = json.dumps({"contentEncoding": content.coding}).encode("ascii")
        response = await self._request("POST", self._place.upload_url(key), key, headers, body)
        if response.status_code != HTTPStatus.OK or "Location" not in response.headers:
            raise self._refusal(key, response)
        return response.headers["Location"]

    async def _put(self, key: str, session: str, content_range: str, data: bytes) -> _Progress:
        response = await self._request("PUT", session, key, {"Content-Range": content_range}, data)
        if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
            kept = _KEPT.fullmatch(response.headers.get("Range", ""))
            return _Progress(0 if kept is None else int(kept[1]) + 1, "")
        if response.status_code not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise self._refusal(key, response)
        return _Progress(0, response.text)

    async def _cancelled(self, key: str, session: str) -> None:
        try:
            await self._request("DELETE", session, key, {}, b"")
        except StorageError:
            pass  # the session ends by itself after a week, and was never visible

    async def _request(self, method: str, url: str, key: str, headers: dict[str, str], data: bytes) -> Response:
        def call() -> Response:
            response: Response = self._control.session().request(  # type: ignore[no-untyped-call] # google-auth
                method, url, data=data, headers=headers, timeout=self._timeout, allow_redirects=False
            )
            return response

        return await self._control.run(key, call, changes=True)

    def _refusal(self, key: str, response: Response) -> StorageError:
        return refusal(
            self._place.described(key), response.status_code, response.text, response.headers.get("Retry-After")
        )
