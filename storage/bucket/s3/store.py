"""One bucket of an S3 service, and a prefix in it, as a `Store`."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError

from storage.bucket.base import ObjectInfo, Piece, StoredRange
from storage.bucket.options import BucketOptions
from storage.bucket.pieces import Fetch
from storage.bucket.remote.attempts import Attempts
from storage.bucket.remote.content import content_of
from storage.bucket.remote.store import Answer, Condition
from storage.bucket.s3.control import Control, Refused
from storage.bucket.s3.copying import RangeCopies
from storage.bucket.s3.etag import quoted, version_of
from storage.bucket.s3.listing import read_page
from storage.bucket.s3.multipart import MultipartUpload
from storage.bucket.s3.parts import parts_of
from storage.bucket.s3.refusal import read_text
from storage.bucket.s3.service import Service, reach
from storage.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    ObjectTruncated,
    StorageError,
    StorageUnavailable,
    TryAgain,
)
from storage.ranges import ByteRange

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions, GetResult, ObjectMeta

STREAM_PIECE_BYTES = 512 * 1024
"""What obstore gathers of a body before it hands it over."""

LIST_PAGE = 1000
"""Objects in an answer to a listing: the most that S3 gives."""


class S3Store:
    """Reads by obstore, on the event loop; everything else by boto3, in threads.

    The version is the ETag. obstore's `get_range` names no version and shortens silently, so ranges go by `get`; its
    own listing knows whole path segments only and fails at keys that others wrote (`a//b`).
    """

    def __init__(self, service: Service, prefix: str, *, list_page: int = LIST_PAGE) -> None:
        self._service = service
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = f"s3://{service.bucket}/{prefix}".rstrip("/")
        self._reader = service.reader()
        self._control = Control(service)
        self._attempts = Attempts(service.patience)
        self._list_page = list_page
        self._takes_quotes = True

    @classmethod
    def open(cls, bucket: str, prefix: str, options: BucketOptions) -> "S3Store":
        """Find service and credentials; nothing is asked of the bucket yet.

        Args:
            prefix: "" or key segments, without a slash at either end.

        Raises:
            ValueError: contradictory options.
            StorageUnavailable: no credentials.
        """
        return cls(reach(bucket, options.s3, options.patience), prefix)

    @property
    def url(self) -> str:
        return self._url

    async def get(
        self, key: str, range: ByteRange | None, version: str | None
    ) -> tuple[ObjectInfo, bytes | memoryview]:
        try:
            result = await self._get(key, range, version)
            return self._describe(key, result.meta), memoryview(await result.bytes_async())
        except (BaseError, OSError) as error:
            raise self._translated(error, key) from error

    @asynccontextmanager
    async def stream(self, key: str, range: ByteRange | None, version: str | None) -> AsyncIterator[Answer]:
        try:
            result = await self._get(key, range, version)
        except (BaseError, OSError) as error:
            raise self._translated(error, key) from error
        chunks = self._chunks(key, result.stream(STREAM_PIECE_BYTES))
        try:
            yield Answer(self._describe(key, result.meta), ByteRange(*result.range), chunks)
        finally:
            await chunks.aclose()

    async def head(self, key: str) -> ObjectInfo:
        """By a GET of one byte: an answer to HEAD has no body that tells an absent object from an absent bucket."""
        try:
            try:
                result = await self._get(key, ByteRange(0, 1), None)
                meta = result.meta
                await result.bytes_async()  # leaves the connection to the next request
            except (BaseError, OSError) as error:
                refusal = self._translated(error, key)
                if not isinstance(refusal, ObjectTruncated):
                    raise refusal from error
                meta = await obstore.head_async(self._reader, self._prefix + key)  # it is there, and empty
        except (BaseError, OSError) as error:
            raise self._translated(error, key) from error
        return self._describe(key, meta)

    async def list(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
        token = ""
        start = {"StartAfter": self._prefix + after} if after else {}
        while True:
            answer = await self._ask(
                "",
                "list_objects_v2",
                Prefix=self._prefix + prefix,
                MaxKeys=self._list_page,
                **({"ContinuationToken": token} if token else start),
            )
            page = read_page(answer, self._prefix)
            if page.infos:
                yield page.infos
            if not page.next_token:
                return
            if page.next_token == token and not page.infos:
                raise StorageUnavailable(f"{self._service.where}: a listing that does not get on")
            token = page.next_token

    async def put(self, key: str, data: bytes, condition: Condition | None) -> ObjectInfo:
        if condition is None:
            answer = await self._ask(key, "put_object", **self._object(key, data))
        elif condition.version is None:
            answer = await self._create(key, data)
        else:
            answer = await self._replace(key, data, condition.version)
        return await self._written(key, len(data), version_of(answer.get("ETag")), answer)

    async def upload(self, key: str, pieces: AsyncIterator[Piece], fetch: Fetch) -> ObjectInfo:
        parts = parts_of(pieces, fetch)
        first, second = await anext(parts), await anext(parts, None)
        if second is None and not isinstance(first, StoredRange):
            return await self._attempts.run(f"{key}: not known to be written", lambda: self.put(key, first, None))
        name = self._prefix + key
        copies = RangeCopies(self._control, self._attempts, self._service.bucket, self._prefix, self.head, self._error)
        upload = MultipartUpload(
            self._control, self._attempts, copies, key, name, lambda refused: self._error(refused, key)
        )
        async with upload:
            await upload.send(first)
            if second is not None:
                await upload.send(second)
            async for part in parts:
                await upload.send(part)
            version = await upload.complete()
        return await self._written(key, upload.size, version, {})

    async def delete(self, key: str) -> None:
        try:
            await self._ask(key, "delete_object", Key=self._prefix + key)
        except ObjectNotFound:
            pass

    async def close(self) -> None:
        await self._control.close()

    async def _get(self, key: str, range: ByteRange | None, version: str | None) -> "GetResult":
        """The head of an answer, of the version and with the beginning that were asked."""
        options: GetOptions = {}
        if range is not None:
            options["range"] = (range.start, range.stop)
        if version is not None:
            options["if_match"] = quoted(version)
        result = await obstore.get_async(self._reader, self._prefix + key, options=options)
        if range is not None and result.range[0] != range.start:
            raise TryAgain(f"{key}: asked for bytes from {range.start}, the store sends from {result.range[0]}")
        return result

    async def _chunks(self, key: str, body: "BytesStream") -> AsyncGenerator[bytes | memoryview, None]:
        try:
            async for piece in body:
                yield memoryview(piece)
        except (BaseError, OSError) as error:
            raise self._translated(error, key) from error

    async def _create(self, key: str, data: bytes) -> dict[str, Any]:
        try:
            return await self._control.ask("put_object", **self._object(key, data), IfNoneMatch="*")
        except Refused as refused:
            if refused.refusal.status == 412:
                raise ObjectExists(key) from refused
            raise self._error(refused, key) from refused

    async def _replace(self, key: str, data: bytes, version: str) -> dict[str, Any]:
        """Ceph before 18 takes a quoted tag for another one when it writes: ask what is there, and say it plainly."""
        tag = quoted(version) if self._takes_quotes else version
        try:
            return await self._control.ask("put_object", **self._object(key, data), IfMatch=tag)
        except Refused as refused:
            if refused.refusal.status != 412:
                raise self._error(refused, key) from refused
            found = (await self.head(key)).version
            if found != version or tag == version:
                raise ObjectChanged(f"{key}: version {found} instead of {version}") from refused
        answer = await self._unquoted(key, data, version)
        self._takes_quotes = False
        return answer

    async def _unquoted(self, key: str, data: bytes, version: str) -> dict[str, Any]:
        try:
            return await self._control.ask("put_object", **self._object(key, data), IfMatch=version)
        except Refused as refused:
            raise self._error(refused, key) from refused

    def _object(self, key: str, data: bytes) -> dict[str, str | bytes]:
        """The object, and what S3 is to tell of it to everyone who reads it."""
        content = content_of(key, data)
        told: dict[str, str | bytes] = {"Key": self._prefix + key, "Body": data, "ContentType": content.media_type}
        return told | {"ContentEncoding": content.coding} if content.coding else told

    async def _written(self, key: str, size: int, version: str, answer: dict[str, Any]) -> ObjectInfo:
        """What was written, with the time that the service gave it; its answer to a PUT names none."""
        try:
            info = await self.head(key)
        except StorageError:  # written is written
            info = None
        if info is not None and info.version == version:
            return info
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        written = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now().astimezone()
        return ObjectInfo(key, size, version, float(int(written.timestamp())))

    async def _ask(self, key: str, verb: str, **arguments: object) -> dict[str, Any]:
        try:
            return await self._control.ask(verb, **arguments)
        except Refused as refused:
            raise self._error(refused, key) from refused

    def _error(self, refused: Refused, key: str) -> StorageError:
        return refused.refusal.error(key, self._service.where)

    def _translated(self, error: Exception, key: str) -> StorageError:
        return read_text(str(error)).error(key, self._service.where)

    def _describe(self, key: str, meta: "ObjectMeta") -> ObjectInfo:
        return ObjectInfo(key, meta["size"], version_of(meta["e_tag"]), meta["last_modified"].timestamp())
