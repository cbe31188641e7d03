"""The offset table that metadata.json keeps of a multi-frame instance, and where its pixel data ends.

A table is written only where it is exact: a range of it, read from the tar, is one frame as stored and nothing else.
Several fragments to a frame, unaligned 1-bit frames and deflated data sets have no such ranges, and so no table.

Source: PS3.5 §A.4 (encapsulated pixel data), PS3.3 §C.7.6.3.1.8 (Extended Offset Table).
"""

from dataclasses import dataclass
from functools import partial
from struct import unpack

from storage.cod.writing import OffsetTable
from storage.dicom.locator import PixelKind
from storage.dicom.p10 import P10, Header
from storage.dicom.pixels import locate_pixels
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.ingest.source import OpenSource

PIXEL_DATA = 0x7FE00010
"""The only pixel element that tables are kept of: the published library knows no other."""

MAX_ITEMS = 10_000_000
"""Fragments of one instance; a slide has 10⁵."""

_VIDEO_FAMILY = "1.2.840.10008.1.2.4.10"
"""MPEG2, H.264 and HEVC are …4.100 to …4.108: their fragments are pieces of a stream, as many as there happen to be."""

_ITEM = 0xFFFEE000
_SEQUENCE_DELIMITER = 0xFFFEE0DD
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Frames:
    """What was found out about the pixel data of one instance."""

    table: OffsetTable | None = None
    tail_start: int | None = None
    """Where the attributes behind encapsulated pixel data begin; None: there are none that can be found."""


def find_frames(source: OpenSource, window: Window, p10: P10, header: Header) -> Frames:
    """Find the frames of an instance; doubt is an answer without a table, never an error."""
    pixels = header.pixels
    if pixels is None or pixels.tag != PIXEL_DATA or p10.is_deflated:
        return Frames()
    if pixels.stop < 0:
        frames = _encapsulated(source, pixels.start, header.frame_count)
        is_video = p10.transfer_syntax_uid.startswith(_VIDEO_FAMILY)
        return Frames(tail_start=frames.tail_start) if is_video else frames
    if header.frame_count < 2:
        return Frames()
    try:
        locator = source.parse(window, partial(locate_pixels, window, p10, header, None))
    except InstanceUnreadable:
        return Frames()
    frame_bytes, odd_bits = divmod(locator.frame_bits, 8)
    count = locator.frame_count
    if locator.kind != PixelKind.NATIVE or odd_bits or frame_bytes * count > pixels.stop - pixels.start:
        return Frames()
    positions = tuple(locator.value_start + index * frame_bytes for index in range(count))
    return Frames(OffsetTable(positions, (frame_bytes,) * count))


def _encapsulated(source: OpenSource, start: int, frame_count: int) -> Frames:
    """Walk the items of encapsulated pixel data, by reads of eight bytes.

    As many fragments as frames means one fragment to each frame, for no frame is without one (PS3.5 §A.4); a Basic
    Offset Table must say the same.
    """
    offsets: bytes | None = None
    positions: list[int] = []
    lengths: list[int] = []
    position = start
    for _ in range(MAX_ITEMS):
        if position + 8 > source.state.size:
            return Frames()
        group, element, length = unpack("<HHI", source.read(position, position + 8))
        tag = group << 16 | element
        position += 8
        if tag == _SEQUENCE_DELIMITER:
            break
        if tag != _ITEM or length == _UNDEFINED_LENGTH or length > source.state.size - position:
            return Frames()
        if offsets is None:
            offsets = source.read(position, position + length) if length <= 4 * frame_count else b"too many"
        elif len(positions) <= frame_count:
            positions.append(position)
            lengths.append(length)
        position += length
    else:
        return Frames()
    if frame_count < 2 or len(positions) != frame_count or not _agrees(offsets or b"", positions):
        return Frames(tail_start=position)
    return Frames(OffsetTable(tuple(positions), tuple(lengths)), position)


def _agrees(offsets: bytes, positions: list[int]) -> bool:
    """Whether a Basic Offset Table is empty or names exactly these fragments."""
    if not offsets:
        return True
    if len(offsets) != 4 * len(positions):
        return False
    return list(unpack(f"<{len(positions)}I", offsets)) == [position - positions[0] for position in positions]
