"""Finding frames and cutting them out: against the oracle of the manifest, and files that lie (PS3.5 §8, §A.4)."""

import tracemalloc
import warnings
import zlib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from struct import pack
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import generate_frames

from storage.dicom.p10 import open_p10, read_header
from storage.dicom.pixels import (
    FragmentScanner,
    FragmentsUnknown,
    PixelKind,
    PixelLocator,
    StoredTable,
    extract_frame,
    frame_range,
    locate_pixels,
)
from storage.dicom.window import Window
from storage.errors import FrameNotFound, InstanceUnreadable
from tests.conftest import DATA
from tests.dicom.builders import (
    EXPLICIT_BE,
    JPEG_2000,
    RLE,
    SEQUENCE_END,
    element,
    encapsulated_image,
    first_fragment,
    image_attributes,
    item,
    native_image,
    p10,
    read_slowly,
)

P10_NAMES = sorted(path.name for path in (DATA / "p10").iterdir())
SHORT_TABLE = "syn_j2k_bot_short.dcm"
J2K = b"\xff\x4f\xff\x51"
EOC = b"\xff\xd9"


def locate(data: bytes, stored: StoredTable | None = None, *, ignore_tables: bool = False) -> PixelLocator:
    """Locate by windows that hold only what is asked for."""

    def parse(window: Window) -> PixelLocator:
        opened = open_p10(window)
        return locate_pixels(window, opened, read_header(opened), stored, ignore_tables=ignore_tables)

    return read_slowly(data, parse)[0]


def frame(data: bytes, locator: PixelLocator, index: int) -> bytes:
    """Read one frame from nothing but the bytes of its range."""
    source = bytes(data)
    if locator.kind is PixelKind.DEFLATED:
        inflated = open_p10(Window.of(data)).window
        source = bytes(inflated.view(0, inflated.size))
    wanted = frame_range(locator, index)
    return bytes(extract_frame(locator, index, source[wanted.start : wanted.stop]))


def frames_of(data: bytes, stored: StoredTable | None = None, *, ignore_tables: bool = False) -> list[bytes]:
    locator = locate(data, stored, ignore_tables=ignore_tables)
    assert PixelLocator.from_bytes(locator.to_bytes()) == locator
    return [frame(data, locator, index) for index in range(locator.frame_count)]


def little_endian_digests(entry: dict[str, Any]) -> list[str]:
    """What each frame must be: little endian, in the one case where the manifest has no such digest as decoded."""
    if entry["transfer_syntax"] == EXPLICIT_BE and entry["pixel_vr"] == "OW" and "sha256_le" not in entry["frames"][0]:
        return list(entry["decoded_raw_sha256"])
    return [frame.get("sha256_le", frame["sha256"]) for frame in entry["frames"]]


@pytest.mark.parametrize("name", [name for name in P10_NAMES if name != SHORT_TABLE])
def test_every_frame_is_the_one_that_the_manifest_knows(name: str, manifest: dict[str, Any]) -> None:
    expected = little_endian_digests(manifest["p10"][name])

    frames = frames_of((DATA / "p10" / name).read_bytes())

    assert [sha256(each).hexdigest() for each in frames] == expected


@pytest.mark.parametrize("name", [name for name in P10_NAMES if "j2k" in name and name != SHORT_TABLE])
def test_frames_are_the_same_when_every_table_is_ignored(name: str, manifest: dict[str, Any]) -> None:
    data = (DATA / "p10" / name).read_bytes()

    frames = frames_of(data, ignore_tables=True)

    assert [sha256(each).hexdigest() for each in frames] == little_endian_digests(manifest["p10"][name])


def test_short_offset_table_leaves_the_frames_that_it_confirms_and_no_other(manifest: dict[str, Any]) -> None:
    data = (DATA / "p10" / SHORT_TABLE).read_bytes()
    expected = [each["sha256"] for each in manifest["p10"][SHORT_TABLE]["frames"]]
    locator = locate(data)

    assert [sha256(frame(data, locator, index)).hexdigest() for index in (0, 1)] == expected[:2]
    for index in (2, 3):
        with pytest.raises(InstanceUnreadable, match="disagree"):
            frame_range(locator, index)
    assert PixelLocator.from_bytes(locator.to_bytes()) == locator


