"""A DICOM file with its pixels in another lossless encoding, or the reason why it stays as it is.

A file is only changed where that is certain to lose nothing: what was written is opened again, its frames are decoded
and compared with the frames of the original, sample by sample. Whatever is doubtful keeps its bytes. Of the data set
change the elements that describe the encoding, and nothing else; preamble, private elements and UIDs stay.

Source: PS3.5 §8.2 (encapsulated pixel data), §8.2.3 (JPEG-LS), §8.2.4 (JPEG 2000), §A.4; PS3.3 §C.7.6.3.1.
"""

from dataclasses import dataclass, replace
from functools import partial
from struct import pack
from typing import Final, Protocol

import numpy as np

from storage.dicom.elements import Kind, walk
from storage.dicom.nesting import PIXEL_DATA, PIXEL_TAGS
from storage.dicom.p10 import ENCAPSULATED_UNCOMPRESSED, NATIVE_SYNTAXES, P10, RLE, open_p10, read_header
from storage.dicom.pixels import PixelKind
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from storage.pixels.codestream import Coding, read_codestream
from storage.pixels.decode import DEFLATED_FRAMES, Samples, word_type
from storage.pixels.description import (
    DESCRIBING_TAGS,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PixelDescription,
)
from storage.pixels.encapsulation import MAX_BASIC_OFFSET, encapsulate
from storage.pixels.encode import NotEncoded, Target, encode_frame
from storage.pixels.explicit import Edits, explicit_element, rewrite_data_set
from storage.pixels.source import PixelSource

_JPEG_LOSSLESS: Final = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_JPEG_LS: Final = "1.2.840.10008.1.2.4.80"
_JPEG_2000: Final = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"})
_CODINGS: Final = {
    **dict.fromkeys(_JPEG_LOSSLESS, Coding.JPEG_LOSSLESS),
    _JPEG_LS: Coding.JPEG_LS,
    **dict.fromkeys(_JPEG_2000, Coding.JPEG_2000),
}
_SOURCES: Final = NATIVE_SYNTAXES | {ENCAPSULATED_UNCOMPRESSED, DEFLATED_FRAMES, RLE} | _CODINGS.keys()
"""Syntaxes that promise to have lost nothing; all others are left alone."""

_GRAY: Final = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_SIGNATURES: Final = frozenset({0x4FFE0001, 0xFFFAFFFA})
"""MAC Parameters and Digital Signatures Sequence: a signature may be about the bytes of the pixels."""
_TABLES: Final = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
"""Extended Offset Table, its lengths, Encapsulated Pixel Data Value Total Length."""

_TRANSFER_SYNTAX_UID: Final = 0x00020010
_META_LENGTH: Final = 0x00020000


