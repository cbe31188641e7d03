"""From a series and an instance UID to bytes that are certainly those of that instance.

An entry of metadata.json can point at another, valid instance of the same size (torn writes, a known bug of the
published writer): nothing but the header in the tar tells. So an instance is served only once it is proven for this
pair of versions: its header was read, and its SOP Instance UID is the entry's.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from storage.archive.read_ahead import Sources
from storage.bucket import Bucket
from storage.errors import (
    CorruptSeries,
    InstanceUnreadable,
    ObjectChanged,
    ObjectNotFound,
    SeriesInMotion,
    StorageError,
)
from storage.indexing.header_reader import InstanceSource, RangeReader, read_located
from storage.indexing.shelf import IndexShelf
from storage.keys import SeriesKey
from storage.series_index.reader import SeriesIndex, StoredInstance

Result = TypeVar("Result")
Use = Callable[[SeriesIndex], Awaitable[Result]]


class Prover:
    """Hands out proven instances, and runs reads again when the tar turns out to be another one."""

    def __init__(self, bucket: Bucket, shelf: IndexShelf, sources: Sources) -> None:
        self._bucket = bucket
        self._shelf = shelf
        self._sources = sources

    async def with_index(self, key: SeriesKey, use: Use[Result], *, with_metadata: bool = False) -> Result:
        """Run `use` with the index of a series; if the tar changed meanwhile, once more with the new index.

        Raises:
            SeriesNotFound, CorruptSeries, StorageUnavailable: as the shelf does.
            ObjectChanged: it changed again.
        """
        index = await self._shelf.get(key, with_metadata=with_metadata, reads_tar=True)
        try:
            return await use(index)
        except (ObjectChanged, ObjectNotFound):  # not found: the tar, whose metadata.json was there a moment ago
            index = await self.refreshed(key)
        try:
            return await use(index)
        except ObjectNotFound as error:
            raise ObjectChanged(f"{key}: its tar comes and goes") from error

    async def refreshed(self, key: SeriesKey) -> SeriesIndex:
        """The index of a series whose tar turned out to be another one."""
        return await self._shelf.refresh(key)

    async def proven(self, index: SeriesIndex, instance_uid: str, *, reader: str = "") -> StoredInstance:
        """An instance whose header has been read and is its own: at most one request, once.

        Args:
            reader: on whose behalf, if it may be scrolling (`storage.archive.read_ahead`).

        Raises:
            InstanceNotFound: the series has no such entry.
            InstanceUnreadable: the bytes at its place are not its own, or cannot be read.
            SeriesInMotion: so, while a writer's lock exists: they may be soon.
        """
        instance = index.instance(instance_uid)
        if instance.is_proven:
            return instance
        if instance.problem is not None:
            raise await self.doubt(index, f"instance {instance.uid} of {index.key}: {instance.problem}")
        return await self._locate(index, instance, self._sources.of(index, instance, reader), ignore_tables=False)

    async def relocated(self, index: SeriesIndex, instance: StoredInstance) -> StoredInstance:
        """The instance with its frames told by the fragments alone, after a table was caught lying.

        Raises: as `proven`.
        """
        return await self._locate(index, instance, self._bucket, ignore_tables=True)

    async def doubt(self, index: SeriesIndex, reason: str) -> StorageError:
        """The error for bytes that do not agree with their metadata: a rewrite under way, or damage."""
        try:
            await self._bucket.head(index.key.lock)
        except ObjectNotFound:
            if not await self._shelf.is_current(index):  # once the lock is gone, metadata.json is the new one
                return ObjectChanged(f"{index.key} was rewritten meanwhile: {reason}")
            return InstanceUnreadable(reason)
        return SeriesInMotion(f"{reason}; a writer's lock exists, so the series may be in the middle of a rewrite")

    async def _locate(
        self, index: SeriesIndex, instance: StoredInstance, reader: RangeReader, *, ignore_tables: bool
    ) -> StoredInstance:
        hint = index.hint(instance.ordinal)
        table = (hint.positions, hint.lengths) if hint.positions is not None and hint.lengths is not None else None
        source = InstanceSource(reader, index.key.tar, tar_version(index), instance.range)
        try:
            located = await read_located(source, hint.original_uid, table, ignore_tables=ignore_tables)
        except InstanceUnreadable as error:
            raise await self.doubt(index, f"instance {instance.uid} of {index.key}: {error}") from error
        index.found.remember(instance.ordinal, located.header.transfer_syntax_uid, located.locator)
        return index.at(instance.ordinal)


def tar_version(index: SeriesIndex) -> str:
    """The version of the tar that every read of this series names. Raises CorruptSeries if there is no tar."""
    version = index.header.tar_version
    if version is None:
        raise CorruptSeries(f"{index.key}: metadata.json lists instances, and there is no tar")
    return version


def are_same_bytes(one: StoredInstance, other: StoredInstance) -> bool:
    """Whether two versions of an instance hold the same file, as far as their checksums tell."""
    return one.crc32c is not None and (one.crc32c, one.range.length) == (other.crc32c, other.range.length)