def test_no_table_of_a_real_store_spoils_a_frame(manifest: dict[str, Any]) -> None:
    """They are eight bytes off for native pixels, hold item headers, or mean the inflated data set."""
    sources = set()
    for store in manifest["stores"].values():
        for entry in store["instances"]:
            tar = DATA / "cod" / (entry["series_key"] + ".tar")
            start = entry["headers"]["start_byte"]
            data = tar.read_bytes()[start : start + entry["size"]] if entry.get("upstream_offsets") else b""
            if sha256(data).hexdigest() != entry["stored_sha256"]:
                continue  # no table; or metadata that is wrong about the place, which is not the matter here
            frames = entry["upstream_offsets"]["frames"]
            table = [each["offset"] for each in frames], [each["length"] for each in frames]

            found = frames_of(data, table)

            name = entry["source"]
            expected = [each["sha256"] for each in entry["oracle_frames"]]
            if entry["same_bytes_as_source"]:
                expected = little_endian_digests(manifest["p10"][name])
            assert [sha256(each).hexdigest() for each in found] == expected, name
            sources.add(name)
    assert len(sources) == 25


J2K_TABLE = ((894, 4716, 8564, 12406), (3814, 3840, 3834, 3836))
"""That of syn_j2k_nobot_1frag.dcm, as the published library writes it."""


def test_consistent_stored_table_saves_reading_the_fragments(manifest: dict[str, Any]) -> None:
    name = "syn_j2k_nobot_1frag.dcm"
    data = (DATA / "p10" / name).read_bytes()

    def parse(window: Window) -> PixelLocator:
        opened = open_p10(window)
        return locate_pixels(window, opened, read_header(opened), J2K_TABLE)

    locator, asked = read_slowly(data, parse)

    assert max(each.stop for each in asked) <= 894
    frames = [frame(data, locator, index) for index in range(4)]
    assert [sha256(each).hexdigest() for each in frames] == little_endian_digests(manifest["p10"][name])


HOSTILE_TABLES = {
    "eight bytes off": ([902, 4724, 8572, 12414], [3814, 3840, 3834, 3836]),
    "negative": ([-894, 4716, 8564, 12406], [3814, 3840, 3834, 3836]),
    "negative length": ([894, 4716, 8564, 12406], [-3814, 3840, 3834, 3836]),
    "2^63": ([894, 4716, 8564, 1 << 63], [3814, 3840, 3834, 3836]),
    "length 2^64": ([894, 4716, 8564, 12406], [3814, 3840, 3834, 1 << 64]),
    "overlapping": ([894, 894, 894, 894], [3814, 3814, 3814, 3814]),
    "descending": ([12406, 8564, 4716, 894], [3836, 3834, 3840, 3814]),
    "too short": ([894, 4716, 8564], [3814, 3840, 3834]),
    "too long": ([894, 4716, 8564, 12406, 16250], [3814, 3840, 3834, 3836, 8]),
    "lengths missing": ([894, 4716, 8564, 12406], [3814]),
    "past the end": ([894, 4716, 8564, 12406], [3814, 3840, 3834, 100_000]),
    "leaves out the last fragment's end": ([894, 4716, 8564, 12406], [3814, 3840, 3834, 3834]),
    "empty": ([], []),
    "zero": ([0, 0, 0, 0], [0, 0, 0, 0]),
}


@pytest.mark.parametrize("table", HOSTILE_TABLES.values(), ids=HOSTILE_TABLES.keys())
def test_stored_table_that_lies_changes_no_frame(table: StoredTable, manifest: dict[str, Any]) -> None:
    name = "syn_j2k_nobot_1frag.dcm"
    expected = little_endian_digests(manifest["p10"][name])

    frames = frames_of((DATA / "p10" / name).read_bytes(), table)

    assert [sha256(each).hexdigest() for each in frames] == expected


def test_stored_table_of_native_pixels_is_not_read() -> None:
    """It is eight bytes off in every store that exists."""
    data = native_image(bytes(range(32)), frames="2")

    assert frames_of(data, ([1, 2], [3, 4])) == [bytes(range(16)), bytes(range(16, 32))]


def test_chain_of_the_right_length_with_wrong_joints_fails_when_it_is_read() -> None:
    data = encapsulated_image([b"aaaa", b"bbbbbb"], frames="2")
    first = first_fragment(data)
    locator = locate(data, ([first + 8, first + 8 + 2 + 8], [2, 8]))

    for index in range(2):
        with pytest.raises(InstanceUnreadable, match="no fragment"):
            frame(data, locator, index)
    assert frames_of(data, ignore_tables=True) == [b"aaaa", b"bbbbbb"]


