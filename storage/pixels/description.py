"""What a data set says of its pixels: the Image Pixel Module, in the words that a codec needs.

Source: PS3.3 §C.7.6.3 (Image Pixel Module), PS3.5 §8.1.1 (pixel data encoding of related data elements).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import unpack
from typing import Final

from storage.dicom.p10 import P10
from storage.errors import InstanceUnreadable

SAMPLES_PER_PIXEL: Final = 0x00280002
PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
PLANAR_CONFIGURATION: Final = 0x00280006
ROWS: Final = 0x00280010
COLUMNS: Final = 0x00280011
BITS_ALLOCATED: Final = 0x00280100
BITS_STORED: Final = 0x00280101
HIGH_BIT: Final = 0x00280102
PIXEL_REPRESENTATION: Final = 0x00280103
DESCRIBING_TAGS: Final = frozenset(
    {SAMPLES_PER_PIXEL, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, ROWS, COLUMNS}
    | {BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION}
)

_PHOTOMETRIC: Final = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420"}
    | {"YBR_PARTIAL_422", "YBR_RCT", "YBR_ICT", "XYB", "ARGB", "HSV", "CMYK"}
)

Place = tuple[str, int, int]
"""(vr, value_start, value_stop) in the window of the data set."""


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """How the frames of one instance are coded; every frame is coded alike."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_planar: bool
    """Planar Configuration 1: a native frame holds all of the first sample, then all of the second."""
    photometric: str
    """One of the defined terms, else "unknown": nothing else of a file may get into messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a decoded frame: rows, columns, and the samples where there are several."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def frame_bytes(self) -> int:
        """Of a decoded frame, whose samples are words of 8 or 16 bits."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8


def describe_pixels(p10: P10, places: Mapping[int, Place]) -> PixelDescription:
    """The description that a data set gives.

    Args:
        places: of the top-level elements among `DESCRIBING_TAGS` that are there.

    Raises:
        InstanceUnreadable: one that must be there is not, or is no number.
    """

    def number(tag: int, default: int | None = None) -> int:
        place = places.get(tag)
        if place is None and default is not None:
            return default
        if place is None or place[2] - place[1] != 2:
            raise InstanceUnreadable(f"element {tag:08X} of the pixels is missing or not one number")
        return int(unpack("<H" if p10.little_endian else ">H", p10.window.view(place[1], place[2]))[0])

    _, start, stop = places.get(PHOTOMETRIC_INTERPRETATION, ("", 0, 0))
    name = bytes(p10.window.view(start, min(stop, start + 64))).decode("ascii", "replace").strip(" \0")
    bits_stored = number(BITS_STORED)
    return PixelDescription(
        transfer_syntax_uid=p10.transfer_syntax_uid,
        rows=number(ROWS),
        columns=number(COLUMNS),
        samples=number(SAMPLES_PER_PIXEL),
        bits_allocated=number(BITS_ALLOCATED),
        bits_stored=bits_stored,
        high_bit=number(HIGH_BIT, bits_stored - 1),
        is_signed=number(PIXEL_REPRESENTATION) != 0,
        is_planar=number(PLANAR_CONFIGURATION, 0) != 0,
        photometric=name if name in _PHOTOMETRIC else "unknown",
    )
