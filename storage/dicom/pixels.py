"""Finding the frames of an instance.

Nothing that a file or a store says about positions is believed without a proof: frames of native pixel data follow from
the geometry; frames of encapsulated data from a table whose every read is verified against the item headers it should
cover, else from the fragments themselves. What cannot be told with certainty is an error, never a plausible image.

Source: PS3.5 §8 (native pixel data), §A.4 (encapsulation), PS3.3 §C.7.6.3 (image pixel), §C.7.6.16 (multi-frame).
"""

from __future__ import annotations  # array[int] cannot be evaluated before Python 3.12

from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from struct import unpack
from typing import Final, TypeAlias

from storage.dicom.cutting import extract_frame, frame_range
from storage.dicom.fragments import (
    ITEM,
    MAX_FRAGMENTS,
    SEQUENCE_END,
    Fragments,
    FragmentScanner,
    FragmentsUnknown,
    codestream_starts,
    scan_fragments,
)
from storage.dicom.locator import PixelKind, PixelLocator
from storage.dicom.nesting import DOUBLE_PIXEL_DATA, FLOAT_PIXEL_DATA
from storage.dicom.p10 import P10, Header, PixelElement, is_encapsulated
from storage.dicom.vr import WORD_BYTES
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

__all__ = [
    "FragmentScanner",
    "Fragments",
    "FragmentsUnknown",
    "PixelKind",
    "PixelLocator",
    "StoredTable",
    "extract_frame",
    "frame_range",
    "locate_pixels",
]

StoredTable = tuple[Sequence[int], Sequence[int]]
"""Positions and lengths of COD's offset table, relative to the P10: a hint (see the notes on the format)."""

MAX_FRAMES: Final = MAX_FRAGMENTS
"""A frame needs a fragment; and who asks for all frames must not be led through a million million of them."""
MAX_FRAME_BITS: Final = 8 * (2 << 30)
"""One native frame of 2 GiB; a geometry that asks for more is a lie."""

_FAMILY: Final = "1.2.840.10008.1.2.4."
_VIDEO: Final = frozenset(_FAMILY + str(number) + part for number in range(100, 109) for part in ("", ".1"))
"""MPEG2, H.264 and HEVC, and their fragmentable forms (PS3.5 §A.4.5-§A.4.7)."""
_JPEG: Final = frozenset(_FAMILY + str(number) for number in (*range(50, 67), 70, 80, 81))
_JPEG_2000: Final = frozenset(_FAMILY + number for number in ("90", "91", "92", "93", "201", "202", "203"))

Spans: TypeAlias = "tuple[array[int], array[int]]"
"""Starts and stops of frames, as `PixelLocator` keeps them."""


def locate_pixels(
    window: Window,
    p10: P10,
    header: Header,
    stored_table: StoredTable | None = None,
    *,
    fragments: Fragments | None = None,
    ignore_tables: bool = False,
) -> PixelLocator:
    """Find the frames of an instance.

    Args:
        window: of the file; it may hold more than the one that `p10` was opened on.
        stored_table: COD's offset table of the instance, if there is one.
        fragments: what a `FragmentScanner` found, after `FragmentsUnknown`.
        ignore_tables: tell frames by the fragments alone, after a table has been caught lying.

    Raises:
        MissingBytes: the window lacks an offset table or a few bytes behind the last frame.
        FragmentsUnknown: no table can be used, and the window lacks fragments that have to be scanned.
        InstanceUnreadable: the frames cannot be told apart with certainty.
    """
    pixels = header.pixels
    if pixels is None or pixels.start == pixels.stop:
        return PixelLocator(PixelKind.NONE, is_cut=header.is_cut)
    if header.frame_count > MAX_FRAMES:
        raise InstanceUnreadable(f"NumberOfFrames is {header.frame_count}, more than {MAX_FRAMES}")
    if p10.is_deflated:
        window = p10.window
    if _is_undefined(p10, pixels):
        located = _Encapsulated(window, p10, header, pixels).locate(stored_table, fragments, ignore_tables)
    else:
        located = _locate_native(p10, header, pixels)
    return replace(located, kind=PixelKind.DEFLATED, inner_kind=located.kind) if p10.is_deflated else located


def _is_undefined(p10: P10, pixels: PixelElement) -> bool:
    """Whether the pixels are encapsulated, which the transfer syntax must not contradict: it names what frames are."""
    is_undefined = pixels.stop < 0
    expected = is_encapsulated(p10.transfer_syntax_uid)
    if is_undefined and p10.is_guessed:
        raise InstanceUnreadable("encapsulated pixel data, and no transfer syntax that names its encoding")
    if expected is not None and expected != is_undefined:
        stored = "encapsulated" if is_undefined else "native"
        raise InstanceUnreadable(f"{stored} pixel data under transfer syntax {p10.transfer_syntax_uid}")
    return is_undefined


