"""One bucket of Google Cloud Storage, and a prefix in it, as a `Store`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from google.auth.credentials import Credentials

from storage.bucket.base import ObjectInfo, Piece
from storage.bucket.gcs.control import Control
from storage.bucket.gcs.login import Login
from storage.bucket.gcs.media import Media, TransformedOnTheWay
from storage.bucket.gcs.place import Place
from storage.bucket.gcs.refusals import AbsenceUnclear
from storage.bucket.gcs.resumable import PART_BYTES, Resumable
from storage.bucket.options import BucketOptions
from storage.bucket.pieces import Fetch, fetched
from storage.bucket.remote.store import Answer, Condition
from storage.errors import ObjectChanged, ObjectNotFound, ObjectTruncated, StorageError, TryAgain
from storage.ranges import ByteRange


class GcsStore:
    """Reads by obstore, on the event loop; everything else by Google's own client, in threads.

    The version is the generation: a write makes a new one, a change of metadata does not.
    """

    def __init__(
        self, bucket: str, prefix: str, options: BucketOptions, *, credentials: Credentials | None = None
    ) -> None:
        self._place = Place.of(bucket, prefix, options.gcs)
        login = Login(is_anonymous=self._place.is_anonymous, credentials=credentials)
        self._media = Media(self._place, login, options.patience)
        self._control = Control(self._place, login, options.patience)
        self._resumable = Resumable(self._place, self._control, options.patience)

    @classmethod
    def open(cls, bucket: str, prefix: str, options: BucketOptions) -> "GcsStore":
        """Nothing is asked of the network yet: missing credentials show at the first request.

        Args:
            prefix: "" or key segments, without a slash at either end.

        Raises:
            ValueError: contradictory options.
        """
        return cls(bucket, prefix, options)

    @property
    def url(self) -> str:
        return self._place.url

    async def get(
        self, key: str, range: ByteRange | None, version: str | None
    ) -> tuple[ObjectInfo, bytes | memoryview]:
        if range is None or range.length == 0:
            async with self.stream(key, range, version) as answer:
                return answer.info, b"".join([chunk async for chunk in answer.chunks])
        try:
            return await self._media.get(key, range, version)
        except AbsenceUnclear as error:
            raise await self._missing(key, version) from error

    @asynccontextmanager
    async def stream(self, key: str, range: ByteRange | None, version: str | None) -> AsyncIterator[Answer]:
        if range is not None and range.length == 0:
            yield Answer(await self._at(key, range.stop, version), range, _nothing())
            return
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._media.stream(key, range, version))
            except AbsenceUnclear as error:
                raise await self._missing(key, version) from error
            except (ObjectTruncated, TransformedOnTheWay):
                if range is not None:
                    raise
                # The whole object: it is empty, or a range without an end was not understood.
                info = await self._at(key, 0, version)
                answer = await stack.enter_async_context(self._rest(key, info))
            yield answer

    async def head(self, key: str) -> ObjectInfo:
        return await self._control.head(key)

    def list(self, prefix: str, after: str) -> AsyncIterator[list[ObjectInfo]]:
        return self._control.pages(prefix, after)

    async def put(self, key: str, data: bytes, condition: Condition | None) -> ObjectInfo:
        return await self._control.put(key, data, condition)

    async def upload(self, key: str, pieces: AsyncIterator[Piece], fetch: Fetch) -> ObjectInfo:
        """Cloud Storage copies and composes whole objects only: stored ranges are fetched and sent."""
        first, chunks = bytearray(), fetched(pieces, fetch)
        async for chunk in chunks:
            first += chunk
            if len(first) > PART_BYTES:
                return await self._resumable.upload(key, first, chunks)
        return await self._resumable.whole(key, bytes(first))

    async def delete(self, key: str) -> None:
        await self._control.delete(key)

    async def close(self) -> None:
        await self._control.close()

    @asynccontextmanager
    async def _rest(self, key: str, info: ObjectInfo) -> AsyncIterator[Answer]:
        """A described object from its first byte to its last."""
        if info.size == 0:
            yield Answer(info, ByteRange(0, 0), _nothing())
            return
        async with self._media.stream(key, ByteRange(0, info.size), info.version) as answer:
            yield answer

    async def _at(self, key: str, position: int, version: str | None) -> ObjectInfo:
        """Describe an object that is `version` and reaches to `position`: HTTP has no empty range to ask for."""
        info = await self._control.head(key)
        if version is not None and info.version != version:
            raise ObjectChanged(f"{self._place.described(key)}: generation {info.version} instead of {version}")
        if position > info.size:
            raise ObjectTruncated(f"{self._place.described(key)}: wanted bytes up to {position}, it has {info.size}")
        return info

    async def _missing(self, key: str, version: str | None) -> StorageError:
        """What a 404 to a read means: the XML API says it of an object, a bucket and a generation alike."""
        try:
            await self._at(key, 0, version)
        except (ObjectNotFound, ObjectChanged) as error:
            return error
        return TryAgain(f"{self._place.described(key)}: absent, and there again")


async def _nothing() -> AsyncIterator[bytes | memoryview]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece
