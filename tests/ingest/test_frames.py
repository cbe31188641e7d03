"""Offset tables of made instances: a table names exactly the frames that went in, or there is none."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from storage.cod.entry_parts import OffsetTable
from storage.dicom.p10 import open_p10, read_header
from storage.dicom.window import Window
from storage.ingest.frames import encapsulated_table, item_walk
from tests.ingest.reading import made

JPEG_2000 = pydicom.uid.JPEG2000Lossless
frame_lists = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6)


@dataclass(frozen=True)
class Frames:
    """What was found out about the pixel data of one instance."""

    table: OffsetTable | None = None
    tail_start: int | None = None


def frames_of(
    pixels: bytes, count: int, syntax: str = JPEG_2000, *, chunk_bytes: int = 1 << 20
) -> tuple[Frames, bytes]:
    """What is found in an instance of so many frames with this value of Pixel Data, and the bytes of its file."""
    with TemporaryDirectory() as folder:
        dataset = pydicom.dcmread(made(Path(folder) / "made.dcm", "1.2.3.4", NumberOfFrames=count))
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        dataset.add_new("PixelData", "OB", pixels)
        dataset["PixelData"].is_undefined_length = True
        dataset.DigitalSignaturesSequence = []
        path = Path(folder) / "encapsulated.dcm"
        dataset.save_as(path, enforce_file_format=True)
        data = path.read_bytes()
    p10 = open_p10(Window.of(data))
    header = read_header(p10)
    walk = item_walk(p10, header)
    assert walk is not None
    for start in range(0, len(data), chunk_bytes):
        walk.feed(start, data[start : start + chunk_bytes])
    return Frames(encapsulated_table(p10, header, walk), walk.stop), data


def cut(table: OffsetTable | None, data: bytes) -> list[bytes] | None:
    if table is None:
        return None
    return [data[start : start + size] for start, size in zip(table.positions, table.lengths, strict=True)]


@given(
    frames=frame_lists,
    fragments=st.integers(1, 3),
    has_table=st.booleans(),
    chunk_bytes=st.sampled_from([1, 7, 8, 100, 1 << 20]),
)
def test_table_cuts_out_exactly_the_frames(
    frames: list[bytes], fragments: int, has_table: bool, chunk_bytes: int
) -> None:
    padded = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    fragments = min(fragments, *(len(frame) // 2 for frame in padded))
    pixels = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_table)

    found, data = frames_of(pixels, len(frames), chunk_bytes=chunk_bytes)

    if fragments > 1 or len(frames) == 1:
        assert found.table is None
    else:
        assert cut(found.table, data) == padded
    # Digital Signatures Sequence (FFFA,FFFA) is what follows the pixel data.
    assert found.tail_start is not None
    assert data[found.tail_start :].startswith(b"\xfa\xff\xfa\xffSQ")


@pytest.mark.parametrize("damage", ["swapped", "shifted", "short", "long"])
def test_offset_table_that_contradicts_the_fragments_gives_no_table(damage: str) -> None:
    pixels = bytearray(encapsulate([b"ab", b"cd", b"ef"]))
    offsets = pixels[8:20]
    match damage:
        case "swapped":
            pixels[12:20] = offsets[8:12] + offsets[4:8]
        case "shifted":
            pixels[8:20] = bytes(byte + 2 if byte else 0 for byte in offsets)
        case "short":
            pixels[4:20] = b"\x08\0\0\0" + offsets[:8]
        case "long":
            pixels[4:20] = b"\x10\0\0\0" + offsets + b"\xff\0\0\0"

    found, _ = frames_of(bytes(pixels), 3)

    assert found.table is None


@pytest.mark.parametrize("fragment_length", [0xFFFFFFFF, 0x7FFFFFFF, 3000])
def test_fragment_past_the_end_gives_no_table(fragment_length: int) -> None:
    pixels = bytearray(encapsulate([b"ab", b"cd"], has_bot=False))
    pixels[12:16] = fragment_length.to_bytes(4, "little")

    found, _ = frames_of(bytes(pixels), 2)

    assert found == Frames()


def test_fragments_of_a_video_are_no_frames() -> None:
    """PS3.5 §A.4.5: a stream may be cut anywhere."""
    pixels = encapsulate([b"ab", b"cd"], has_bot=False)

    assert frames_of(pixels, 2, "1.2.840.10008.1.2.4.102")[0].table is None
    assert frames_of(pixels, 2, "1.2.840.10008.1.2.4.90")[0].table is not None
