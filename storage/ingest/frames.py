"""The offset table that metadata.json keeps of a multi-frame instance, and where its pixel data ends.

A table is written only where it is exact: a range of it, read from the tar, is one frame as stored and nothing else.
Several fragments to a frame, unaligned 1-bit frames and deflated data sets have no such ranges, and so no table.

Source: PS3.5 §A.4 (encapsulated pixel data), PS3.3 §C.7.6.3.1.8 (Extended Offset Table).
"""

from struct import unpack

from storage.cod.entry_parts import OffsetTable
from storage.dicom.locator import PixelKind
from storage.dicom.p10 import P10, Header
from storage.dicom.pixels import locate_pixels
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

PIXEL_DATA = 0x7FE00010
"""The only pixel element that tables are kept of: the published library knows no other."""

MAX_ITEMS = 10_000_000
"""Fragments of one instance; a slide has 10⁵."""

_VIDEO_FAMILY = "1.2.840.10008.1.2.4.10"
"""MPEG2, H.264 and HEVC are …4.100 to …4.108: their fragments are pieces of a stream, as many as there happen to be."""

_ITEM = 0xFFFEE000
_SEQUENCE_DELIMITER = 0xFFFEE0DD
_UNDEFINED_LENGTH = 0xFFFFFFFF
_HEADER_BYTES = 8


class ItemWalk:
    """Walks the items of encapsulated pixel data, in one go over the bytes of a file.

    Args:
        start: position of the first item.
        size: of the file.
        frame_count: fragments beyond it are counted and not kept.
    """

    def __init__(self, start: int, size: int, frame_count: int) -> None:
        self._size = size
        self._frame_count = frame_count
        self._position = start
        self._wanted = _HEADER_BYTES
        self._held = b""
        self._items = 0
        self._is_in_table = False
        self.offsets: bytes | None = None
        """The Basic Offset Table; anything of another length if it is too long for so many frames."""
        self.positions: list[int] = []
        self.lengths: list[int] = []
        self.stop: int | None = None
        """Behind the sequence delimiter; None: it was not found, and nothing here is certain."""

    def feed(self, start: int, chunk: bytes) -> None:
        """Take the bytes at `start`; the next call goes on behind them."""
        stop = start + len(chunk)
        while self._wanted and self._position < stop:
            offset = max(0, self._position - start)
            part = chunk[offset : offset + self._wanted - len(self._held)]
            self._held += part
            self._position = start + offset + len(part)
            if len(self._held) == self._wanted:
                taken, self._held = self._held, b""
                self._take(taken)

    def _take(self, taken: bytes) -> None:
        """A header, or the offset table."""
        if self._is_in_table:
            self.offsets = taken
            self._is_in_table = False
            self._wanted = _HEADER_BYTES
            return
        group, element, length = unpack("<HHI", taken)
        tag = group << 16 | element
        self._items += 1
        if tag == _SEQUENCE_DELIMITER:
            self.stop = self._position
        is_item = tag == _ITEM and length != _UNDEFINED_LENGTH and length <= self._size - self._position
        if not is_item or self._items > MAX_ITEMS:
            self._wanted = 0
        elif self.offsets is None and 0 < length <= 4 * min(self._frame_count, MAX_ITEMS):
            self._is_in_table = True
            self._wanted = length
        elif self.offsets is None:
            self.offsets = b"too long" if length else b""
            self._position += length
        else:
            if len(self.positions) <= self._frame_count:
                self.positions.append(self._position)
                self.lengths.append(length)
            self._position += length


def item_walk(p10: P10, header: Header) -> ItemWalk | None:
    """The walk that has to be fed before the frames of an instance can be found; None: it has no items to walk."""
    pixels = header.pixels
    if pixels is None or pixels.tag != PIXEL_DATA or pixels.stop >= 0 or p10.is_deflated:
        return None
    return ItemWalk(pixels.start, p10.file_window.size, header.frame_count)


def encapsulated_table(p10: P10, header: Header, walk: ItemWalk) -> OffsetTable | None:
    """The frames that the items of a walk tell; doubt is an answer without a table.

    As many fragments as frames means one fragment to each frame, for no frame is without one (PS3.5 §A.4); a Basic
    Offset Table must say the same.
    """
    if walk.stop is None or p10.transfer_syntax_uid.startswith(_VIDEO_FAMILY):
        return None
    if header.frame_count < 2 or len(walk.positions) != header.frame_count:
        return None
    return OffsetTable(tuple(walk.positions), tuple(walk.lengths)) if _agrees(walk) else None


def _agrees(walk: ItemWalk) -> bool:
    """Whether a Basic Offset Table is empty or names exactly these fragments."""
    offsets, positions = walk.offsets, walk.positions
    if not offsets:
        return True
    if len(offsets) != 4 * len(positions):
        return False
    return list(unpack(f"<{len(positions)}I", offsets)) == [position - positions[0] for position in positions]


def native_table(window: Window, p10: P10, header: Header) -> OffsetTable | None:
    """The frames of native pixel data, told by their geometry.

    Raises:
        MissingBytes: the window lacks a few bytes behind the last frame.
    """
    pixels = header.pixels
    if pixels is None or pixels.tag != PIXEL_DATA or pixels.stop < 0 or p10.is_deflated or header.frame_count < 2:
        return None
    try:
        locator = locate_pixels(window, p10, header, None)
    except InstanceUnreadable:
        return None
    frame_bytes, odd_bits = divmod(locator.frame_bits, 8)
    count = locator.frame_count
    if locator.kind != PixelKind.NATIVE or odd_bits or frame_bytes * count > pixels.stop - pixels.start:
        return None
    positions = tuple(locator.value_start + index * frame_bytes for index in range(count))
    return OffsetTable(positions, (frame_bytes,) * count)
