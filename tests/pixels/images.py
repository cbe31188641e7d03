"""Files with known samples, built by hand, and what others make of a file: pydicom, and codecs of another library."""

import warnings
from io import BytesIO
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames

from tests.dicom.builders import EXPLICIT_LE, UNDEFINED, element, item, p10, text
from tests.dicom.builders import SEQUENCE_END as END

Image = NDArray[Any]
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"


def attributes(
    samples: Image,
    *,
    stored: int,
    photometric: str = "MONOCHROME2",
    signed: bool = False,
    planar: int = 0,
    frames: str | None = None,
    high_bit: int | None = None,
    order: str = "<",
) -> bytes:
    """The explicit elements that describe frames of `samples` (rows, columns[, 3])."""

    def number(tag: int, value: int) -> bytes:
        return element(tag, "US", pack(order + "H", value), order=order)

    parts = [
        element(0x00080016, "UI", text("1.2.840.10008.5.1.4.1.1.7", b"\0"), order=order),
        element(0x00080018, "UI", text("2.25.1", b"\0"), order=order),
        number(0x00280002, 1 if samples.ndim == 2 else samples.shape[2]),
        element(0x00280004, "CS", text(photometric), order=order),
        number(0x00280006, planar) if samples.ndim == 3 else b"",
        b"" if frames is None else element(0x00280008, "IS", text(frames), order=order),
        number(0x00280010, samples.shape[0]),
        number(0x00280011, samples.shape[1]),
        number(0x00280100, 8 * samples.itemsize),
        number(0x00280101, stored),
        number(0x00280102, stored - 1 if high_bit is None else high_bit),
        number(0x00280103, int(signed)),
    ]
    return b"".join(parts)


def native(samples: Image, *, before: bytes = b"", after: bytes = b"", **described: Any) -> bytes:
    """A file of one frame of native samples; they may be repeated by `frames`."""
    count = max(1, int(str(described.get("frames") or 1)))
    ordered = samples.transpose(2, 0, 1) if described.get("planar") else samples
    value = np.ascontiguousarray(ordered).astype(ordered.dtype.newbyteorder("<")).tobytes() * count
    pixels = element(0x7FE00010, "OW" if samples.itemsize == 2 else "OB", value + b"\0" * (len(value) % 2))
    return p10(attributes(samples, **described) + before + pixels + after, EXPLICIT_LE)


def encapsulated(samples: Image, payload: bytes | bytearray, syntax: str, **described: Any) -> bytes:
    """A file of one coded frame; `samples` tell its shape and type."""
    value = item() + item(bytes(payload) + b"\0" * (len(payload) % 2))
    pixels = element(0x7FE00010, "OB", value, length=UNDEFINED) + END
    return p10(attributes(samples, **described) + pixels, syntax)


def read(data: bytes) -> Dataset:
    """The file as pydicom reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some files are here because they are not clean
        return dcmread(BytesIO(data), force=True)


def payloads(data: bytes) -> list[bytes]:
    """The frames of encapsulated pixel data as pydicom cuts them."""
    data_set = read(data)
    tables = None
    if "ExtendedOffsetTable" in data_set:
        tables = data_set.ExtendedOffsetTable, data_set.ExtendedOffsetTableLengths
    count = int(data_set.get("NumberOfFrames") or 1)
    return list(generate_frames(data_set.PixelData, number_of_frames=count, extended_offsets=tables))


def decoded_elsewhere(data: bytes) -> list[Image]:
    """The frames of a transcoded file by a decoder of another library than the one that wrote them, where there is one.

    JPEG 2000 and HTJ2K by OpenJPEG (HTJ2K was written by OpenJPH); JPEG-LS by CharLS, which is the only one.
    """
    jpeg_ls = read(data).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
    decode = imagecodecs.jpegls_decode if jpeg_ls else imagecodecs.jpeg2k_decode
    return [decode(payload) for payload in payloads(data)]


def assert_same_attributes(before: bytes, after: bytes) -> None:
    """Every element but those of the encoding, by pydicom; preamble and file meta too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `read`: values are read when they are asked for
        _assert_same(read(before), read(after))


def _assert_same(old: Dataset, new: Dataset) -> None:
    assert new.preamble == old.preamble
    changing = {0x7FE00001, 0x7FE00002, 0x7FE00010, 0x00280004, 0x00280006}
    assert set(old.keys()) - changing == set(new.keys()) - changing
    for tag in set(old.keys()) - changing:
        if tag & 0xFFFF:
            assert repr(new[tag]) == repr(old[tag])
            assert new[tag].VR == old[tag].VR
    assert new.get("PlanarConfiguration") == (None if old.get("PlanarConfiguration") is None else 0)
    meta = {entry.tag: entry.value for entry in old.file_meta if entry.tag not in (0x00020000, 0x00020010)}
    assert {tag: new.file_meta[tag].value for tag in meta} == meta
    assert len(new.file_meta) == len(old.file_meta)