@dataclass(frozen=True, slots=True)
class Transcoded:
    """The new file."""

    data: bytes
    transfer_syntax_uid: str
    frame_count: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The original bytes are to be kept."""

    reason: str


class _Keep(Exception):
    """Why the original stays."""


class FrameEncoder(Protocol):
    """`encode_frame`, or what a test puts in its place."""

    def __call__(
        self, samples: Samples, description: PixelDescription, target: Target, *, color_transform: bool
    ) -> bytes: ...


def transcode(
    p10: bytes | memoryview,
    target: Target,
    *,
    max_basic_offset: int = MAX_BASIC_OFFSET,
    encode: FrameEncoder = encode_frame,
) -> Transcoded | Kept:
    """Encode the pixels of a file anew, if that loses nothing and makes the file smaller.

    Beside the file it holds the new one twice, and three decoded frames. It computes for long, about 12 ms (HTJ2K),
    23 ms (JPEG-LS) or 78 ms (JPEG 2000) for a slice of 512 by 512, and belongs into a process or a thread.

    Args:
        max_basic_offset: frames that begin behind this byte are listed in an Extended Offset Table.
        encode: is not trusted.
    """
    try:
        source = _open(p10)
        pixels = encapsulate(_encode(source, target, encode, len(p10)), max_basic_offset=max_basic_offset)
        data = _write(p10, source, target, pixels)
        if len(data) >= len(p10):
            raise _Keep(f"not smaller: {len(data)} bytes instead of {len(p10)}")
        _compare(source, data, target)
        return Transcoded(data, target.transfer_syntax_uid, source.frame_count)
    except _Keep as keep:
        return Kept(str(keep))
    except NotEncoded as error:
        return Kept(str(error))
    except (InstanceUnreadable, MissingBytes) as error:
        return Kept(f"not certain: {error}")


def _open(data: bytes | memoryview) -> PixelSource:
    """Open a file.

    Raises:
        InstanceUnreadable, _Keep: it cannot be opened, or holds no pixels that could be encoded.
    """
    p10 = open_p10(Window.of(data))
    header = read_header(p10)
    if header.pixels is None or header.pixels.start == header.pixels.stop:
        raise _Keep("no pixel data")
    if p10.is_guessed or _TRANSFER_SYNTAX_UID not in p10.meta:
        raise _Keep("no transfer syntax is named")
    if p10.transfer_syntax_uid not in _SOURCES:
        raise _Keep(f"transfer syntax {p10.transfer_syntax_uid} is not known as lossless")
    if header.pixels.tag != PIXEL_DATA:
        raise _Keep("pixels of floating point numbers")
    if header.number_of_frames_text and header.number_of_frames is None:
        raise _Keep("NumberOfFrames is no positive number")
    source = PixelSource.of(p10, header)
    _check_elements(p10, source.pixels_stop)
    return source


def _check_elements(p10: P10, pixels_stop: int) -> None:
    """The elements that describe the pixels are there once, before them; and no signature is anywhere."""
    elements = partial(walk, p10.window, explicit=p10.explicit, little_endian=p10.little_endian, skip_sequences=True)
    seen: set[int] = set()
    for kind, tag, *_ in elements(p10.start, p10.stop):
        if tag in _SIGNATURES:
            raise _Keep("digitally signed")
        if kind == Kind.ELEMENT and tag in DESCRIBING_TAGS and tag in seen:
            raise _Keep(f"element {tag:08X} is there twice")
        seen.add(tag)
        if tag == PIXEL_DATA:
            break
    try:
        for _, tag, *_ in elements(pixels_stop, p10.stop):
            if tag in _SIGNATURES:
                raise _Keep("digitally signed")
            if tag in DESCRIBING_TAGS or tag in PIXEL_TAGS:
                raise _Keep(f"element {tag:08X} behind the pixels")
    except InstanceUnreadable:
        pass  # padding of other software, which is copied as it is


def _encode(source: PixelSource, target: Target, encode: FrameEncoder, file_bytes: int) -> list[bytes]:
    """Every frame as a codestream; given up as soon as they are more than the file."""
    description = source.description
    if source.p10.transfer_syntax_uid == target.transfer_syntax_uid:
        raise _Keep("is in the target syntax already")
    _check_description(description)
    _check_native_length(source)
    color_transform = _colors(source) == "RGB" and target.is_jpeg_2000
    frames: list[bytes] = []
    size = 0
    for samples in source.frames():
        _check_unused_bits(samples, description)
        frames.append(encode(samples, description, target, color_transform=color_transform))
        size += len(frames[-1])
        if size >= file_bytes:
            raise _Keep(f"not smaller: {len(frames)} of {source.frame_count} frames are {size} bytes already")
    return frames


def _check_description(description: PixelDescription) -> None:
    """Refuse what the codecs, or their decoders elsewhere, might take for something else."""
    bits, stored = description.bits_allocated, description.bits_stored
    if bits not in (8, 16):
        raise _Keep(f"words of {bits} bits")
    if not (2 if bits == 8 else 9) <= stored <= bits or description.high_bit != stored - 1:
        raise _Keep(f"{stored} bits up to bit {description.high_bit} in words of {bits}")
    if description.samples == 1 and description.photometric in _GRAY:
        if description.photometric == "PALETTE COLOR" and description.is_signed:
            raise _Keep("signed indices of a palette")
        return
    if description.samples != 3 or description.photometric not in ("RGB", "YBR_FULL", "YBR_RCT"):
        raise _Keep(f"{description.samples} samples of {description.photometric} photometric interpretation")
    if description.is_signed:
        raise _Keep("signed colours")


def _check_native_length(source: PixelSource) -> None:
    """Native pixel data must be as long as its frames: neither cut nor followed by more than padding."""
    if source.locator.stored_kind is not PixelKind.NATIVE:
        return
    stored = source.locator.value_stop - source.locator.value_start
    wanted = source.description.frame_bytes * source.frame_count
    if source.header.is_cut or not wanted <= stored <= wanted + wanted % 2:
        raise _Keep(f"{stored} bytes of pixel data, {wanted} were expected")


def _colors(source: PixelSource) -> str:
    """What the decoded samples are: the photometric interpretation that they would have as native pixel data.

    Also sees to it that a codestream is of the kind that the transfer syntax promises, and lossless.
    """
    description = source.description
    coding = _CODINGS.get(description.transfer_syntax_uid)
    if coding is None:
        if description.photometric == "YBR_RCT":
            raise _Keep("YBR_RCT without JPEG 2000")
        return description.photometric
    streams = {read_codestream(source.payload(index)) for index in range(source.frame_count)}
    if len(streams) != 1:
        raise _Keep(f"frames coded in {len(streams)} ways")
    (stream,) = streams
    if stream.coding is not coding or not stream.is_lossless:
        raise _Keep(f"a {'lossless' if stream.is_lossless else 'lossy'} {stream.coding.value} codestream, mislabelled")
    if coding is Coding.JPEG_2000 and stream.is_signed != description.is_signed:
        raise _Keep("codestream and Pixel Representation disagree about the sign")
    possible = ("RGB", "YBR_RCT") if stream.has_color_transform else (*_GRAY, "RGB", "YBR_FULL")
    if description.photometric not in possible:
        raise _Keep(f"{description.photometric}, and the codestream says otherwise")
    return "RGB" if stream.has_color_transform else description.photometric


def _check_unused_bits(samples: Samples, description: PixelDescription) -> None:
    """The bits above Bits Stored must be what a decoder will put there: zeros, or the sign.

    Others are overlays of old, or not written with care; either way the stored words could not be had back.
    """
    gap = description.bits_allocated - description.bits_stored
    if gap == 0:
        return
    if description.is_signed:
        values = samples.view(np.dtype(f"<i{samples.itemsize}"))
        is_plain = np.array_equal((values << gap) >> gap, values)
    else:
        is_plain = not (samples >> description.bits_stored).any()
    if not is_plain:
        raise _Keep("bits above Bits Stored hold something")


def _write(data: bytes | memoryview, source: PixelSource, target: Target, pixels: bytes) -> bytes:
    """The whole file, with the elements of encapsulated pixels."""
    edits: dict[int, bytes | None] = dict.fromkeys(_TABLES)
    edits[PIXEL_DATA] = pixels
    if source.description.samples > 1:
        photometric = _colors(source)
        if photometric == "RGB" and target.is_jpeg_2000:
            photometric = "YBR_RCT"
        if photometric != source.description.photometric:
            value = photometric.encode("ascii")
            edits[PHOTOMETRIC_INTERPRETATION] = explicit_element(
                PHOTOMETRIC_INTERPRETATION, "CS", value + b" " * (len(value) % 2)
            )
        if source.description.is_planar:
            edits[PLANAR_CONFIGURATION] = explicit_element(PLANAR_CONFIGURATION, "US", pack("<H", 0))
    return b"".join([*_file_meta(data, source.p10, target), *_data_set(source, edits)])


def _data_set(source: PixelSource, edits: Edits) -> list[bytes | memoryview]:
    return rewrite_data_set(source.p10, edits, pixels_stop=source.pixels_stop, is_signed=source.description.is_signed)


def _file_meta(data: bytes | memoryview, p10: P10, target: Target) -> list[bytes | memoryview]:
    """Preamble and file meta information, with the new transfer syntax and the length that goes with it."""
    view = memoryview(data)
    vr, start, stop = p10.meta[_TRANSFER_SYNTAX_UID]
    if bytes(view[start - 4 : start - 2]) != vr.encode("ascii") or bytes(view[128:132]) != b"DICM":
        raise _Keep("file meta information that is not as PS3.10 asks")
    value = target.transfer_syntax_uid.encode("ascii")
    changed = explicit_element(_TRANSFER_SYNTAX_UID, "UI", value + b"\0" * (len(value) % 2))
    end = max(each[2] for each in p10.meta.values())
    before, after = view[: start - 8], view[stop:end]
    length = p10.meta.get(_META_LENGTH)
    if length is None or length[2] - length[1] != 4 or length[1] > start:
        return [before, changed, after]
    counted = len(before) - length[2] + len(changed) + len(after)
    return [view[: length[1]], pack("<I", counted), before[length[2] :], changed, after]


def _compare(source: PixelSource, data: bytes, target: Target) -> None:
    """Decode what was written, and compare every sample."""
    written = _open(data)
    expected = replace(
        source.description,
        transfer_syntax_uid=target.transfer_syntax_uid,
        is_planar=False,
        photometric=written.description.photometric,
    )
    if written.description != expected or written.frame_count != source.frame_count:
        raise _Keep("what was written describes itself otherwise")
    word = word_type(source.description)
    for index, (before, after) in enumerate(zip(source.frames(), written.frames(), strict=True)):
        if before.dtype != word or after.dtype != word or not np.array_equal(before, after):
            raise _Keep(f"frame {index + 1} does not decode to the same samples")
