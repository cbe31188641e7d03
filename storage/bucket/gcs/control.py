"""What is not bytes: metadata, listings, small writes and deletions, by Google's own client, in threads.

The client's retries are off: attempts are counted once, by `RemoteBucket`.
"""

import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage  # type: ignore[attr-defined, import-untyped, unused-ignore] # ships no types

from storage.bucket.base import ObjectInfo
from storage.bucket.gcs.login import Login, not_signed_in
from storage.bucket.gcs.media import is_generation
from storage.bucket.gcs.place import Place
from storage.bucket.gcs.refusals import AbsenceUnclear, no_such_bucket, refusal
from storage.bucket.options import Patience
from storage.bucket.remote.content import content_of
from storage.bucket.remote.store import Condition
from storage.bucket.remote.threads import Threads
from storage.errors import ObjectChanged, ObjectExists, ObjectNotFound, StorageUnavailable, TryAgain

_PAGE = 1000
"""Objects of one page of a listing: the most that the store sends."""
_FIELDS = "items(name,size,generation,timeCreated),nextPageToken"
_NO_PROJECT = "none"
"""The client wants the name of a project; no request of ours says it."""

T = TypeVar("T")


class Control:
    """Google's client for one bucket; made by the first call."""

    def __init__(self, place: Place, login: Login, patience: Patience) -> None:
        self._place = place
        self._login = login
        self._timeout = (patience.connect_seconds, patience.read_seconds)
        self._threads = Threads("gcs", patience)
        self._making = threading.Lock()
        self._client: Any = None  # google-cloud-storage ships no types
        self._bucket: Any = None
        self._session: AuthorizedSession | None = None

    async def head(self, key: str) -> ObjectInfo:
        """Raises ObjectNotFound."""
        return await self.run(key, lambda: self._reloaded(key))

    async def pages(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
        """Pages of at most 1,000 objects, ascending by the UTF-8 bytes of their names; one request each.

        `startOffset` is inclusive, `after` is not. Source: JSON API, Objects: list.
        """
        listing = await self.run(prefix, lambda: self._listing(prefix, after))
        while True:
            try:
                page = await self.run(prefix, lambda: self._next(listing))
            except ObjectNotFound as error:  # a 404 to a listing can only mean the bucket
                raise no_such_bucket(self._place.described(prefix)) from error
            if page is None:
                return
            yield [info for info in page if info.key != after]  # "": an object named as the prefix itself

    async def put(self, key: str, data: bytes, condition: Condition | None) -> ObjectInfo:
        """As `Store.put`; the store itself compares the CRC32C that is sent with the bytes."""
        expected = condition.version if condition is not None else None
        if expected is not None and not is_generation(expected):
            raise await self._unmet(key, expected)
        generation = None if condition is None else int(expected or 0)
        try:
            return await self.run(key, lambda: self._uploaded(key, data, generation), changes=True)
        except ObjectChanged as error:
            if expected is None:
                raise ObjectExists(self._place.described(key)) from error
            raise await self._unmet(key, expected) from error

    async def delete(self, key: str) -> None:
        """Absent already is no error; an absent bucket is one."""
        try:
            await self.run(key, lambda: self._blob(key).delete(timeout=self._timeout, retry=None), changes=True)
        except ObjectNotFound:
            pass

    async def absence(self, key: str) -> ObjectNotFound | StorageUnavailable:
        """What a 404 means that does not say so: one small listing tells an absent object from an absent bucket."""
        try:
            await self._threads.run(lambda: self._translated(key, self._probed), changes=False)
        except AbsenceUnclear:
            return no_such_bucket(self._place.described(key))
        except StorageUnavailable as error:
            return error
        return ObjectNotFound(self._place.described(key))

    async def close(self) -> None:
        self._threads.close()
        if self._client is not None:
            self._client.close()
        if self._session is not None:
            self._session.close()  # type: ignore[no-untyped-call] # google-auth

    async def run(self, key: str, call: Callable[[], T], *, changes: bool = False) -> T:
        """Run `call` in a thread; what goes wrong in it becomes an error of ours.

        Args:
            changes: it changes the store, so that nobody may leave before it has ended.
        """
        try:
            return await self._threads.run(lambda: self._translated(key, call), changes=changes)
        except AbsenceUnclear as error:
            raise await self.absence(key) from error

    def _translated(self, key: str, call: Callable[[], T]) -> T:
        """Run `call` in this thread; foreign errors stop here.

        Their words are not passed on: they hold the address that was asked, and that of an upload is a secret.
        """
        described = self._place.described(key)
        try:
            return call()
        except GoogleAPICallError as error:
            response = error.response
            body = type(error).__name__ if response is None else response.text
            retry_after = None if response is None else response.headers.get("Retry-After")
            raise refusal(described, int(error.code or 500), body, retry_after) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise TryAgain(f"{described}: {self._place.endpoint}: {_kind(error)}") from error
        except GoogleAuthError as error:
            raise not_signed_in(error) from error
        except (
            requests.RequestException,
            storage.exceptions.DataCorruption,
        ) as error:  # no JSON, other bytes than sent
            raise StorageUnavailable(f"{described}: {_kind(error)}") from error

    def session(self) -> AuthorizedSession:
        """For requests that Google's client has no public verb for. Blocks when credentials must be found first."""
        with self._making:
            if self._session is None:
                self._session = AuthorizedSession(self._login.credentials())  # type: ignore[no-untyped-call] # google-auth
            return self._session

    def _opened(self) -> Any:
        with self._making:
            if self._client is None:
                # Or it asks for the bucket itself, behind our back, to describe its traces.
                os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
                self._client = storage.Client(
                    project=self._place.project or _NO_PROJECT,
                    credentials=self._login.credentials(),
                    client_options={"api_endpoint": self._place.endpoint},
                )
                self._bucket = self._client.bucket(self._place.bucket, user_project=self._place.project or None)
            return self._bucket

    def _blob(self, key: str) -> Any:
        return self._opened().blob(self._place.name(key))

    def _reloaded(self, key: str) -> ObjectInfo:
        blob = self._blob(key)
        blob.reload(projection="noAcl", timeout=self._timeout, retry=None)
        return self._info(blob)

    def _listing(self, prefix: str, after: str) -> Any:
        pages = self._opened().list_blobs(
            prefix=self._place.name(prefix) or None,
            start_offset=self._place.name(after) if after else None,
            page_size=_PAGE,
            fields=_FIELDS,
            timeout=self._timeout,
            retry=None,
        )
        return pages.pages

    def _next(self, listing: Any) -> list[ObjectInfo] | None:
        page = next(listing, None)
        return None if page is None else [self._info(blob) for blob in page]

    def _probed(self) -> None:
        next(self._opened().list_blobs(max_results=1, fields="items(name)", timeout=self._timeout, retry=None).pages)

    def _uploaded(self, key: str, data: bytes, generation: int | None) -> ObjectInfo:
        blob = self._blob(key)
        content = content_of(key, data)
        if content.coding:
            blob.content_encoding = content.coding
        blob.upload_from_string(
            data,
            content_type=content.media_type,
            if_generation_match=generation,
            timeout=self._timeout,
            checksum="crc32c",
            retry=None,
        )
        return self._info(blob)

    async def _unmet(self, key: str, version: str) -> ObjectNotFound | ObjectChanged:
        """Which condition failed: the store answers 412 for another generation and for none at all."""
        try:
            info = await self.head(key)
        except ObjectNotFound as error:
            return error
        return ObjectChanged(f"{self._place.described(key)}: generation {info.version} instead of {version}")

    def _info(self, blob: Any) -> ObjectInfo:
        """`timeCreated` is when these bytes came (`updated` moves with metadata); whole seconds, as a GET tells them."""
        if blob.size is None or blob.generation is None or blob.time_created is None:
            described = self._place.described(self._place.key(blob.name))
            raise StorageUnavailable(f"{described}: described without size, generation or time; is this Cloud Storage?")
        return ObjectInfo(
            key=self._place.key(blob.name),
            size=int(blob.size),
            version=str(blob.generation),
            updated=float(int(blob.time_created.timestamp())),
        )


def _kind(error: BaseException) -> str:
    """The class of an error and, of one that the system raised, its number: no words, which may hold a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{type(error).__name__}, {errno.errorcode.get(cause.errno, cause.errno)}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
