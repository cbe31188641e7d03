"""`PixelLocator`: where the frames of one instance are, as a value that fits an index file.

Source: PS3.5 §8 (native pixel data), §A.4 (encapsulated pixel data).
"""

from __future__ import annotations  # array[int] cannot be evaluated before Python 3.12

import sys
from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Final

from storage.errors import InstanceUnreadable


class PixelKind(IntEnum):
    """How the pixels of an instance are stored."""

    NONE = 0
    NATIVE = 1
    ENCAPSULATED = 2
    DEFLATED = 3
    """The whole data set is one deflate stream: positions are those of the inflated data set (PS3.5 §A.5)."""
    DOUBTFUL = 4
    """There are pixels, and no telling with certainty which bytes are which frame."""


def no_spans() -> array[int]:
    """An empty array of positions."""
    return array("Q")


@dataclass(frozen=True, slots=True)
class PixelLocator:
    """Where the frames of one instance are; positions count from the first byte of the P10 (its preamble).

    - NATIVE: the value is [value_start, value_stop); a frame has `frame_bits` bits (0: not known, the one frame is the
      whole value). `word_bytes` > 1: samples are big endian and swapped in words of that size.
    - ENCAPSULATED: frame i lies in [span_starts[i], span_stops[i]): its whole items with their headers; the last span
      also holds the sequence delimiter, and may run on to the end of the instance. 0 and 0: this frame is in doubt.
      A video is one frame. The value without its end known has value_stop at the end of the instance.
    - DEFLATED: as `inner_kind`, within the inflated data set.
    - DOUBTFUL: nothing more is known.
    - NONE: no pixel data, or none any more if `is_cut`: the file ends within an element.
    """

    kind: PixelKind
    value_start: int = 0
    value_stop: int = 0
    frame_count: int = 0
    frame_bits: int = 0
    word_bytes: int = 1
    is_big_endian: bool = False
    is_video: bool = False
    is_cut: bool = False
    inner_kind: PixelKind = PixelKind.NONE
    span_starts: array[int] = field(default_factory=no_spans)
    span_stops: array[int] = field(default_factory=no_spans)

    @property
    def stored_kind(self) -> PixelKind:
        """NONE, NATIVE or ENCAPSULATED, also for a deflated instance."""
        return self.inner_kind if self.kind is PixelKind.DEFLATED else self.kind

    def to_bytes(self) -> bytes:
        """The locator in a compact form: a header and packed positions, of four bytes each where they suffice."""
        starts, stops = self.span_starts, self.span_stops
        is_chained = len(starts) > 0 and starts[1:] == stops[:-1]
        positions = starts + (stops[-1:] if is_chained else stops)
        is_wide = max(positions, default=0) > 0xFFFFFFFF
        flags = self.is_video | self.is_big_endian << 1 | is_wide << 2 | is_chained << 3 | self.is_cut << 4
        packed = positions if is_wide else array("I", positions)
        if sys.byteorder == "big":
            packed.byteswap()
        fixed = _FIXED.pack(
            _MAGIC,
            self.kind,
            self.inner_kind,
            self.word_bytes,
            flags,
            self.value_start,
            self.value_stop,
            self.frame_count,
            self.frame_bits,
        )
        return fixed + packed.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> PixelLocator:
        """The locator that `to_bytes` wrote.

        Raises:
            InstanceUnreadable: the bytes are no locator of this version, or damaged.
        """
        if len(data) < _FIXED.size:
            raise InstanceUnreadable(f"a pixel locator of {len(data)} bytes")
        magic, kind, inner, word_bytes, flags, start, stop, frames, bits = _FIXED.unpack_from(data)
        is_chained = bool(flags & 8)
        width = 8 if flags & 4 else 4
        size = (frames + 1 if is_chained else 2 * frames) * width
        if PixelKind.ENCAPSULATED not in (kind, inner):
            size = 0
        if magic != _MAGIC or max(kind, inner) > PixelKind.DOUBTFUL or len(data) != _FIXED.size + size or start > stop:
            raise InstanceUnreadable("the stored pixel locator is damaged or of another version")
        positions = array("Q" if flags & 4 else "I")
        positions.frombytes(memoryview(data)[_FIXED.size :])
        if sys.byteorder == "big":
            positions.byteswap()
        if width == 4:
            positions = array("Q", positions)
        return cls(
            kind=PixelKind(kind),
            value_start=start,
            value_stop=stop,
            frame_count=frames,
            frame_bits=bits,
            word_bytes=word_bytes,
            is_big_endian=bool(flags & 2),
            is_video=bool(flags & 1),
            is_cut=bool(flags & 16),
            inner_kind=PixelKind(inner),
            span_starts=positions[:-1] if is_chained else positions[:frames],
            span_stops=positions[1:] if is_chained else positions[frames:],
        )


_MAGIC: Final = b"PXL1"
_FIXED: Final = Struct("<4sBBBBQQQQ")
"""Magic, kind, inner kind, word bytes, flags, value start and stop, frame count, bits of a frame."""
