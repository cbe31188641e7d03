"""Where the bytes of an instance are read from: the bucket itself, or read ahead on behalf of whoever asks."""

from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

from storage.archive.read_ahead.access import Access
from storage.archive.read_ahead.options import ReadAheadOptions
from storage.archive.read_ahead.read_ahead import ReadAhead
from storage.bucket import Bucket
from storage.bucket.base import ObjectBytes
from storage.indexing.header_reader import RangeReader
from storage.ranges import ByteRange
from storage.series_index.reader import SeriesIndex, StoredInstance


class Sources:
    """Hands out the readers of one bucket."""

    def __init__(self, bucket: Bucket, options: ReadAheadOptions | None = None) -> None:
        self._bucket = bucket
        is_on = options is not None and options.is_on(cheap_head=bucket.cheap_head)
        self.read_ahead = ReadAhead(bucket, options) if options is not None and is_on else None
        """None: every read goes to the bucket."""
        self._extents: WeakKeyDictionary[SeriesIndex, ByteRange] = WeakKeyDictionary()

    def of(self, index: SeriesIndex, instance: StoredInstance, reader: str) -> RangeReader:
        """What reads the bytes of an instance.

        Args:
            reader: names the client, see `Access`; empty: nobody who scrolls.
        """
        if self.read_ahead is None or not reader:
            return self._bucket
        locator = instance.locator
        if locator is not None and locator.frame_count > 1:
            return _AheadReader(self.read_ahead, self._bucket, Access(reader, instance.range))
        extent = self._extents.get(index)
        if extent is None:
            extent = self._extents[index] = _extent(index)
        access = Access(reader, extent, item=instance.range, position=instance.ordinal)
        return _AheadReader(self.read_ahead, self._bucket, access)

    async def close(self) -> None:
        """Break off what is on its way."""
        if self.read_ahead is not None:
            await self.read_ahead.close()


class _AheadReader:
    """The ranges of a bucket, for the reads of one access."""

    def __init__(self, read_ahead: ReadAhead, bucket: Bucket, access: Access) -> None:
        self._read_ahead = read_ahead
        self._bucket = bucket
        self._access = access

    async def read(self, key: str, range: ByteRange, *, version: str) -> ObjectBytes:
        return await self._read_ahead.read(key, range, version=version, access=self._access)

    def stream(self, key: str, range: ByteRange, *, version: str) -> AsyncIterator[memoryview]:
        """Whoever streams needs all of it once, and nothing ahead."""
        return self._bucket.stream(key, range, version=version)


def _extent(index: SeriesIndex) -> ByteRange:
    """From the first byte of the first instance in the tar to the last of the last one."""
    records = [index.record(ordinal) for ordinal in range(index.header.count)]
    return ByteRange(min(each.start for each in records), max(each.start + each.size for each in records))
