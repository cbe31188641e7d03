"""One frame as samples.

Decoders are asked only after the header of the frame has said the size that the data set says. Samples come in the
colour space that is stored, with two exceptions that the codec itself undoes: the component transforms of JPEG 2000.

imagecodecs releases the GIL in every codec that is used here.

Source: PS3.5 §8.1.1, §8.2 and Annex G (RLE); PS3.3 §C.7.6.3.1.
"""

import zlib
from typing import Any, Final, TypeAlias  # numpy's dtype is a parameter nobody needs here

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from storage.dicom.p10 import ENCAPSULATED_UNCOMPRESSED, NATIVE_SYNTAXES, RLE
from storage.errors import InstanceUnreadable
from storage.pixels.codestream import Codestream, Coding, read_codestream
from storage.pixels.description import PixelDescription

Samples: TypeAlias = NDArray[Any]
"""Unsigned words of 8 or 16 bits, (rows, columns) or (rows, columns, 3)."""

DEFLATED_FRAMES: Final = "1.2.840.10008.1.2.8.1"
JPEG_XL: Final = frozenset({"1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"})
HTJ2K: Final = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})

MAX_FRAME_BYTES: Final = 1 << 29
"""Of one decoded frame: 512 MiB, twice the largest mammogram or slide tile there is by a wide margin."""

_CODEC_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, MemoryError)
"""What imagecodecs raises; each codec's own error is a RuntimeError."""


def decode_frame(payload: bytes | memoryview, description: PixelDescription) -> Samples:
    """Decode a frame as `extract_frame` gives it: native samples little endian, encapsulated ones without items.

    Signed samples come as the words that would be stored, in two's complement of all their bits: `signed_view` reads
    them. Samples of fewer bits than a word are extended as their sign asks.

    Raises:
        InstanceUnreadable: broken, of another size than the data set says, or of a kind that is not decoded here.
    """
    if description.bits_allocated not in (8, 16) or description.samples not in (1, 3):
        raise InstanceUnreadable(f"{description.samples} samples of {description.bits_allocated} bits are not decoded")
    if not 0 < description.frame_bytes <= MAX_FRAME_BYTES:
        raise InstanceUnreadable(f"a frame of {description.frame_bytes} bytes is not decoded")
    syntax = description.transfer_syntax_uid
    if syntax in NATIVE_SYNTAXES or syntax == ENCAPSULATED_UNCOMPRESSED:
        return _native(payload, description)
    if syntax == DEFLATED_FRAMES:
        return _native(_inflated(payload, description.frame_bytes), description)
    coded = bytes(payload)  # imagecodecs declares no views; where it is one, the copy is of coded bytes
    if syntax == RLE:
        return _run_lengths(coded, description)
    return _jpeg_xl(coded, description) if syntax in JPEG_XL else _codestream(coded, description)


def signed_view(samples: Samples, description: PixelDescription) -> Samples:
    """The values that the words stand for, without a copy."""
    return samples.view(np.dtype(f"i{samples.itemsize}")) if description.is_signed else samples


def word_type(description: PixelDescription) -> "np.dtype[Any]":
    """The unsigned type of the stored words."""
    return np.dtype(f"<u{description.bits_allocated // 8}")


