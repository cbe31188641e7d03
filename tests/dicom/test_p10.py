"""Opening DICOM files with and without what PS3.10 §7.1 asks for."""

import zlib
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.dicom.p10 import is_encapsulated, open_p10, read_header
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from tests.conftest import DATA
from tests.dicom.builders import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    element,
    image_attributes,
    implicit,
    native_image,
    p10,
    read_slowly,
    sequence,
    text,
)

P10_NAMES = sorted(path.name for path in (DATA / "p10").iterdir())
DEFLATED = "1.2.840.10008.1.2.1.99"


def deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("name", P10_NAMES)
def test_identity_and_transfer_syntax_are_those_of_the_manifest(name: str, manifest: dict[str, Any]) -> None:
    expected = manifest["p10"][name]
    opened = open_p10(Window.of((DATA / "p10" / name).read_bytes()))
    header = read_header(opened)

    assert opened.is_guessed == (expected["transfer_syntax"] is None)
    if expected["transfer_syntax"] is not None:
        assert opened.transfer_syntax_uid == header.transfer_syntax_uid == expected["transfer_syntax"]
    assert header.sop_instance_uid == (expected["sop"] or "")
    assert header.study_uid == (expected["study"] or "")
    assert header.series_uid == (expected["series"] or "")
    assert header.sop_class_uid == (expected["sop_class"] or "")
    if expected.get("pixel_value_offset") is not None:
        assert header.pixels is not None
        assert header.pixels.start == expected["pixel_value_offset"]
        assert header.pixels.vr == expected["pixel_vr"] or "or" in header.pixels.vr
    assert (header.pixels is None) == (expected["pixel_keyword"] is None)


@pytest.mark.parametrize("name", P10_NAMES)
def test_header_needs_no_byte_of_the_pixel_value(name: str) -> None:
    data = (DATA / "p10" / name).read_bytes()
    whole = read_header(open_p10(Window.of(data)))

    header, asked = read_slowly(data, lambda window: read_header(open_p10(window)))

    assert header == whole
    if whole.pixels is not None and not open_p10(Window.of(data)).is_deflated:
        # A header is asked for with twelve bytes; those of an implicit VR have eight.
        assert max(each.stop for each in asked) <= whole.pixels.start + 4


def test_repeated_attribute_counts_by_its_last_value() -> None:
    """As in pydicom, which later duplicates overwrite."""
    data = p10(element(0x00080018, "UI", b"1.2\0") + element(0x00080018, "UI", b"1.3\0"))

    assert read_header(open_p10(Window.of(data))).sop_instance_uid == "1.3"


def test_uid_inside_a_sequence_is_not_that_of_the_instance() -> None:
    inner = element(0x00080018, "UI", b"1.9\0")
    data = p10(sequence(0x00081115, [pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner], undefined=True))

    assert read_header(open_p10(Window.of(data))).sop_instance_uid == ""


@pytest.mark.parametrize("group_length", [0, 1, 4, 10_000])
def test_wrong_group_length_does_not_matter(group_length: int) -> None:
    data = bytearray(native_image(bytes(16)))
    data[140:144] = pack("<I", group_length)

    header = read_header(open_p10(Window.of(bytes(data))))

    assert header.sop_instance_uid == "2.25.1"


@pytest.mark.parametrize("preamble", [b"\x41" * 128 + b"DICM", b"II*\0" + bytes(124) + b"DICM", b""])
def test_any_preamble_and_none_are_read(preamble: bytes) -> None:
    data = preamble + native_image(bytes(16))[132:]

    opened = open_p10(Window.of(data))

    assert opened.transfer_syntax_uid == EXPLICIT_LE
    assert read_header(opened).rows == 4


def test_four_letters_of_a_text_are_not_the_prefix() -> None:
    """A bare data set may hold "DICM" at byte 128."""
    bare = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00081030, "LO", text("x" * 102 + "DICM"))
    assert bare[128:132] == b"DICM"

    opened = open_p10(Window.of(bare + element(0x00080018, "UI", b"1.2\0")))

    assert opened.start == 0


@pytest.mark.parametrize(
    ("dataset", "guess"),
    [
        (implicit(0x00080018, b"1.2\0"), IMPLICIT_LE),
        (element(0x00080018, "UI", b"1.2\0"), EXPLICIT_LE),
        (element(0x00080018, "UI", b"1.2\0", order=">"), EXPLICIT_BE),
    ],
)
def test_bare_data_set_is_read_in_the_encoding_of_its_first_element(dataset: bytes, guess: str) -> None:
    opened = open_p10(Window.of(dataset))

    assert opened.is_guessed
    assert opened.transfer_syntax_uid == guess
    assert read_header(opened).sop_instance_uid == "1.2"


def test_data_set_that_contradicts_its_transfer_syntax_is_read_as_it_is() -> None:
    data = p10(element(0x00080018, "UI", b"1.2\0"), IMPLICIT_LE)

    opened = open_p10(Window.of(data))

    assert opened.explicit
    assert read_header(opened).sop_instance_uid == "1.2"