def _locate_native(p10: P10, header: Header, pixels: PixelElement) -> PixelLocator:
    frame_bits = _frame_bits(header, pixels)
    if frame_bits > MAX_FRAME_BITS:
        raise InstanceUnreadable(f"a frame of {frame_bits} bits")
    if frame_bits == 0 and header.frame_count > 1:
        raise InstanceUnreadable(f"{header.frame_count} native frames of unknown size")
    return PixelLocator(
        PixelKind.NATIVE,
        value_start=pixels.start,
        value_stop=pixels.stop,
        frame_count=header.frame_count,
        frame_bits=frame_bits,
        word_bytes=1 if p10.little_endian else _word_bytes(header, pixels),
        is_big_endian=not p10.little_endian,
    )


def _frame_bits(header: Header, pixels: PixelElement) -> int:
    """Bits of one native frame by its geometry; 0 where that is missing or makes no whole bytes.

    Source: PS3.5 §8.1.1, §8.2; PS3.3 §C.7.6.3.1.2 (YBR_FULL_422 has two samples a pixel).
    """
    if pixels.tag in (FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA):
        sample_bits, samples = (32 if pixels.tag == FLOAT_PIXEL_DATA else 64), 1
    else:
        sample_bits, samples = header.bits_allocated or 0, header.samples_per_pixel or 1
    if sample_bits != 1 and sample_bits % 8:
        return 0
    pixel_bits = (header.rows or 0) * (header.columns or 0) * sample_bits
    if samples == 3 and header.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        stored = pixels.stop - pixels.start
        if stored not in _padded_lengths(3 * pixel_bits * header.frame_count):  # some label 4:4:4 data so
            samples = 2
    return pixel_bits * samples


def _padded_lengths(bits: int) -> tuple[int, int]:
    """Lengths in bytes that a value of so many bits may have, with and without padding."""
    length = (bits + 7) // 8
    return length, length + length % 2


def _word_bytes(header: Header, pixels: PixelElement) -> int:
    """How many bytes of big endian pixel data are swapped together.

    OB is a string of bytes and never swapped, so samples of more than a byte in it have no certain order (PS3.5 §A.3).
    """
    bits = header.bits_allocated or 0
    if pixels.vr in ("OB", "UN"):
        if bits > 8:
            raise InstanceUnreadable(f"big endian samples of {bits} bits with VR {pixels.vr}")
        return 1
    if pixels.vr == "OW" and bits in (32, 64):
        return bits // 8
    return WORD_BYTES.get(pixels.vr, 1)


