"""One frame as a lossless codestream of a target syntax.

The precision and the sign of a codestream are those of Bits Stored and Pixel Representation, as PS3.5 asks.

Source: PS3.5 §8.2.3 (JPEG-LS), §8.2.4 (JPEG 2000), §8.2.16 (HTJ2K); ITU-T T.800 §A.5.1 (SIZ), §G.1 (DC level shift).
"""

from enum import StrEnum
from importlib import import_module
from typing import Any, Final

import imagecodecs
import numpy as np

from storage.pixels.decode import Samples, signed_view
from storage.pixels.description import PixelDescription

_SIZ: Final = b"\xff\x51"
_SPIFF: Final = b"\xff\xe8"
_JPEG_LS_ROOM: Final = 1 << 16
"""How many bytes a JPEG-LS frame may grow before the encoder gives up; a frame that grows is of no use."""


class Target(StrEnum):
    """What pixels can be transcoded to; all of them lossless."""

    J2K = "j2k"
    HTJ2K = "htj2k"
    JLS = "jls"

    @property
    def transfer_syntax_uid(self) -> str:
        return _SYNTAXES[self]

    @property
    def is_jpeg_2000(self) -> bool:
        return self is not Target.JLS


_SYNTAXES: Final = {
    Target.J2K: "1.2.840.10008.1.2.4.90",
    Target.HTJ2K: "1.2.840.10008.1.2.4.201",
    Target.JLS: "1.2.840.10008.1.2.4.80",
}


class NotEncoded(Exception):
    """A frame cannot be written so; the message says why."""


def encode_frame(samples: Samples, description: PixelDescription, target: Target, *, color_transform: bool) -> bytes:
    """Encode a frame without loss.

    Args:
        samples: words as `decode_frame` gives them, whose bits above Bits Stored hold nothing but the sign.
        color_transform: apply the reversible component transform (RCT); JPEG 2000 only.

    Raises:
        NotEncoded: the encoder refused.
    """
    try:
        if target is Target.J2K:
            return _j2k(samples, description, color_transform)
        if target is Target.HTJ2K:
            return _htj2k(samples, description, color_transform)
        return _jls(samples, description)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:  # what the encoders raise
        raise NotEncoded(f"the {target} encoder refused: {error}") from error


def _j2k(samples: Samples, description: PixelDescription, color_transform: bool) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            signed_view(samples, description),
            level=0,
            codecformat="j2k",
            bitspersample=description.bits_stored,
            reversible=True,
            mct=color_transform,
            numthreads=1,
        )
    )


def _htj2k(samples: Samples, description: PixelDescription, color_transform: bool) -> bytes:
    """HTJ2K of any precision, from an encoder that only knows 8 and 16 bits.

    Samples of fewer bits are moved around zero first, which is all that the DC level shift of T.800 §G.1 does, and are
    encoded as signed ones, which have no such shift. The coded data are then those of the true precision, and SIZ is
    made to name it. The exponents in QCD stay those of whole words: a decoder goes by them, whatever the precision.
    """
    values, is_exact = signed_view(samples, description), description.bits_stored == description.bits_allocated
    if not is_exact and not description.is_signed:
        values = (samples.astype(np.int32) - (1 << description.bits_stored - 1)).astype(f"i{samples.itemsize}")
    is_planar = description.samples > 1 and not color_transform
    if is_planar:
        values = values.transpose(2, 0, 1)
    options: dict[str, Any] = {"rgb": color_transform, "planar": is_planar} if description.samples > 1 else {}
    stream = imagecodecs.htj2k_encode(np.ascontiguousarray(values), reversible=True, **options)
    return bytes(stream) if is_exact else _of_precision(stream, description)


def _of_precision(stream: bytes | bytearray, description: PixelDescription) -> bytes:
    """The codestream with Ssiz of every component set to the precision and sign of the data set."""
    changed = bytearray(stream)
    start = changed.index(_SIZ, 2)
    for index in range(description.samples):
        changed[start + 40 + 3 * index] = description.bits_stored - 1 | description.is_signed << 7
    return bytes(changed)


def _jls(samples: Samples, description: PixelDescription) -> bytes:
    """JPEG-LS; samples in it are never signed, so signed ones lie there as Bits Stored bits of two's complement."""
    words = np.ascontiguousarray(samples)
    if description.bits_stored == description.bits_allocated:
        return _without_spiff(imagecodecs.jpegls_encode(words, out=words.nbytes + _JPEG_LS_ROOM))
    words = words & words.dtype.type((1 << description.bits_stored) - 1)
    rows, columns, count = description.rows, description.columns, description.samples
    by_pixel = 2 if count > 1 else None
    encoded: bytearray = _pyjpegls(description.bits_stored).encode_buffer(
        words.tobytes(), rows, columns, count, description.bits_stored, interleave_mode=by_pixel
    )
    return bytes(encoded)


def _pyjpegls(bits: int) -> Any:
    """The second JPEG-LS encoder (a module without types): imagecodecs writes 8 and 16 bits only."""
    try:
        return import_module("jpeg_ls")
    except ImportError as error:
        raise NotEncoded(f"JPEG-LS of {bits} bits needs the package pyjpegls") from error


def _without_spiff(stream: bytes | bytearray) -> bytes:
    """The stream without the file header that the encoder puts in front, which is no part of an interchange format."""
    position = 2
    while stream[position : position + 2] == _SPIFF:
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return bytes(stream[:2] + stream[position:])
