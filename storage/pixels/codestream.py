"""What the header of a compressed frame says of itself: its geometry, its precision, and whether it is lossless.

Read before any decoder is asked, so that a few bytes cannot make it allocate gigabytes, and because the data set may
say something else.

Source: ITU-T T.81 §B (JPEG markers), T.87 §C (JPEG-LS), T.800 §A (JPEG 2000), T.814 (HTJ2K).
"""

from dataclasses import dataclass
from enum import Enum
from struct import unpack_from
from typing import Final

from storage.errors import InstanceUnreadable

MAX_HEADER_BYTES: Final = 1 << 20
"""Of a codestream, that are looked at: the markers in question come before any coded data."""

_SOC_SIZ: Final = b"\xff\x4f\xff\x51"
_JP2: Final = b"\0\0\0\x0cjP  "
_SOF_LOSSLESS: Final = 0xC3
_SOF_JPEG_LS: Final = 0xF7
_SOF: Final = frozenset({*range(0xC0, 0xD0), _SOF_JPEG_LS}) - {0xC4, 0xC8, 0xCC}
_SOS: Final = 0xDA
_COD, _COC, _SOT = 0x52, 0x53, 0x90


class Coding(Enum):
    """The families that are told apart."""

    JPEG = "JPEG"
    JPEG_LOSSLESS = "JPEG lossless"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"


@dataclass(frozen=True, slots=True)
class Codestream:
    """The header of a frame. `has_color_transform` is the multiple component transform of JPEG 2000 (RCT or ICT)."""

    coding: Coding
    rows: int
    columns: int
    samples: int
    precision: int
    is_signed: bool
    is_lossless: bool
    has_color_transform: bool


def read_codestream(payload: bytes | memoryview) -> Codestream:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Raises:
        InstanceUnreadable: it is none of these, it ends too early, or its components differ from one another.
    """
    data = bytes(memoryview(payload)[:MAX_HEADER_BYTES])
    try:
        if data.startswith(_JP2):
            start = data.find(_SOC_SIZ)
            return _jpeg_2000(data, start) if start >= 0 else _unknown(data)
        if data.startswith(_SOC_SIZ):
            return _jpeg_2000(data, 0)
        return _jpeg(data) if data.startswith(b"\xff\xd8") else _unknown(data)
    except (IndexError, ValueError) as error:  # what unpack_from and index say of too few bytes
        raise InstanceUnreadable(f"a codestream of {len(payload)} bytes ends within its header") from error
    except _TooShort as error:
        raise InstanceUnreadable(f"a codestream of {len(payload)} bytes ends within its header") from error


class _TooShort(Exception):
    """The header is longer than the bytes."""


def _unknown(data: bytes) -> Codestream:
    raise InstanceUnreadable(f"a frame that begins with {data[:4].hex() or 'nothing'} is no codestream that is known")


def _take(layout: str, data: bytes, position: int, size: int) -> tuple[int, ...]:
    if position + size > len(data):
        raise _TooShort
    return unpack_from(layout, data, position)


def _jpeg(data: bytes) -> Codestream:
    """The frame header, and for JPEG-LS the allowed error in the scan header behind it."""
    position, frame = 2, None
    while True:
        (prefix, code) = _take(">BB", data, position, 2)
        if prefix != 0xFF:
            raise InstanceUnreadable(f"no JPEG marker at {position}")
        if code == 0xFF:  # fill bytes
            position += 1
            continue
        (length,) = _take(">H", data, position + 2, 2)
        if code in _SOF:
            precision, rows, columns, samples = _take(">BHHB", data, position + 4, 6)
            frame = code, precision, rows, columns, samples
        elif code == _SOS:
            break
        position += 2 + length
    if frame is None:
        raise InstanceUnreadable("a JPEG scan without a frame header")
    code, precision, rows, columns, samples = frame
    (scan_samples,) = _take(">B", data, position + 4, 1)
    (near,) = _take(">B", data, position + 5 + 2 * scan_samples, 1)
    coding = {_SOF_LOSSLESS: Coding.JPEG_LOSSLESS, _SOF_JPEG_LS: Coding.JPEG_LS}.get(code, Coding.JPEG)
    is_lossless = coding is Coding.JPEG_LOSSLESS or (coding is Coding.JPEG_LS and near == 0)
    return Codestream(coding, rows, columns, samples, precision, False, is_lossless, False)


def _jpeg_2000(data: bytes, start: int) -> Codestream:
    """SIZ, and the coding style of the main header."""
    (length,) = _take(">H", data, start + 4, 2)
    right, bottom, left, top = _take(">IIII", data, start + 8, 16)
    (samples,) = _take(">H", data, start + 40, 2)
    components = {_take(">BBB", data, start + 42 + 3 * index, 3) for index in range(samples)}
    if len(components) != 1:
        raise InstanceUnreadable(f"a JPEG 2000 codestream whose {samples} components differ")
    ((depth, across, down),) = components
    if (across, down) != (1, 1):
        raise InstanceUnreadable(f"a JPEG 2000 codestream that is subsampled {across}:{down}")
    is_reversible, has_color_transform = True, False
    position = start + 4 + length
    while True:
        (marker,) = _take(">H", data, position, 2)
        if marker == 0xFF00 | _SOT:
            break
        (length,) = _take(">H", data, position + 2, 2)
        if marker == 0xFF00 | _COD:
            (color, transform) = _take(">B4xB", data, position + 8, 6)
            has_color_transform, is_reversible = bool(color), is_reversible and transform == 1
        elif marker == 0xFF00 | _COC:
            (transform,) = _take(">B", data, position + (10 if samples < 257 else 11), 1)
            is_reversible = is_reversible and transform == 1
        position += 2 + length
    precision, is_signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    return Codestream(
        Coding.JPEG_2000, bottom - top, right - left, samples, precision, is_signed, is_reversible, has_color_transform
    )