class _Encapsulated:
    """The ways to find frames of encapsulated pixel data, in the order in which they are trusted."""

    def __init__(self, window: Window, p10: P10, header: Header, pixels: PixelElement) -> None:
        self._window = window
        self._header = header
        self._pixels = pixels
        self._syntax = p10.transfer_syntax_uid
        self._stop = p10.stop
        self._count = header.frame_count

    def locate(self, stored: StoredTable | None, fragments: Fragments | None, ignore_tables: bool) -> PixelLocator:
        """Offset table of the file, extended one, the store's, then the fragments themselves."""
        table, first = self._basic_table()
        is_video = self._syntax in _VIDEO
        spans: Spans | None = None
        if is_video or self._count == 1:
            if not is_video and len(table) > 1:
                raise InstanceUnreadable(f"the offset table lists {len(table)} frames, NumberOfFrames says one")
            spans = array("Q", [first]), array("Q", [self._stop])
        elif not ignore_tables:
            spans = self._by_basic_table(table, first) or self._by_extended_table(first)
            closed = None if stored is None else self._by_stored_table(stored, first)
            if closed is not None and (not table if spans is None else spans[0] == closed[0]):
                spans = closed  # it also knows where the last frame ends
        if spans is None:
            if fragments is None:
                fragments = scan_fragments(self._window, first, self._stop)
            spans = self._by_fragments(fragments)
            if table and len(table) != self._count:
                spans = _agreed(spans, table, first)
        return PixelLocator(
            PixelKind.ENCAPSULATED,
            value_start=self._pixels.start,
            value_stop=self._stop,
            frame_count=len(spans[0]),
            is_video=is_video,
            span_starts=spans[0],
            span_stops=spans[1],
        )

    def _basic_table(self) -> tuple[array[int], int]:
        """The Basic Offset Table, and the position of the first fragment's item header."""
        start = self._pixels.start
        if self._stop - start < 8:
            raise InstanceUnreadable(f"encapsulated pixel data of {self._stop - start} bytes")
        header = bytes(self._window.view(start, start + 8))
        length = int.from_bytes(header[4:], "little")
        if header[:4] != ITEM or length % 4 or length > self._stop - start - 8:
            raise InstanceUnreadable(f"no Basic Offset Table at {start}")
        first = start + 8 + length
        return array("Q", unpack(f"<{length // 4}I", self._window.view(start + 8, first))), first

    def _by_basic_table(self, table: array[int], first: int) -> Spans | None:
        """Frames by the Basic Offset Table; None if it cannot be right. Its offsets wrap beyond 4 GiB."""
        if len(table) != self._count or table[0] != 0 or self._stop - first > 1 << 32:
            return None
        starts = array("Q", (first + offset for offset in table))
        return self._chained(starts)

    def _by_extended_table(self, first: int) -> Spans | None:
        """Frames by Extended Offset Table (7FE0,0001) and its lengths; None if they cannot be right.

        Source: PS3.3 §C.7.6.3.1.8: one fragment a frame.
        """
        offsets, lengths = self._header.extended_offsets, self._header.extended_lengths
        if (
            offsets is None
            or lengths is None
            or {offsets[1] - offsets[0], lengths[1] - lengths[0]} != {8 * self._count}
        ):
            return None
        positions = unpack(f"<{self._count}Q", self._window.view(*offsets))
        sizes = unpack(f"<{self._count}Q", self._window.view(*lengths))
        expected = 0
        for position, size in zip(positions, sizes, strict=True):
            if position != expected or not 0 < size <= self._stop:
                return None
            expected = position + 8 + size + size % 2
        starts = array("Q", (first + position for position in positions))
        return self._closed(starts, first + expected)

    def _by_stored_table(self, stored: StoredTable, first: int) -> Spans | None:
        """Frames by the store's table, if it is a gapless chain from the first fragment to the delimiter; else None.

        The store's writer leaves out the item header (8 bytes) of a frame's first fragment.
        """
        positions, lengths = stored
        if len(positions) != self._count or len(lengths) != self._count:
            return None
        expected = first + 8
        for position, length in zip(positions, lengths, strict=True):
            if position != expected or not 0 < length <= self._stop:
                return None
            expected = position + length + 8
        return self._closed(array("Q", (position - 8 for position in positions)), expected - 8)

    def _closed(self, starts: array[int], end: int) -> Spans | None:
        """Spans of frames that end at `end`, where the delimiter must be; None if it is not.

        Where the instance leaves room for nothing else, the delimiter is left to the read of the last frame.
        """
        if end + 8 > self._stop:
            return None
        if end + 8 < self._stop and bytes(self._window.view(end, end + 4)) != SEQUENCE_END:
            return None
        stops = starts[1:]
        stops.append(end + 8)
        return starts, stops

    def _chained(self, starts: array[int]) -> Spans | None:
        """Spans from start to start, the last to the end of the instance; None if one is shorter than an item."""
        stops = starts[1:]
        stops.append(self._stop)
        if any(stop - start < 8 for start, stop in zip(starts, stops, strict=True)):
            return None
        return starts, stops

    def _by_fragments(self, fragments: Fragments) -> Spans:
        """Frames by the fragments: as many of them as frames, or grouped by the ends of codestreams."""
        indices: Sequence[int] = range(len(fragments))
        if len(fragments) != self._count:
            indices = [index for index in indices if fragments.lengths[index]]
        if len(indices) != self._count:
            indices = self._codestreams(fragments)
        if len(indices) != self._count:
            raise InstanceUnreadable(f"{len(fragments)} fragments cannot be told apart into {self._count} frames")
        starts = array("Q", (fragments.starts[index] for index in indices))
        stops = starts[1:]
        stops.append(fragments.stop)
        return starts, stops

    def _codestreams(self, fragments: Fragments) -> list[int]:
        if self._syntax in _JPEG:
            return codestream_starts(fragments, b"\xff\xd8")
        return codestream_starts(fragments, b"\xff\x4f\xff\x51") if self._syntax in _JPEG_2000 else []


def _agreed(spans: Spans, table: array[int], first: int) -> Spans:
    """The spans that a Basic Offset Table of another length confirms; the others become 0 and 0, in doubt."""
    known = set(pairwise(table))
    for index, (start, stop) in enumerate(zip(*spans, strict=True)):
        if (start - first, stop - first) not in known:
            spans[0][index] = spans[1][index] = 0
    return spans
