"""Bytes of objects by obstore and the XML API, as they are stored, from exactly one generation.

Cloud Storage decompresses an object of Content-Encoding gzip for a client that does not accept gzip, and then ignores
the range; so every request accepts gzip, and the bytes come as they are stored.
Source: https://cloud.google.com/storage/docs/transcoding, https://cloud.google.com/storage/docs/xml-api/get-object-download
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import GCSStore

from storage.bucket.base import ObjectInfo
from storage.bucket.gcs.login import Login
from storage.bucket.gcs.place import Place
from storage.bucket.gcs.refusals import AbsenceUnclear, refusal
from storage.bucket.options import Patience
from storage.bucket.remote.leaving import settle_at_exit
from storage.bucket.remote.store import Answer
from storage.errors import ObjectChanged, StorageError, StorageUnavailable, TryAgain
from storage.ranges import ByteRange

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, GCSConfig

PIECE_BYTES = 512 * 1024
"""What obstore gathers of a body before it hands it over."""

_REFUSED = re.compile(r" - Server returned non-2xx status code: (\d{3})[^:]*:? ?(.*)", re.DOTALL)
_FAILURES = (BaseError, OSError, ValueError)
"""What obstore raises; a FileNotFoundError is its 404, a ValueError an answer that lacks a header."""


class TransformedOnTheWay(StorageUnavailable):
    """What came is not what is stored: no length is named, or the range is ignored."""


class Media:
    """Reads of one bucket. A read is one request, and never repeated here."""

    def __init__(self, place: Place, login: Login, patience: Patience) -> None:
        self._place = place
        self._login = login
        config: GCSConfig = {"base_url": place.endpoint, "skip_signature": login.is_anonymous}
        headers = {"Accept-Encoding": "gzip"}
        if place.project:
            headers["X-Goog-User-Project"] = place.project
        client: ClientConfig = {
            "allow_http": place.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=patience.connect_seconds),
            "read_timeout": timedelta(seconds=patience.read_seconds),
            "timeout": timedelta(days=1),  # `RemoteBucket` knows how long a body may take
            "default_headers": headers,
            "user_agent": "codweb",
        }
        settle_at_exit()
        try:
            self._store = GCSStore(
                place.bucket,
                config=config,
                client_options=client,
                retry_config={"max_retries": 0},
                # Given also where nobody asks for a token: else obstore reads Google's files itself, and fails at kinds
                # of credentials that google-auth knows and it does not (external_account).
                credential_provider=login.token,
            )
        except BaseError as error:
            raise StorageUnavailable(f"{place.url}: {_said(error)}; check the variables GOOGLE_*") from error

    async def get(self, key: str, range: ByteRange, version: str | None) -> tuple[ObjectInfo, memoryview]:
        """A range that is not empty, in memory.

        Raises:
            AbsenceUnclear: no such object, no such bucket, or no longer this generation: the answer does not say.
            ObjectChanged, ObjectTruncated, TransformedOnTheWay, TryAgain, StorageUnavailable
        """
        try:
            result = await self._ask(key, range, version)
            info = self._info(key, result.meta, version)
            return info, memoryview(await result.bytes_async())
        except _FAILURES as error:
            raise self._translated(error, key) from error

    @asynccontextmanager
    async def stream(self, key: str, range: ByteRange | None, version: str | None) -> AsyncIterator[Answer]:
        """A range that is not empty, or a whole object that is not (ObjectTruncated), as it comes; raises as `get`."""
        try:
            result = await self._ask(key, range, version)
        except _FAILURES as error:
            raise self._translated(error, key) from error
        info = self._info(key, result.meta, version)
        chunks = self._chunks(key, result.stream(PIECE_BYTES))
        try:
            yield Answer(info, ByteRange(*result.range), chunks)
        finally:
            await chunks.aclose()

    async def _ask(self, key: str, range: ByteRange | None, version: str | None) -> "GetResult":
        options: GetOptions = {}
        # Also for a whole object: a part is never compressed or decompressed on its way.
        options["range"] = {"offset": 0} if range is None else (range.start, range.stop)
        if version is not None and is_generation(version):
            options["version"] = version
        return await obstore.get_async(self._store, self._place.name(key), options=options)

    async def _chunks(self, key: str, body: "BytesStream") -> AsyncGenerator[bytes | memoryview, None]:
        try:
            async for piece in body:
                yield memoryview(piece)
        except _FAILURES as error:
            raise self._translated(error, key) from error

    def _info(self, key: str, meta: "ObjectMeta", version: str | None) -> ObjectInfo:
        described = self._place.described(key)
        generation = meta["version"]
        if generation is None:
            raise StorageUnavailable(f"{described}: the answer names no generation; this service cannot be read safely")
        if version is not None and generation != version:
            raise ObjectChanged(f"{described}: generation {generation} instead of {version}")
        return ObjectInfo(key, meta["size"], generation, meta["last_modified"].timestamp())

    def _translated(self, error: Exception, key: str) -> StorageError:
        """obstore tells a status and the answer's body in words only."""
        described = self._place.described(key)
        text = _said(error)
        refused = _REFUSED.search(text)
        if isinstance(error, FileNotFoundError):
            return AbsenceUnclear(f"{described}: {text}")
        if refused is not None:
            return refusal(described, int(refused[1]), refused[2], None)
        if self._login.failure is not None:
            return self._login.failure
        if "non-partial response" in text or "Content-Length" in text:
            return TransformedOnTheWay(
                f"{described}: what came is not what is stored; a proxy on the way may drop Accept-Encoding"
            )
        if "missing from response" in text:
            return StorageUnavailable(f"{described}: {text}; this service does not speak as Cloud Storage does")
        return TryAgain(f"{described}: {text}")


def _said(error: Exception) -> str:
    """The words of an obstore error, without its dump."""
    return str(error).partition("\n\nDebug source:")[0]


def is_generation(version: str) -> bool:
    """Whether a text can be a version of this store: a decimal number, as JSON writes an int64."""
    return version.isascii() and version.isdecimal() and len(version) < 20
