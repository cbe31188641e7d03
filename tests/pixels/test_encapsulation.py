"""Encapsulated frames are cut again by pydicom, whichever table lists them."""

import numpy as np
import pytest

from storage.pixels.encapsulation import encapsulate
from tests.dicom.builders import p10
from tests.pixels.images import attributes, payloads, read

FRAMES = [b"\xff\x4f one", b"\xff\x4f two and", b"\xff\x4f three.", b"\xff\x4f"]
PADDED = [frame + b"\0" * (len(frame) % 2) for frame in FRAMES]


def file_of(element: bytes) -> bytes:
    described = attributes(np.zeros((2, 2), np.uint8), stored=8, frames=str(len(FRAMES)))
    return p10(described + element, "1.2.840.10008.1.2.4.90")


def test_the_basic_offset_table_lists_the_frames() -> None:
    """PS3.5 §A.4."""
    data = file_of(encapsulate(FRAMES))

    assert payloads(data) == PADDED
    assert "ExtendedOffsetTable" not in read(data)
    first = bytes(read(data).PixelData)[8:24]
    assert [int.from_bytes(first[index : index + 4], "little") for index in range(0, 16, 4)] == [0, 14, 32, 50]


def test_frames_beyond_the_basic_table_are_listed_in_the_extended_one() -> None:
    """PS3.3 §C.7.6.3.1.8: then the Basic Offset Table is empty; lengths are those without padding."""
    data = file_of(encapsulate(FRAMES, max_basic_offset=49))

    data_set = read(data)
    assert payloads(data) == FRAMES
    assert bytes(data_set.PixelData)[4:8] == bytes(4)
    assert len(data_set.ExtendedOffsetTable) == len(data_set.ExtendedOffsetTableLengths) == 32


@pytest.mark.parametrize(("limit", "is_extended"), [(49, True), (50, False)])
def test_the_last_offset_decides_which_table_it_is(limit: int, is_extended: bool) -> None:
    assert ("ExtendedOffsetTable" in read(file_of(encapsulate(FRAMES, max_basic_offset=limit)))) is is_extended
