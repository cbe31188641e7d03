"""Whole instances: the stored P10 files, bit for bit, alone or as one stream over the tar of a series."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import google_crc32c

from storage.archive.proof import Prover, are_same_bytes, tar_version
from storage.bucket import Bucket
from storage.errors import CorruptSeries, InstanceNotFound, InstanceUnreadable, ObjectChanged, Withheld
from storage.indexing.shelf import IndexShelf
from storage.keys import SeriesKey
from storage.ranges import PlannedRead, coalesce
from storage.series_index.reader import SeriesIndex, StoredInstance

WHOLE_BYTES = 4 << 20
"""Instances up to this size are read at once and checked against their stored crc32c before the first byte is sent."""
GAP_BYTES = 64 * 1024
"""Tar headers and padding between neighbours are read along: one request carries a whole series."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One P10 file on its way out."""

    instance: StoredInstance
    identity: tuple[str, str]
    """Changes whenever the bytes could."""
    data: bytes | memoryview | None
    """The whole file, already checked, when it is small (and was not wanted unread)."""
    chunks: AsyncIterator[bytes | memoryview]
    """Exactly `instance.range.length` bytes; the last are held back until the checksum over all of them is right."""

    @property
    def is_small(self) -> bool:
        """Whether it is read at once, so that ranges of it can be given out."""
        return self.instance.range.length <= WHOLE_BYTES

    @property
    def transfer_syntax_uid(self) -> str:
        syntax = self.instance.transfer_syntax_uid
        assert syntax is not None  # only proven instances are sent
        return syntax


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """All instances of a series, every one proven, in the order in which they lie in the tar."""

    index: SeriesIndex
    instances: list[StoredInstance]

    @property
    def identity(self) -> str:
        return self.index.identity


class Instances:
    """Reads whole instances of one archive."""

    def __init__(self, bucket: Bucket, shelf: IndexShelf, prover: Prover) -> None:
        self._bucket = bucket
        self._shelf = shelf
        self._prover = prover

    async def file(self, key: SeriesKey, instance_uid: str, *, unread: bool = False) -> StoredFile:
        """One instance; small ones are already read and checked when this returns, unless they are wanted `unread`.

        Raises:
            InstanceNotFound, InstanceUnreadable, SeriesInMotion: as `Prover.proven`.
            Withheld: a de-identified store; the bytes still hold the original UIDs.
        """

        async def use(index: SeriesIndex) -> StoredFile:
            _check_disclosable(index)
            instance = await self._prover.proven(index, instance_uid)
            identity = index.identity, instance.uid
            if unread or instance.range.length > WHOLE_BYTES:
                chunks = self._bucket.stream(key.tar, instance.range, version=tar_version(index))
                if not unread:  # a replaced tar is noticed while there is still time to read the new one
                    chunks = _begun(await anext(chunks), chunks)
                return StoredFile(instance, identity, None, _checked(instance, chunks))
            read = await self._bucket.read(key.tar, instance.range, version=tar_version(index))
            checksum = google_crc32c.value(bytes(read.data)) if instance.crc32c is not None else None
            if checksum != instance.crc32c:
                raise await self._prover.doubt(index, _mismatch(instance))
            return StoredFile(instance, identity, read.data, _once(read.data))

        return await self._prover.with_index(key, use)

    async def of_series(self, keys: Sequence[SeriesKey]) -> list[SeriesFiles]:
        """What one or more series (a study) hold, before the first byte is read.

        Raises:
            SeriesNotFound: none of them is there.
            InstanceUnreadable, SeriesInMotion: an instance cannot be served, so what it belongs to cannot either.
            Withheld: as `file`.
        """
        return [await self._files_of(index) for index in await self._shelf.get_all(keys, depth="deep")]

    async def _files_of(self, index: SeriesIndex) -> SeriesFiles:
        _check_disclosable(index)
        instances = sorted(index.all_instances(), key=lambda instance: instance.range.start)
        for instance in instances:
            if instance.problem is not None:
                raise await self._prover.doubt(index, f"instance {instance.uid} of {index.key}: {instance.problem}")
        return SeriesFiles(index, instances)

    async def files(self, series: SeriesFiles) -> AsyncIterator[StoredFile]:
        """The files of a series, read as one stream; each must be consumed to its end before the next is taken.

        Raises:
            ObjectChanged: the tar was replaced, and its instances are not the same byte for byte, or lie otherwise.
            CorruptSeries, StorageUnavailable: as the bucket's `stream`.
        """
        index, instances = series.index, series.instances
        plan = coalesce([instance.range for instance in instances], gap_bytes=GAP_BYTES, span_bytes=1 << 62)
        for number, planned in enumerate(plan):
            chunks = self._bucket.stream(index.key.tar, planned.range, version=tar_version(index))
            try:
                first = await anext(chunks, memoryview(b""))
            except ObjectChanged as error:
                rest = [instances[member] for later in plan[number:] for member in later.members]
                moved = await self._moved(index.key, rest, error)
                async for file in self.files(moved):
                    yield file
                return
            run = _Run(_begun(first, chunks), planned)
            for member in planned.members:
                instance = instances[member]
                yield StoredFile(instance, (index.identity, instance.uid), None, _checked(instance, run.take(instance)))

    async def _moved(self, key: SeriesKey, instances: list[StoredInstance], error: ObjectChanged) -> SeriesFiles:
        """The same files in the tar as it is now: what was announced of them must stay true, and in this order."""
        await self._shelf.refresh(key)
        index = await self._shelf.get(key, depth="deep")
        try:
            moved = [index.instance(instance.uid) for instance in instances]
        except InstanceNotFound:
            raise error from None
        starts = [instance.range.start for instance in moved]
        if starts != sorted(starts) or not all(map(are_same_bytes, moved, instances)):
            raise error
        return SeriesFiles(index, moved)


