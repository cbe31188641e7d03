"""Reads P10 headers by ranges of the tar: a parser says which bytes it lacks, they are fetched, it starts again.

Parsers stay plain functions over a `Window` and are tested without a loop; every restart brings a larger piece, so a
header of n bytes costs O(log n) requests and parses. Fragments without a table are streamed once, in flat memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from storage.bucket.base import ObjectBytes
from storage.dicom.fragments import ITEM, SEQUENCE_END, Fragments, FragmentScanner, FragmentsUnknown
from storage.dicom.locator import PixelKind, PixelLocator
from storage.dicom.p10 import P10, Header, open_p10, read_header
from storage.dicom.pixels import StoredTable, locate_pixels
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from storage.ranges import ByteRange

Result = TypeVar("Result")

FIRST_READ_BYTES = 64 * 1024
"""Covers the header of nearly every image; with pixels of a small one behind it."""
_LARGEST_STEP_BYTES = 16 << 20
_MOST_READS = 400
_ITEM_HEADER_BYTES = 8
_MOST_LAST_FRAGMENTS = 64
"""Of the last frame, each a request; the pieces of a video are many more, and nobody signs what stands behind it."""
_OFF_LOOP_BYTES = 4 << 20
"""Windows above this are parsed in a thread: below, a parse takes less than the hop."""


class RangeReader(Protocol):
    """What reads ranges of objects: a bucket, or what reads ahead of it. Raises as `Bucket` does."""

    async def read(self, key: str, range: ByteRange, *, version: str) -> ObjectBytes: ...

    def stream(self, key: str, range: ByteRange, *, version: str) -> AsyncIterator[memoryview]: ...


class InstanceSource:
    """The bytes of one instance in a tar of one version, loaded as far as somebody asked."""

    def __init__(
        self, reader: RangeReader, key: str, version: str, place: ByteRange, window: Window | None = None
    ) -> None:
        """`window`: what is known already."""
        self._reader = reader
        self._key = key
        self._version = version
        self._place = place
        self._step = FIRST_READ_BYTES
        self._loaded = 0
        self.window = window if window is not None else Window(place.length)

    async def parse(self, parser: Callable[[Window], Result]) -> Result:
        """Run a synchronous parser, fetching what it asks for; positions count from the first byte of the instance.

        Raises:
            InstanceUnreadable: from the parser, or when it asks for more pieces than any sound file needs.
            FragmentsUnknown: from the parser; reading them all into memory is not for here.
            ObjectChanged, ObjectTruncated, StorageUnavailable: from the bucket.
        """
        for _ in range(_MOST_READS):
            try:
                if self._loaded > _OFF_LOOP_BYTES:
                    return await asyncio.to_thread(parser, self.window)
                return parser(self.window)
            except FragmentsUnknown:
                raise
            except MissingBytes as missing:
                await self._load(missing)
        raise InstanceUnreadable(f"the instance at {self._place.start} asks for more than {_MOST_READS} pieces")

    async def peek(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the instance, and no others; they are not kept.

        Raises: as `parse`.
        """
        try:
            return bytes(self.window.view(start, stop))
        except MissingBytes:
            wanted = ByteRange(start, stop).shifted(self._place.start)
            return bytes((await self._reader.read(self._key, wanted, version=self._version)).data)

    async def scan_fragments(self, unknown: FragmentsUnknown) -> Fragments:
        """Find the fragments by one streaming pass. Raises InstanceUnreadable."""
        scanner = FragmentScanner(unknown.start, self._place.length)
        rest = ByteRange(unknown.start, self._place.length).shifted(self._place.start)
        async for chunk in self._reader.stream(self._key, rest, version=self._version):
            scanner.feed(chunk)
            if scanner.is_finished:
                break
        return scanner.finish()

    async def _load(self, missing: MissingBytes) -> None:
        stop = min(self._place.length, max(missing.stop, missing.start + self._step))
        wanted = ByteRange(missing.start, stop).shifted(self._place.start)
        self.window.add(missing.start, (await self._reader.read(self._key, wanted, version=self._version)).data)
        self._loaded += wanted.length
        self._step = min(self._step * 4, _LARGEST_STEP_BYTES)


@dataclass(frozen=True, slots=True)
class Located:
    """A proven instance: its header, and where its frames are."""

    p10: P10
    header: Header
    locator: PixelLocator


async def read_located(
    source: InstanceSource, original_uid: str, stored_table: StoredTable | None, *, ignore_tables: bool = False
) -> Located:
    """Prove an instance by its header, and find its frames.

    Pixels whose frames cannot be told apart do not spoil the rest: their locator is of kind DOUBTFUL.

    Args:
        original_uid: the SOP Instance UID that the header must have.
        ignore_tables: tell frames by their fragments alone, after a table was caught lying.

    Raises:
        InstanceUnreadable: the header is that of another instance, or has no readable structure.
        ObjectChanged, ObjectTruncated, StorageUnavailable: from the bucket.
    """

    def parse(window: Window) -> tuple[P10, Header]:
        p10 = open_p10(window)
        header = read_header(p10)
        check_identity(header, original_uid)
        return p10, header

    p10, header = await source.parse(parse)
    fragments: Fragments | None = None

    def locate(window: Window) -> PixelLocator:
        return locate_pixels(window, p10, header, stored_table, fragments=fragments, ignore_tables=ignore_tables)

    try:
        try:
            locator = await source.parse(locate)
        except FragmentsUnknown as unknown:
            fragments = await source.scan_fragments(unknown)
            locator = await source.parse(locate)
    except InstanceUnreadable:
        locator = PixelLocator(PixelKind.DOUBTFUL)
    return Located(p10, header, locator)


async def tail_start(source: InstanceSource, locator: PixelLocator, stop: int) -> int | None:
    """Where attributes behind encapsulated pixels begin (private ones, digital signatures); None: none can be found.

    Costs no request where the last frame is one fragment whose header is known, and nothing comes behind it.

    Args:
        stop: where the data set ends.

    Raises:
        ObjectChanged, ObjectTruncated, StorageUnavailable: from the bucket.
    """
    if locator.kind is not PixelKind.ENCAPSULATED or not locator.span_stops or locator.span_stops[-1] == 0:
        return None
    if locator.span_stops[-1] < stop:
        return locator.span_stops[-1]
    position = locator.span_starts[-1]
    for _ in range(_MOST_LAST_FRAGMENTS):
        if stop - position <= _ITEM_HEADER_BYTES:  # room for the sequence delimiter, and for nothing behind it
            break
        header = await source.peek(position, position + _ITEM_HEADER_BYTES)
        position += _ITEM_HEADER_BYTES
        if header[:4] == SEQUENCE_END:
            return position
        if header[:4] != ITEM:
            break
        position += int.from_bytes(header[4:], "little")
    return None


def check_identity(header: Header, original_uid: str) -> None:
    """Raises InstanceUnreadable unless the header is that of the instance it should be."""
    if header.sop_instance_uid != original_uid:  # neither is named: in a de-identified store they are secrets
        raise InstanceUnreadable("the bytes at its place in the tar belong to another instance")