@pytest.mark.parametrize(("frames", "number"), [("3", 3), ("1A", None), ("0", None), ("", None), ("-2", None)])
def test_number_of_frames_that_is_no_number_counts_as_one(frames: str, number: int | None) -> None:
    header = read_header(open_p10(Window.of(native_image(bytes(64), frames=frames))))

    assert header.number_of_frames == number
    assert header.number_of_frames_text == frames
    assert header.frame_count == (number or 1)


def test_geometry_of_another_size_than_its_vr_is_not_used() -> None:
    data = p10(element(0x00280010, "US", b"\1\0\2\0") + element(0x00280011, "UL", pack("<I", 70_000)))

    header = read_header(open_p10(Window.of(data)))

    assert header.rows is None
    assert header.columns == 70_000


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        (IMPLICIT_LE, False),
        (EXPLICIT_BE, False),
        (DEFLATED, False),
        ("1.2.840.10008.1.2.5", True),
        ("1.2.840.10008.1.2.1.98", True),
        ("1.2.840.10008.1.2.8.1", True),
        ("1.2.840.10008.1.2.4.50", True),
        ("1.2.840.10008.1.2.4.102.1", True),
        ("1.2.840.10008.1.2.4.112", True),
        ("1.2.840.10008.1.2.4.999", True),
        ("1.2.840.113619.5.2", None),
        ("1.2.840.10008.1.2.40", None),
    ],
)
def test_encapsulation_is_known_by_family_and_open_for_private_syntaxes(uid: str, expected: bool | None) -> None:
    assert is_encapsulated(uid) is expected


def test_deflated_data_set_is_read_from_its_inflated_bytes() -> None:
    dataset = image_attributes() + element(0x7FE00010, "OB", bytes(range(16)))
    opened = open_p10(Window.of(p10(deflate(dataset), DEFLATED)))

    assert opened.is_deflated
    assert bytes(opened.window.view(0, opened.window.size)) == dataset
    assert opened.file_window.size != opened.window.size
    assert opened.meta[0x00020010][0] == "UI"


def test_deflated_data_set_that_looks_like_file_meta_is_found_by_the_group_length() -> None:
    """A deflate stream may begin with the bytes 02 00."""
    meta = element(0x00020010, "UI", text(DEFLATED, b"\0"))
    deflated = b"\2\0\x10\0\1\1\1\1\1\1\1\1"
    data = bytes(128) + b"DICM" + element(0x00020000, "UL", pack("<I", len(meta))) + meta + deflated

    with pytest.raises(InstanceUnreadable, match="deflate"):
        open_p10(Window.of(data))


def test_deflate_bomb_is_refused_by_size_and_by_ratio() -> None:
    bomb = p10(deflate(bytes(50_000_000)), DEFLATED)
    assert len(bomb) < 60_000

    with pytest.raises(InstanceUnreadable, match="more than 1000000"):
        open_p10(Window.of(bomb), max_inflated_bytes=1_000_000)
    with pytest.raises(InstanceUnreadable, match="become more than"):
        open_p10(Window.of(bomb), max_inflate_ratio=100)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_broken_deflate_stream_is_refused(cut: int) -> None:
    data = p10(deflate(image_attributes() + element(0x7FE00010, "OB", bytes(range(16)))), DEFLATED)

    with pytest.raises(InstanceUnreadable):
        open_p10(Window.of(data[:-cut]))


def test_file_meta_element_that_leaves_the_file_is_refused() -> None:
    data = bytes(128) + b"DICM" + element(0x00020001, "OB", b"\0\1", length=0xFFFFFFF0)

    with pytest.raises(InstanceUnreadable, match="00020001"):
        open_p10(Window.of(data))


SMALL_NAMES = ("syn_nonfinite.dcm", "UN_sequence.dcm", "syn_seg_1bit_unaligned.dcm")
SMALL = [(DATA / "p10" / name).read_bytes() for name in SMALL_NAMES]


@settings(deadline=None)
@given(
    data=st.sampled_from(SMALL),
    share=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.99), st.binary(min_size=1, max_size=4)), max_size=3),
)
def test_any_prefix_and_any_damage_give_a_header_or_the_one_error(
    data: bytes, share: float, flips: list[tuple[float, bytes]]
) -> None:
    damaged = bytearray(data)
    for place, value in flips:
        position = int(place * len(damaged))
        damaged[position : position + len(value)] = value
    window = Window.of(bytes(damaged[: int(share * len(data))]))

    try:
        header = read_header(open_p10(window))
    except InstanceUnreadable:
        return

    assert header.pixels is None or 0 <= header.pixels.start <= window.size


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_every_prefix_gives_a_header_or_the_one_error(name: str) -> None:
    data = (DATA / "p10" / name).read_bytes()
    for stop in range(len(data)):
        try:
            read_header(open_p10(Window.of(data[:stop])))
        except InstanceUnreadable:
            continue
