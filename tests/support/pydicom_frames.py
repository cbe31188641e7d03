"""An independent reader of frames: pydicom, and the few lines that make of its values what DICOMweb sends.

Little-endian and beginning at bit 0; encapsulated frames as they are stored.

Source: PS3.5 §8 (native pixel data), §A.4 (encapsulated), PS3.3 §C.7.6.3.1.2 (YBR_FULL_422).
"""

import warnings
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from tests.dicom.json_oracle import PIXEL_TAGS, read


def frames_by_pydicom(path: Path) -> list[bytes]:
    """The frames as pydicom tells them apart, and how DICOMweb sends them: little-endian, beginning at bit 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is here because it is not clean
        data_set = read(path)
        tag = next((tag for tag in PIXEL_TAGS if tag in data_set), None)
        if tag is None or data_set[tag].is_empty:
            return []
        if data_set[tag].is_undefined_length:
            return _fragmented(data_set)
        return _sliced(data_set, little_endian_pixels(data_set, tag))


def _fragmented(data_set: Dataset) -> list[bytes]:
    tables = None
    if "ExtendedOffsetTable" in data_set:
        tables = data_set.ExtendedOffsetTable, data_set.ExtendedOffsetTableLengths
    count = _number_of_frames(data_set)
    return list(generate_frames(data_set.PixelData, number_of_frames=count, extended_offsets=tables))


def _number_of_frames(data_set: Dataset) -> int:
    """1 where it is absent, empty, or the "1A" that one of the files has."""
    try:
        return int(data_set.NumberOfFrames or 1) if "NumberOfFrames" in data_set else 1
    except ValueError:
        return 1


def little_endian_pixels(data_set: Dataset, tag: int) -> bytes:
    """The native value in little-endian order: wide samples are swapped whole, narrow ones in the words of OW."""
    element = data_set[tag]
    value = bytes(element.value)
    sample_bytes = data_set.BitsAllocated // 8
    word_bytes = max(sample_bytes, 2) if element.VR == "OW" else sample_bytes
    if data_set.original_encoding[1] or word_bytes < 2:
        return value
    return np.frombuffer(value, f">u{word_bytes}").astype(f"<u{word_bytes}").tobytes()


def _sliced(data_set: Dataset, value: bytes) -> list[bytes]:
    """Equal parts of the size that the geometry says; a single frame may be shorter than that."""
    count = _number_of_frames(data_set)
    bits = data_set.Rows * data_set.Columns * data_set.get("SamplesPerPixel", 1) * data_set.BitsAllocated
    if data_set.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits // 3 * 2
    if count == 1 and bits > 8 * len(value):
        return [value]
    if bits % 8 == 0:
        return [value[index * bits // 8 : (index + 1) * bits // 8] for index in range(count)]
    unpacked = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")
    return [
        np.packbits(unpacked[index * bits : (index + 1) * bits], bitorder="little").tobytes() for index in range(count)
    ]