def test_stored_table_that_ends_before_the_last_fragment_is_not_used() -> None:
    """Two frames of three fragments: which ones they are, nobody knows."""
    data = encapsulated_image([b"aaaa", b"bbbb", b"cccc"], frames="2")
    first = first_fragment(data)

    with pytest.raises(InstanceUnreadable, match="3 fragments cannot be told apart into 2 frames"):
        locate(data, ([first + 8, first + 20], [4, 4]))


@pytest.mark.parametrize("fragments", [[b"aaaa", b"bbbb"], [b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeee"]])
def test_rle_fragments_that_are_not_one_a_frame_are_refused(fragments: list[bytes]) -> None:
    with pytest.raises(InstanceUnreadable, match="cannot be told apart"):
        locate(encapsulated_image(fragments, frames="3"))


def test_frames_in_several_fragments_are_joined_by_the_offset_table() -> None:
    fragments = [b"aaaa", b"bb", b"", b"cccc", b"dd"]
    table = [0, 12 + 10 + 8]
    assert frames_of(encapsulated_image(fragments, frames="2", table=table)) == [b"aaaabb", b"ccccdd"]


@pytest.mark.parametrize(
    "table",
    [[0, 1000], [0, 0xFFFFFFF0], [12, 24], [0, 0], [24, 0], [0, 4]],
    ids=["past the end", "wrapped", "does not begin at 0", "repeats", "descends", "shorter than an item"],
)
def test_offset_table_that_cannot_be_true_is_replaced_by_the_fragments(table: list[int]) -> None:
    assert frames_of(encapsulated_image([b"aaaa", b"bbbb"], frames="2", table=table)) == [b"aaaa", b"bbbb"]


def test_offset_table_that_misses_the_items_fails_when_it_is_read() -> None:
    data = encapsulated_image([b"aaaa", b"bbbb"], frames="2", table=[0, 14])
    locator = locate(data)

    for index in range(2):
        with pytest.raises(InstanceUnreadable, match="no fragment"):
            frame(data, locator, index)
    assert frames_of(data, ignore_tables=True) == [b"aaaa", b"bbbb"]


def test_offset_table_for_another_number_of_frames_than_one_is_refused() -> None:
    with pytest.raises(InstanceUnreadable, match="NumberOfFrames says one"):
        locate(encapsulated_image([b"aaaa", b"bbbb"], frames=None, table=[0, 12]))


def extended(offsets: list[int], lengths: list[int]) -> bytes:
    return element(0x7FE00001, "OV", pack(f"<{len(offsets)}Q", *offsets)) + element(
        0x7FE00002, "OV", pack(f"<{len(lengths)}Q", *lengths)
    )


@pytest.mark.parametrize(
    ("offsets", "lengths"),
    [
        ([0, 12], [4, 6]),
        ([0, 12], [3, 6]),
        ([0, 13], [4, 6]),
        ([0, 1 << 63], [4, 6]),
        ([0, 12], [4, 1 << 63]),
        ([0], [4]),
        ([0, 12], [4]),
    ],
)
def test_extended_offset_table_gives_the_frames_or_is_passed_over(offsets: list[int], lengths: list[int]) -> None:
    data = encapsulated_image([b"aaaa", b"bbbbbb"], frames="2", before=extended(offsets, lengths))

    assert frames_of(data) == [b"aaaa", b"bbbbbb"]


def test_extended_offset_table_saves_reading_the_fragments() -> None:
    fragments = [bytes(2000), bytes(3000)]
    data = encapsulated_image(fragments, frames="2", before=extended([0, 2008], [2000, 3000]))

    def parse(window: Window) -> PixelLocator:
        opened = open_p10(window)
        return locate_pixels(window, opened, read_header(opened))

    assert sum(map(len, read_slowly(data, parse)[1])) < 700


@pytest.mark.parametrize("pad", [b"", b"\0"])
def test_codestream_ends_group_fragments(pad: bytes) -> None:
    one = J2K + b"....", b"..." + (b"." if not pad else b"") + EOC + pad
    data = encapsulated_image([*one, J2K + b"zz" + EOC, *one], frames="3", transfer_syntax_uid=JPEG_2000)

    assert frames_of(data) == [b"".join(one), J2K + b"zz" + EOC, b"".join(one)]


@pytest.mark.parametrize(
    "fragments",
    [
        [J2K + EOC, J2K + EOC, J2K + EOC],
        [J2K + b"..", J2K + EOC, b"...." + EOC],
        [J2K + EOC, b"....", J2K + EOC],
        [b"....", J2K + EOC, J2K + EOC],
        [J2K + EOC, J2K + b"..", b"...."],
    ],
    ids=["one too many", "begins before the other ended", "nothing between", "begins without a marker", "never ends"],
)
def test_codestream_ends_that_leave_a_doubt_are_refused(fragments: list[bytes]) -> None:
    with pytest.raises(InstanceUnreadable, match="cannot be told apart"):
        locate(encapsulated_image(fragments, frames="2", transfer_syntax_uid=JPEG_2000))


def test_delimiter_bytes_inside_a_fragment_end_nothing() -> None:
    payload = b"ab" + SEQUENCE_END + item(b"xy")

    assert frames_of(encapsulated_image([payload], frames=None)) == [payload]
    assert frames_of(encapsulated_image([payload, b"bb"], frames="2")) == [payload, b"bb"]


def test_what_follows_the_pixels_belongs_to_no_frame() -> None:
    trailing = SEQUENCE_END + element(0xFFFCFFFC, "OB", item(b"xy") * 3)

    for table in ([], [0, 12]):
        data = encapsulated_image([b"aaaa", b"bbbb"], frames="2", table=table, end=trailing)
        assert frames_of(data) == [b"aaaa", b"bbbb"]
    first = first_fragment(data := encapsulated_image([b"aaaa", b"bbbb"], frames="2", end=trailing))
    assert frames_of(data, ([first + 8, first + 20], [4, 4])) == [b"aaaa", b"bbbb"]


@pytest.mark.parametrize("frames", [None, "2"])
def test_pixels_without_an_end_are_refused(frames: str | None) -> None:
    """Fragments may be missing."""
    with pytest.raises(InstanceUnreadable, match="no end"):
        frames_of(encapsulated_image([b"aaaa", b"bbbb"], frames=frames, end=b""))


def test_fragment_that_leaves_the_instance_is_refused() -> None:
    broken = encapsulated_image([b"aaaa"], frames="2", end=item(b"bbbb", length=0x7FFFFFFE) + SEQUENCE_END)
    single = encapsulated_image([], frames=None, end=item(b"bbbb", length=0xFFFFFFF0) + SEQUENCE_END)

    for data in (broken, single):
        with pytest.raises(InstanceUnreadable):
            frames_of(data)


def test_empty_frame_is_refused() -> None:
    data = encapsulated_image([b"", b"bbbb"], frames="2", table=[0, 8])
    locator = locate(data)

    with pytest.raises(InstanceUnreadable, match="empty"):
        frame(data, locator, 0)
    assert frame(data, locator, 1) == b"bbbb"


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102.1", "1.2.840.10008.1.2.4.108"])
def test_video_is_one_frame_whatever_number_of_frames_says(uid: str) -> None:
    data = encapsulated_image([b"movi", b"e..."], frames="500", table=[0], transfer_syntax_uid=uid)

    assert locate(data).is_video
    assert frames_of(data) == [b"movie..."]


def test_transfer_syntax_that_the_pixels_contradict_is_refused() -> None:
    """It would name the frames what they are not."""
    native = p10(image_attributes() + element(0x7FE00010, "OB", bytes(16)), RLE)
    encapsulated = encapsulated_image([b"aaaa"], frames=None, transfer_syntax_uid="1.2.840.10008.1.2.1")
    unnamed = encapsulated_image([b"aaaa"], frames=None)[132:].partition(b"\x08\x00\x16\x00")

    for data in (native, encapsulated, unnamed[1] + unnamed[2]):
        with pytest.raises(InstanceUnreadable):
            locate(data)


@pytest.mark.parametrize("uid", ["1.2.3.4", "1.2.840.113619.5.2"])
def test_private_transfer_syntax_is_what_its_pixels_are(uid: str) -> None:
    assert frames_of(encapsulated_image([b"aaaa"], frames=None, transfer_syntax_uid=uid)) == [b"aaaa"]
    native = p10(image_attributes() + element(0x7FE00010, "OB", bytes(range(16))), uid)
    assert frames_of(native) == [bytes(range(16))]


def test_instance_without_pixels_has_no_frames() -> None:
    data = p10(image_attributes())
    locator = locate(data)

    assert locator.kind is PixelKind.NONE
    with pytest.raises(FrameNotFound):
        frame_range(locator, 0)


def test_instance_cut_before_its_pixels_is_unreadable_and_not_without_frames() -> None:
    """A failure to read is never an absence."""
    locator = locate(p10(image_attributes() + element(0x00281201, "OW", b"ab", length=512)))

    assert PixelLocator.from_bytes(locator.to_bytes()) == locator
    with pytest.raises(InstanceUnreadable, match="ends within"):
        frame_range(locator, 0)


def test_frame_beyond_number_of_frames_is_not_found() -> None:
    locator = locate(native_image(bytes(32), frames="2"))

    for index in (2, -1, 1 << 70):
        with pytest.raises(FrameNotFound):
            frame_range(locator, index)


def test_native_frame_that_the_value_does_not_hold_is_unreadable() -> None:
    locator = locate(native_image(bytes(range(40)), frames="3"))

    assert frame_range(locator, 1).length == 16
    with pytest.raises(InstanceUnreadable, match="48 of 40"):
        frame_range(locator, 2)


def test_only_frame_shorter_than_its_geometry_is_the_value_as_stored() -> None:
    """Every stored byte of the only frame is there."""
    assert frames_of(native_image(b"0123456789", frames="1")) == [b"0123456789"]


def test_geometry_without_bounds_is_refused_before_anything_is_allocated() -> None:
    huge = native_image(bytes(16), frames="2", rows=65535, columns=65535, samples=65535, bits=64)
    many = native_image(bytes(16), frames="99999999999")

    tracemalloc.start()
    for data in (huge, many):
        with pytest.raises(InstanceUnreadable):
            locate(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(("frames", "bits"), [("2", 12), ("2", 0)])
def test_native_frames_of_unknown_size_are_refused_unless_there_is_one(frames: str, bits: int) -> None:
    with pytest.raises(InstanceUnreadable, match="unknown size"):
        locate(native_image(bytes(48), frames=frames, bits=bits))
    assert frames_of(native_image(bytes(range(48)), frames=None, bits=bits)) == [bytes(range(48))]


@pytest.mark.parametrize(("stored", "frame_bytes"), [(64, 32), (96, 48), (70, 32)])
def test_ybr_full_422_has_two_samples_a_pixel_unless_three_are_stored(stored: int, frame_bytes: int) -> None:
    """PS3.3 §C.7.6.3.1.2; some writers leave the label on 4:4:4 data."""
    attributes = image_attributes(frames="2", samples=3, photometric="YBR_FULL_422")
    data = p10(attributes + element(0x7FE00010, "OB", bytes(range(stored))))

    assert frames_of(data)[1] == bytes(range(frame_bytes, 2 * frame_bytes))


@settings(deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), count=st.integers(1, 6), bits=st.integers(0, (1 << 486) - 1))
def test_one_bit_frames_start_at_bit_zero_with_zeros_behind(rows: int, columns: int, count: int, bits: int) -> None:
    """PS3.5 §8.1.1: frames are packed one after the other, least significant bit first."""
    size = rows * columns
    pixels = [bits >> index & 1 for index in range(size * count)]
    packed = sum(bit << index for index, bit in enumerate(pixels))
    length = (len(pixels) + 7) // 8
    value = packed.to_bytes(length + length % 2, "little")
    data = native_image(value, frames=str(count), bits=1, rows=rows, columns=columns)

    expected = [
        sum(bit << index for index, bit in enumerate(pixels[size * number : size * (number + 1)])).to_bytes(
            (size + 7) // 8, "little"
        )
        for number in range(count)
    ]
    assert frames_of(data) == expected


@settings(deadline=None)
@given(
    count=st.integers(1, 5),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    sample_bytes=st.sampled_from([1, 2, 4, 8]),
)
def test_big_endian_samples_in_ow_come_out_little_endian(
    count: int, rows: int, columns: int, sample_bytes: int
) -> None:
    """PS3.5 §8.1.2 and §A.3: 8-bit samples fill 16-bit words, low byte first; wider samples are swapped whole."""
    size = rows * columns
    samples = [(37 * number + 11) % 251 for number in range(size * count)]
    plain = b"".join(sample.to_bytes(sample_bytes, "little") for sample in samples)
    plain += bytes(len(plain) % 2)
    word = max(2, sample_bytes)
    swapped = b"".join(plain[start : start + word][::-1] for start in range(0, len(plain), word))
    attributes = image_attributes(frames=str(count), rows=rows, columns=columns, bits=8 * sample_bytes, order=">")
    data = p10(attributes + element(0x7FE00010, "OW", swapped, order=">"), EXPLICIT_BE)

    step = size * sample_bytes
    assert frames_of(data) == [plain[step * number : step * (number + 1)] for number in range(count)]
    assert locate(data).is_big_endian


def test_big_endian_wide_samples_in_ob_are_refused() -> None:
    attributes = image_attributes(bits=16, order=">")

    with pytest.raises(InstanceUnreadable, match="big endian"):
        locate(p10(attributes + element(0x7FE00010, "OB", bytes(32), order=">"), EXPLICIT_BE))


def test_deflated_frames_are_found_in_the_inflated_data_set() -> None:
    dataset = image_attributes(frames="2") + element(0x7FE00010, "OB", bytes(range(32)))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = p10(deflater.compress(dataset) + deflater.flush(), "1.2.840.10008.1.2.1.99")

    locator = locate(data)

    assert (locator.kind, locator.inner_kind) == (PixelKind.DEFLATED, PixelKind.NATIVE)
    assert dataset[locator.value_start : locator.value_stop] == bytes(range(32))
    assert frames_of(data) == [bytes(range(16)), bytes(range(16, 32))]


def test_frame_bytes_of_another_length_than_asked_for_are_refused() -> None:
    data = native_image(bytes(32), frames="2")
    locator = locate(data)

    with pytest.raises(InstanceUnreadable, match="wanted 16 bytes, got 15"):
        extract_frame(locator, 0, bytes(15))


def test_native_frames_are_not_copied() -> None:
    data = native_image(bytes(range(32)), frames="2")
    locator = locate(data)
    wanted = frame_range(locator, 1)
    view = memoryview(data)[wanted.start : wanted.stop]

    cut = extract_frame(locator, 1, view)

    assert isinstance(cut, memoryview)
    assert cut.obj is view.obj


@settings(deadline=None)
@given(chunks=st.lists(st.integers(1, 40), min_size=1), sizes=st.lists(st.integers(0, 30), max_size=12))
def test_scanner_finds_the_same_fragments_whatever_the_chunks(chunks: list[int], sizes: list[int]) -> None:
    fragments = [bytes((7 * number + place) % 256 for place in range(size)) for number, size in enumerate(sizes)]
    stream = b"".join(map(item, fragments)) + SEQUENCE_END
    total = len(stream)
    scanner = FragmentScanner(100, 100 + total)

    position = turn = 0
    while position < total:
        scanner.feed((stream + b"behind")[position : position + chunks[turn % len(chunks)]])
        position += chunks[turn % len(chunks)]
        turn += 1
    found = scanner.finish()

    assert [start - 100 for start in found.starts] == [sum(8 + size for size in sizes[:n]) for n in range(len(sizes))]
    assert list(found.lengths) == sizes
    assert [found.heads[4 * n : 4 * n + 4] for n in range(len(sizes))] == [f[:4].ljust(4, b"\0") for f in fragments]
    assert [found.tails[4 * n : 4 * n + 4] for n in range(len(sizes))] == [f[-4:].rjust(4, b"\0") for f in fragments]
    assert found.stop == 100 + total


def test_slide_without_a_table_is_located_in_one_streaming_pass_of_flat_memory() -> None:
    count, tile = 2000, bytes(20_000)
    data = encapsulated_image([], frames=str(count), end=b"")
    size = len(data) + count * (8 + len(tile)) + 8
    window = Window(size)
    window.add(0, data)
    opened = open_p10(window)
    header = read_header(opened)
    with pytest.raises(FragmentsUnknown) as unknown:
        locate_pixels(window, opened, header)

    tracemalloc.start()
    scanner = FragmentScanner(unknown.value.start, unknown.value.stop)
    for _ in range(count):
        scanner.feed(item()[:4] + pack("<I", len(tile)))
        scanner.feed(tile)
    scanner.feed(SEQUENCE_END)
    locator = locate_pixels(window, opened, header, fragments=scanner.finish())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (unknown.value.start, unknown.value.stop) == (len(data), size)
    assert locator.frame_count == count
    assert frame_range(locator, 1).start == len(data) + 20_008
    assert peak < 1_000_000


@pytest.mark.parametrize("position", range(0, 48, 3))
def test_damaged_locator_is_an_error_or_a_locator(position: int) -> None:
    whole = locate(encapsulated_image([b"aaaa", b"bbbb"], frames="2", table=[0, 12])).to_bytes()

    for damaged in (whole[:position], whole[:position] + b"\xff" + whole[position + 1 :], whole + b"\0"):
        try:
            locator = PixelLocator.from_bytes(damaged)
        except InstanceUnreadable:
            continue
        assert len(locator.span_starts) == len(locator.span_stops) == 2


def test_positions_beyond_four_gigabytes_survive_the_compact_form() -> None:
    locator = locate(encapsulated_image([b"aaaa", b"bbbb"], frames="2", table=[0, 12]))
    far = replace(locator, value_stop=1 << 40)
    far.span_stops[-1] = 1 << 40

    assert PixelLocator.from_bytes(far.to_bytes()) == far


SMALL = [
    encapsulated_image([b"aaaa", b"bbbb"], frames="2", table=[0, 12]),
    encapsulated_image([J2K + EOC, J2K, EOC], frames="2", transfer_syntax_uid=JPEG_2000),
    native_image(bytes(range(32)), frames="2"),
    p10(image_attributes(frames="2", bits=1, rows=3, columns=3) + element(0x7FE00010, "OB", b"\xff\xff\3\0")),
]


@settings(deadline=None)
@given(
    data=st.sampled_from(SMALL),
    cut=st.integers(0, 400),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
)
def test_any_damage_gives_frames_inside_the_file_or_the_one_error(
    data: bytes, cut: int, flips: list[tuple[int, int]]
) -> None:
    damaged = bytearray(data[: len(data) - cut] if cut < len(data) else b"")
    for position, value in flips:
        if position < len(damaged):
            damaged[position] = value

    try:
        locator = locate(bytes(damaged))
        for index in range(min(locator.frame_count, 5)):
            assert frame_range(locator, index).stop <= len(damaged)
            frame(bytes(damaged), locator, index)
    except (InstanceUnreadable, FrameNotFound):
        return


REAL_DOUBTS = {
    "malformed/20-wrong-transfer-syntax.dcm": "native pixel data labelled JPEG-LS",
    "enhanced/emri_small_jpeg_2k_lossless_too_short.dcm": "cut before the sequence delimiter",
    "malformed/GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "broken sequence, pydicom refuses it too",
}


def test_frames_of_the_real_corpus_are_those_of_pydicom(real_folder: Path) -> None:
    doubtful, compared = set(), 0
    for path in sorted(real_folder.glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        if path.suffix == ".dic" or path.name.startswith("DICOMDIR"):
            continue
        data = path.read_bytes()
        try:
            locator = locate_whole(data)
            frames = [frame(data, locator, index) for index in range(locator.frame_count)]
        except InstanceUnreadable:
            doubtful.add(name)
            continue
        if locator.stored_kind is PixelKind.NATIVE and (locator.is_big_endian or locator.frame_bits % 8):
            continue  # the manifest and the models above are the oracle for these
        assert frames == pydicom_frames(path, [len(each) for each in frames]), name
        compared += len(frames)

    assert doubtful == set(REAL_DOUBTS)
    assert compared > 1000


def locate_whole(data: bytes) -> PixelLocator:
    window = Window.of(data)
    opened = open_p10(window)
    return locate_pixels(window, opened, read_header(opened))


def pydicom_frames(path: Path, lengths: list[int]) -> list[bytes]:
    """The frames as pydicom tells them apart; native ones by equal slices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is here because it is not clean
        dataset = pydicom.dcmread(path, force=True)
        tag = next((tag for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009) if tag in dataset), None)
        if tag is None:
            return []
        pixels = dataset[tag]
        if pixels.is_undefined_length:
            tables = None
            if "ExtendedOffsetTable" in dataset:
                tables = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
            return list(generate_frames(pixels.value, number_of_frames=len(lengths), extended_offsets=tables))
        assert len(set(lengths)) == 1
        return [pixels.value[lengths[0] * index : lengths[0] * (index + 1)] for index in range(len(lengths))]
