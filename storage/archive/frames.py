"""Frames: from frame numbers to payloads, by the fewest range requests that carry only their bytes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from storage.archive.proof import Prover, are_same_bytes, tar_version
from storage.archive.read_ahead import Sources
from storage.dicom.cutting import extract_frame, frame_range
from storage.dicom.locator import PixelKind, PixelLocator
from storage.dicom.p10 import open_p10
from storage.dicom.window import Window
from storage.errors import FrameNotFound, InstanceUnreadable, ObjectChanged, ObjectNotFound, StorageError
from storage.keys import SeriesKey
from storage.ranges import ByteRange, coalesce
from storage.series_index.reader import SeriesIndex, StoredInstance
from storage.together import together

GAP_BYTES = 32 * 1024
"""Frames this close together are read with one request: the bytes between cost less than a second round trip."""
SPAN_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class InstancePixels:
    """What negotiation needs to know before any pixel is read."""

    transfer_syntax_uid: str
    """As stored."""
    is_native: bool
    """Not encapsulated; deflated data sets hold native pixels too."""
    is_big_endian: bool
    is_video: bool
    frame_count: int


class Frames:
    """Opens the pixels of instances of one archive; frames are never decoded."""

    def __init__(self, sources: Sources, prover: Prover) -> None:
        self._sources = sources
        self._prover = prover

    async def open(self, key: SeriesKey, instance_uid: str, *, reader: str = "") -> "OpenFrames":
        """How the pixels of an instance are kept, and a reader of its frames.

        Args:
            reader: names who reads, so that a scroll is recognised; empty: nothing is read ahead.

        Raises:
            FrameNotFound: the instance has no pixels.
            InstanceNotFound, InstanceUnreadable, SeriesInMotion: as `Prover.proven`.
        """

        async def use(index: SeriesIndex) -> OpenFrames:
            instance = await self._prover.proven(index, instance_uid, reader=reader)
            return OpenFrames(self._sources, self._prover, index, instance, reader)

        return await self._prover.with_index(key, use)


class OpenFrames:
    """The frames of one proven instance."""

    def __init__(
        self, sources: Sources, prover: Prover, index: SeriesIndex, instance: StoredInstance, reader: str
    ) -> None:
        self._sources = sources
        self._prover = prover
        self._reader = reader
        self._index = index
        self._instance = instance
        self._locator = _located(instance)
        self._source = sources.of(index, instance, reader)
        self.pixels = _describe(instance)
        self._ranges: dict[int, ByteRange] = {}
        """Of frames, relative to the P10: told once for each."""
        self._is_begun = False
        """Whether frames have left already: what follows must be of the same instance, byte for byte."""

    @property
    def identity(self) -> tuple[str, str]:
        """Changes whenever the bytes of a frame could."""
        return self._index.identity, self._instance.uid

    @property
    def path(self) -> str:
        """The instance's path below the service root."""
        return f"/{self._instance.key.stem}/instances/{self._instance.uid}"

    async def read(self, frame_indices: Sequence[int]) -> list[bytes | memoryview]:
        """Read encoded frames, in the order asked.

        One request to the bucket for neighbouring frames, several for distant ones.

        Args:
            frame_indices: from 0 (the wire counts from 1); repeats allowed.

        Returns:
            One payload per index: without item headers, native samples little-endian, 1-bit frames beginning at bit 0.

        Raises:
            FrameNotFound: an index is beyond NumberOfFrames (0028,0008).
            InstanceUnreadable: the stored structure leaves it in doubt which bytes are this frame.
            SeriesInMotion: so, while a writer's lock exists.
            ObjectChanged: the tar was replaced by one in which the pixels are kept differently.

        Source: PS3.18 §10.4.1.1.6 (Pixel Data Resources), PS3.5 §A.4 (encapsulation).
        """
        try:
            return await self._read(frame_indices)
        except (ObjectChanged, ObjectNotFound) as error:
            index = await self._prover.refreshed(self._index.key)
            instance = await self._prover.proven(index, self._instance.uid, reader=self._reader)
            if _describe(instance) != self.pixels or (self._is_begun and not are_same_bytes(instance, self._instance)):
                raise ObjectChanged(f"instance {instance.uid} of {instance.key} was rewritten meanwhile") from error
            self._index = index
            self._relocated(instance)
            self._source = self._sources.of(index, instance, self._reader)
            return await self._read(frame_indices)

    async def read_in_batches(self, frame_indices: Sequence[int]) -> AsyncIterator[bytes | memoryview]:
        """The same frames one by one, never more than about `SPAN_BYTES` of them in memory.

        Raises as `read` does, in the middle too: of two versions of an instance nothing is mixed.
        """
        batch: list[int] = []
        size = 0
        for index in frame_indices:
            length = self._range(index).length
            if batch and size + length > SPAN_BYTES:
                for payload in await self.read(batch):
                    yield payload
                self._is_begun = True
                batch, size = [], 0
            batch.append(index)
            size += length
        for payload in await self.read(batch):
            yield payload

    async def size_of(self, frame_indices: Sequence[int]) -> int:
        """Bytes that reading these frames moves, repeats counted; reads none. Raises as `read` does.

        All frames of an instance that has pixels and no frame are none: what its first frame lacks is the reason.
        """
        try:
            return sum([self._range(index).length for index in frame_indices or (0,)])
        except InstanceUnreadable as error:
            raise await self._doubt(error) from error

    async def _read(self, frame_indices: Sequence[int]) -> list[bytes | memoryview]:
        try:
            if self._locator.kind is PixelKind.DEFLATED:
                return await self._read_deflated(frame_indices)
            try:
                return await self._read_ranges(frame_indices)
            except InstanceUnreadable:
                if self._locator.kind is not PixelKind.ENCAPSULATED:
                    raise
            # An offset table lied: the fragments themselves tell.
            self._relocated(await self._prover.relocated(self._index, self._instance))
            return await self._read_ranges(frame_indices)
        except InstanceUnreadable as error:
            raise await self._doubt(error) from error

    def _range(self, frame_index: int) -> ByteRange:
        """Raises FrameNotFound, InstanceUnreadable."""
        known = self._ranges.get(frame_index)
        if known is None:
            known = self._ranges[frame_index] = frame_range(self._locator, frame_index)
        return known

    def _relocated(self, instance: StoredInstance) -> None:
        self._instance, self._locator = instance, _located(instance)
        self._ranges.clear()

    async def _doubt(self, error: InstanceUnreadable) -> StorageError:
        return await self._prover.doubt(self._index, f"instance {self._instance.uid} of {self._index.key}: {error}")

    async def _read_ranges(self, frame_indices: Sequence[int]) -> list[bytes | memoryview]:
        locator, tar, version = self._locator, self._index.key.tar, tar_version(self._index)
        base = self._instance.range.start
        ranges = [self._range(frame) for frame in frame_indices]
        if len(ranges) == 1:  # the hot path: no plan, no copy
            only = await self._source.read(tar, ranges[0].shifted(base), version=version)
            return [extract_frame(locator, frame_indices[0], only.data, ranges[0])]
        plan = coalesce(ranges, gap_bytes=GAP_BYTES, span_bytes=SPAN_BYTES)
        reads = await together(self._source.read(tar, planned.range.shifted(base), version=version) for planned in plan)
        frames: list[bytes | memoryview] = [b""] * len(ranges)
        for planned, read in zip(plan, reads, strict=True):
            data = memoryview(read.data)
            for member in planned.members:
                wanted = ranges[member].shifted(-planned.range.start)
                frames[member] = extract_frame(
                    locator, frame_indices[member], data[wanted.start : wanted.stop], ranges[member]
                )
        return frames

    async def _read_deflated(self, frame_indices: Sequence[int]) -> list[bytes | memoryview]:
        """Deflated data sets have no addressable frames: the instance is inflated, then cut."""
        ranges = [self._range(frame) for frame in frame_indices]
        place, version = self._instance.range, tar_version(self._index)
        stored = await self._source.read(self._index.key.tar, place, version=version)
        p10 = await asyncio.to_thread(open_p10, Window.of(stored.data))
        return [
            extract_frame(self._locator, frame, p10.window.view(wanted.start, wanted.stop))
            for frame, wanted in zip(frame_indices, ranges, strict=True)
        ]


def _located(instance: StoredInstance) -> PixelLocator:
    locator = instance.locator
    assert locator is not None  # proven instances are located
    if locator.kind is PixelKind.NONE and not locator.is_cut:
        raise FrameNotFound(f"instance {instance.uid} of {instance.key} has no pixel data")
    return locator


def _describe(instance: StoredInstance) -> InstancePixels:
    locator = _located(instance)
    syntax = instance.transfer_syntax_uid
    assert syntax is not None  # read together with the locator
    return InstancePixels(
        transfer_syntax_uid=syntax,
        is_native=locator.stored_kind is not PixelKind.ENCAPSULATED,
        is_big_endian=locator.is_big_endian,
        is_video=locator.is_video,
        frame_count=locator.frame_count,
    )