class _Run:
    """One stream over neighbouring instances, cut into them."""

    def __init__(self, chunks: AsyncIterator[memoryview], planned: PlannedRead) -> None:
        self._chunks = chunks
        self._position = planned.range.start
        self._rest = memoryview(b"")

    async def take(self, instance: StoredInstance) -> AsyncIterator[memoryview]:
        """The bytes of the next instance; what lies before it is skipped."""
        start, stop = instance.range.start, instance.range.stop
        if start < self._position:
            raise CorruptSeries(f"instance {instance.uid} of {instance.key} overlaps the one before it in the tar")
        while self._position < stop:
            if not self._rest:
                self._rest = await anext(self._chunks)
            skip = min(max(start - self._position, 0), len(self._rest))
            self._position += skip
            self._rest = self._rest[skip:]
            piece = self._rest[: stop - self._position]
            if self._position < start or not piece:
                continue
            self._position += len(piece)
            self._rest = self._rest[len(piece) :]
            yield piece


async def _checked(instance: StoredInstance, chunks: AsyncIterator[memoryview]) -> AsyncIterator[bytes | memoryview]:
    """The chunks as they come; the last one leaves only when the checksum over all of them is right."""
    checksum = google_crc32c.Checksum()
    remaining = instance.range.length
    async for chunk in chunks:
        remaining -= len(chunk)
        if instance.crc32c is not None:
            checksum.update(bytes(chunk))  # the C function takes nothing but bytes
            if remaining == 0 and int.from_bytes(checksum.digest(), "big") != instance.crc32c:
                raise InstanceUnreadable(_mismatch(instance))
        yield chunk


async def _begun(first: memoryview, rest: AsyncIterator[memoryview]) -> AsyncIterator[memoryview]:
    yield first
    async for chunk in rest:
        yield chunk


async def _once(data: bytes | memoryview) -> AsyncIterator[bytes | memoryview]:
    yield data


def _check_disclosable(index: SeriesIndex) -> None:
    if index.header.is_deid:
        raise Withheld(
            "this datastore hides the original UIDs, and stored files still hold them: metadata and frames are served, "
            "whole files are not"
        )


def _mismatch(instance: StoredInstance) -> str:
    return f"instance {instance.uid} of {instance.key}: its bytes do not match their stored crc32c"