def _native(payload: bytes | memoryview, description: PixelDescription) -> Samples:
    wanted = description.frame_bytes
    if not wanted <= len(payload) <= wanted + wanted % 2:
        raise InstanceUnreadable(f"a native frame has {len(payload)} bytes, {wanted} were expected")
    words = np.frombuffer(payload, word_type(description), count=wanted * 8 // description.bits_allocated)
    if description.samples > 1 and description.is_planar:
        return _interleaved(words, description)
    return words.reshape(description.shape)


def _interleaved(words: Samples, description: PixelDescription) -> Samples:
    planes = words.reshape(description.samples, description.rows, description.columns)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _inflated(payload: bytes | memoryview, wanted: int) -> bytes:
    """A frame of Deflated Image Frame Compression: one raw deflate stream (PS3.5 §A.4.13)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(payload, max_length=wanted + 2)
    except zlib.error as error:
        raise InstanceUnreadable(f"broken deflate stream of {len(payload)} bytes: {error}") from error
    return data


def _run_lengths(payload: bytes, description: PixelDescription) -> Samples:
    """RLE: each sample in a plane of its own, whatever Planar Configuration says (PS3.5 §G.2)."""
    wanted = description.frame_bytes
    try:
        data = imagecodecs.dicomrle_decode(payload, word_type(description), out=bytearray(wanted))
    except _CODEC_ERRORS as error:
        raise InstanceUnreadable(f"broken RLE frame of {len(payload)} bytes: {error}") from error
    if len(data) != wanted:
        raise InstanceUnreadable(f"an RLE frame decodes to {len(data)} bytes, {wanted} were expected")
    words = np.frombuffer(data, word_type(description))
    return _interleaved(words, description) if description.samples > 1 else words.reshape(description.shape)


def _jpeg_xl(payload: bytes, description: PixelDescription) -> Samples:
    """JPEG XL, into an array of the size that is expected; other sizes do not fit."""
    out = np.empty(description.shape, word_type(description))
    try:
        return np.asarray(imagecodecs.jpegxl_decode(payload, out=out)).reshape(description.shape)
    except _CODEC_ERRORS as error:
        raise InstanceUnreadable(f"broken JPEG XL frame of {len(payload)} bytes: {error}") from error


def _codestream(payload: bytes, description: PixelDescription) -> Samples:
    stream = read_codestream(payload)
    if (stream.rows, stream.columns, stream.samples) != (description.rows, description.columns, description.samples):
        raise InstanceUnreadable(
            f"a frame of {stream.rows} x {stream.columns} x {stream.samples}, the data set says "
            f"{description.rows} x {description.columns} x {description.samples}"
        )
    if stream.precision > description.bits_allocated:
        raise InstanceUnreadable(f"samples of {stream.precision} bits in words of {description.bits_allocated}")
    if description.is_signed and not stream.is_signed and stream.precision < description.bits_stored:
        raise InstanceUnreadable(f"signed samples of {stream.precision} bits, Bits Stored is {description.bits_stored}")
    try:
        samples = np.asarray(_decoded(payload, stream, description))
    except _CODEC_ERRORS as error:
        raise InstanceUnreadable(f"broken {stream.coding.value} frame of {len(payload)} bytes: {error}") from error
    if samples.size * description.bits_allocated // 8 != description.frame_bytes:
        raise InstanceUnreadable(f"a decoder gave an image of {samples.shape}, {description.shape} were expected")
    return _as_words(samples.reshape(description.shape), stream, description)


def _decoded(payload: bytes, stream: Codestream, description: PixelDescription) -> Samples:
    if stream.coding is Coding.JPEG_2000:
        # OpenJPH wraps around where an irreversible stream overshoots; OpenJPEG clamps, as T.800 asks.
        if description.transfer_syntax_uid in HTJ2K and stream.is_lossless:
            return imagecodecs.htj2k_decode(payload, planar=False if stream.samples > 1 else None)
        return imagecodecs.jpeg2k_decode(payload)
    if stream.coding is Coding.JPEG_LS:
        return imagecodecs.jpegls_decode(payload)
    space = "YCBCR" if stream.samples == 3 and stream.coding is Coding.JPEG else "UNKNOWN"
    return imagecodecs.jpeg8_decode(payload, colorspace=space, outcolorspace=space)


def _as_words(samples: Samples, stream: Codestream, description: PixelDescription) -> Samples:
    """The words that would be stored; only JPEG 2000 knows of signs, other streams hold two's complement.

    Where stream and data set disagree about the sign, the bits of the stream are taken for what the data set says.
    """
    word = word_type(description)
    bits = stream.precision
    if not description.is_signed:
        return (
            samples.astype(word, copy=False) & word.type((1 << bits) - 1) if stream.is_signed else samples.astype(word)
        )
    gap = description.bits_allocated - bits
    signed = samples.astype(word).view(np.dtype(f"<i{word.itemsize}"))
    return ((signed << gap) >> gap).view(word) if gap else signed.view(word)
