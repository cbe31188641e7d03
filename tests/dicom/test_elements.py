"""Walking data elements: nesting, VRs, damaged lengths (PS3.5 §7)."""

import sys
import warnings
from pathlib import Path
from struct import pack
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from storage.dicom.elements import Kind, walk
from storage.dicom.p10 import open_p10
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from tests.conftest import DATA
from tests.dicom.builders import (
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    element,
    implicit,
    item,
    read_slowly,
    sequence,
    text,
)

P10_NAMES = sorted(path.name for path in (DATA / "p10").iterdir())

CUT_BY_THE_END = {
    "no_meta.dcm": "one element that runs past the end: pydicom shows half of it, we leave it out",
    "rtplan_truncated.dcm": "the last IsocenterPosition is cut inside a number",
}

Event = tuple[int, int, str, int, int]


def events(data: bytes, *, explicit: bool = True, little_endian: bool = True, skip: bool = False) -> list[Event]:
    window = Window.of(data)
    return list(walk(window, 0, len(data), explicit=explicit, little_endian=little_endian, skip_sequences=skip))


def tree(data: bytes, found: list[Event]) -> list[Any]:  # recursive
    """Events as nested lists [(tag, vr, value bytes or items)]."""
    root: list[Any] = []
    stack = [root]
    for kind, tag, vr, start, stop in found:
        if kind == Kind.ELEMENT:
            stack[-1].append((tag, vr, data[start:stop] if stop >= 0 else None))
        elif kind in (Kind.SEQUENCE, Kind.ITEM):
            inner: list[Any] = []
            stack[-1].append((tag, "SQ", inner) if kind == Kind.SEQUENCE else inner)
            stack.append(inner)
        else:
            stack.pop()
    assert len(stack) == 1, "every sequence and item is closed"
    return root


def pydicom_tree(dataset: Dataset) -> list[Any]:  # recursive
    """The same by pydicom: tag, and the items of sequences or the raw value."""
    root: list[Any] = []
    for tag in sorted(dataset.keys()):
        raw = dataset.get_item(tag)
        found = dataset[tag]
        if found.VR == "SQ":
            root.append((int(tag), "SQ", [pydicom_tree(each) for each in found.value]))
        else:
            root.append((int(tag), str(found.VR), getattr(raw, "value", None)))
    return root


def same(ours: list[Any], theirs: list[Any]) -> None:
    """Equal tags, nesting and raw values; VRs where ours is not one that other attributes decide."""
    ours = sorted(ours, key=lambda entry: entry[0])
    assert [entry[0] for entry in ours] == [entry[0] for entry in theirs]
    for (tag, vr, value), (_, their_vr, their_value) in zip(ours, theirs, strict=True):
        assert vr == their_vr or "or" in vr, f"{tag:08X}: {vr} and {their_vr}"
        if vr == "SQ":
            assert len(value) == len(their_value), f"{tag:08X}"
            for our_item, their_item in zip(value, their_value, strict=True):
                same(our_item, their_item)
        elif isinstance(their_value, bytes) and value is not None:
            assert value == their_value, f"{tag:08X}"


def read_by_pydicom(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns about what these files are here for
        dataset = pydicom.dcmread(path, force=True)
        for _ in dataset.iterall():
            pass
        return dataset


@pytest.mark.parametrize("name", [name for name in P10_NAMES if name not in CUT_BY_THE_END])
def test_tags_nesting_and_values_are_those_that_pydicom_reads(name: str) -> None:
    path = DATA / "p10" / name
    p10 = open_p10(Window.of(path.read_bytes()))
    found = list(walk(p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pydicom_tree(read_by_pydicom(path))

    if found and found[-1][4] == -1:
        theirs = [entry for entry in theirs if entry[0] <= 0x7FE00010]  # the walk ends at encapsulated pixel data
    same(tree(bytes(p10.window.view(0, p10.window.size)), found), theirs)


@pytest.mark.parametrize("name", P10_NAMES)
def test_header_windows_give_the_events_of_the_whole_file(name: str) -> None:
    data = (DATA / "p10" / name).read_bytes()

    def parse(window: Window) -> list[Event]:
        p10 = open_p10(window)
        return list(walk(p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian))

    found, asked = read_slowly(data, parse)

    assert found == parse(Window.of(data))
    assert all(0 <= each.start < each.stop <= len(data) for each in asked)


def test_the_element_that_the_end_of_the_file_cuts_is_left_out() -> None:
    """Half a number is a wrong number; what stands before it is whole."""
    p10 = open_p10(Window.of((DATA / "p10" / "rtplan_truncated.dcm").read_bytes()))

    found = list(walk(p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian))

    assert 0x300A012C not in [tag for _, tag, *_ in found]
    elements = [event for event in found if event[0] == Kind.ELEMENT]
    assert elements[-1][1] == 0x300A012A, "the element before it"
    assert [event[0] for event in found[-4:]] == [Kind.END_ITEM, Kind.END_SEQUENCE] * 2


def test_cut_is_told_at_the_end_of_the_walk() -> None:
    whole = element(0x00100020, "LO", b"ab")
    for data, is_cut in ((whole, False), (whole + element(0x00100021, "LO", b"a", length=2), True)):
        generator = walk(Window.of(data), 0, len(data), explicit=True, little_endian=True)
        next(generator)
        with pytest.raises(StopIteration) as end:
            next(generator)
        assert end.value.value is is_cut


def test_native_pixel_data_is_cut_where_the_file_ends() -> None:
    data = element(0x00280010, "US", b"\4\0") + element(0x7FE00010, "OW", b"123456", length=32)

    assert events(data)[-1] == (Kind.ELEMENT, 0x7FE00010, "OW", 22, 28)


@pytest.mark.parametrize("undefined", [False, True])
def test_empty_sequences_and_empty_items_are_reported(undefined: bool) -> None:
    length = UNDEFINED if undefined else None
    data = sequence(0x00081115, [], undefined=undefined) + sequence(
        0x00081199, [item(length=length), item(element(0x00081150, "UI", b"1.2\0"), length=length)], undefined=undefined
    )

    assert tree(data, events(data)) == [
        (0x00081115, "SQ", []),
        (0x00081199, "SQ", [[], [(0x00081150, "UI", b"1.2\0")]]),
    ]


def test_skipped_sequences_hide_their_inside_and_leave_the_top_level() -> None:
    inner = item(sequence(0x00081199, [item(element(0x00081150, "UI", b"1.2\0"))]))
    data = (
        sequence(0x00081115, [inner])
        + sequence(0x00081140, [inner, item(inner[8:], length=UNDEFINED)], undefined=True)
        + element(0x00280010, "US", b"\4\0")
    )

    found = events(data, skip=True)

    assert [(kind, tag) for kind, tag, *_ in found] == [
        (Kind.SEQUENCE, 0x00081115),
        (Kind.END_SEQUENCE, 0x00081115),
        (Kind.SEQUENCE, 0x00081140),
        (Kind.END_SEQUENCE, 0x00081140),
        (Kind.ELEMENT, 0x00280010),
    ]


def test_skipping_does_not_ask_for_the_inside_of_a_sequence_of_defined_length() -> None:
    data = sequence(0x00081115, [item(element(0x00204000, "LT", bytes(2000)))]) + element(0x00280010, "US", b"\4\0")

    def parse(window: Window) -> list[Event]:
        return list(walk(window, 0, len(data), explicit=True, little_endian=True, skip_sequences=True))

    found, asked = read_slowly(data, parse)

    assert found == events(data, skip=True)
    assert sum(map(len, asked)) < 100


def test_private_vr_comes_from_the_creator_of_the_same_data_set() -> None:
    """PS3.5 §7.8.1: a block is reserved per data set, so an item does not inherit it."""
    creator = implicit(0x00190010, b"GEMS_ACQU_01")
    inner = implicit(0x0019101E, b"1.50")
    data = creator + inner + implicit(0x00081115, item(inner))

    assert tree(data, events(data, explicit=False)) == [
        (0x00190010, "LO", b"GEMS_ACQU_01"),
        (0x0019101E, "DS", b"1.50"),
        (0x00081115, "SQ", [[(0x0019101E, "UN", b"1.50")]]),
    ]


def test_implicit_vrs_come_from_the_dictionary_with_repeating_groups_and_group_lengths() -> None:
    data = (
        implicit(0x00080000, pack("<I", 4))
        + implicit(0x00280106, b"\1\0")
        + implicit(0x60020010, b"\1\0")
        + implicit(0x70001234, b"ab")
    )

    assert [vr for _, _, vr, *_ in events(data, explicit=False)] == ["UL", "US or SS", "US", "UN"]


def test_un_of_a_known_tag_gets_its_vr_and_un_of_undefined_length_is_an_implicit_sequence() -> None:
    """PS3.5 §6.2.2."""
    data = (
        element(0x00100020, "UN", b"id")
        + element(0x00081115, "UN", item(implicit(0x0020000E, b"1.2\0")))
        + element(0x00091010, "UN", item(implicit(0x0020000E, b"1.2\0")), length=UNDEFINED)
        + SEQUENCE_END
    )

    assert tree(data, events(data)) == [
        (0x00100020, "LO", b"id"),
        (0x00081115, "SQ", [[(0x0020000E, "UI", b"1.2\0")]]),
        (0x00091010, "SQ", [[(0x0020000E, "UI", b"1.2\0")]]),
    ]


def test_big_endian_un_stays_un() -> None:
    """Its byte order is not certain."""
    data = element(0x00280010, "UN", b"\0\4", order=">")

    assert events(data, little_endian=False) == [(Kind.ELEMENT, 0x00280010, "UN", 12, 14)]


def test_single_element_without_vr_is_read_as_implicit() -> None:
    data = element(0x00080016, "UI", b"1.2\0") + implicit(0x00100020, b"id") + element(0x00280010, "US", b"\4\0")

    assert [(tag, vr) for _, tag, vr, *_ in events(data)] == [
        (0x00080016, "UI"),
        (0x00100020, "LO"),
        (0x00280010, "US"),
    ]


def test_encapsulated_icon_is_one_element_up_to_its_delimiter() -> None:
    icon = element(0x7FE00010, "OB", item() + item(b"\xff\xd8\xff\xd9"), length=UNDEFINED) + SEQUENCE_END
    data = sequence(0x00880200, [item(icon)])

    assert tree(data, events(data)) == [(0x00880200, "SQ", [[(0x7FE00010, "OB", item() + item(b"\xff\xd8\xff\xd9"))]])]


def test_walk_ends_at_encapsulated_pixels_and_goes_on_behind_them() -> None:
    pixels = element(0x7FE00010, "OB", item() + item(b"abcd"), length=UNDEFINED) + SEQUENCE_END
    data = pixels + element(0xFFFCFFFC, "OB", b"\0\0")

    assert events(data) == [(Kind.ELEMENT, 0x7FE00010, "OB", 12, -1)]
    behind = list(walk(Window.of(data), len(pixels), len(data), explicit=True, little_endian=True))
    assert behind == [(Kind.ELEMENT, 0xFFFCFFFC, "OB", len(pixels) + 12, len(data))]


def test_superfluous_delimiters_are_passed_over() -> None:
    data = sequence(0x00081115, [item() + ITEM_END]) + SEQUENCE_END + element(0x00280010, "US", b"\4\0")

    assert tree(data, events(data)) == [(0x00081115, "SQ", [[]]), (0x00280010, "US", b"\4\0")]


def nested(depth: int, *, undefined: bool) -> bytes:
    data = b""
    for _ in range(depth):
        data = sequence(0x00081115, [item(data, length=UNDEFINED if undefined else None)], undefined=undefined)
    return data


def test_sixty_four_levels_are_read_and_one_more_is_refused() -> None:
    assert len(events(nested(64, undefined=False))) == 4 * 64
    with pytest.raises(InstanceUnreadable, match="deeper"):
        events(nested(65, undefined=False))


def test_depth_of_a_hundred_thousand_is_refused_without_recursion() -> None:
    opening = element(0x00081115, "SQ", length=UNDEFINED) + item(length=UNDEFINED)[:8]

    for skip in (False, True):
        with pytest.raises(InstanceUnreadable, match="deeper"):
            events(opening * 100_000, skip=skip)
    assert sys.getrecursionlimit() < 100_000


@pytest.mark.parametrize("length", [3, 0x7FFFFFFF, 0xFFFFFFF0])
def test_length_that_leaves_its_item_is_refused(length: int) -> None:
    """Else a value would be made of what belongs to others."""
    lying = item(element(0x00081150, "UT", b"ab", length=length))
    data = sequence(0x00081115, [lying]) + element(0x00280010, "US", b"\4\0")

    with pytest.raises(InstanceUnreadable):
        events(data)


def test_sequence_length_that_lies_is_no_cut_file() -> None:
    data = element(0x00081115, "SQ", item(), length=0xFFFFFFF0) + element(0x00280010, "US", b"\4\0")

    for skip in (False, True):
        with pytest.raises(InstanceUnreadable, match="where an item should be"):
            events(data, skip=skip)


def test_value_of_length_fffffff0_in_the_top_level_is_not_reported() -> None:
    data = element(0x00100020, "LO", b"id") + element(0x00204000, "UT", b"ab", length=0xFFFFFFF0)

    assert [tag for _, tag, *_ in events(data)] == [0x00100020]


SMALL = (
    element(0x00080005, "CS", b"ISO_IR 100")
    + element(0x00090010, "LO", text("MAKER"))
    + element(0x00091001, "UN", b"\1\2")
    + sequence(0x00081115, [item(element(0x0020000E, "UI", b"1.2\0"), length=UNDEFINED)], undefined=True)
    + sequence(0x00081140, [item(nested(3, undefined=False))])
    + element(0x00280010, "US", b"\4\0")
    + element(0x7FE00010, "OB", item() + item(b"abcd"), length=UNDEFINED)
    + SEQUENCE_END
)


@settings(deadline=None)
@given(
    stop=st.integers(0, len(SMALL)),
    flips=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=4),
    explicit=st.booleans(),
    little_endian=st.booleans(),
    skip=st.booleans(),
)
def test_any_damage_gives_events_in_bounds_or_the_one_error(
    stop: int, flips: list[tuple[int, int]], explicit: bool, little_endian: bool, skip: bool
) -> None:
    damaged = bytearray(SMALL[:stop])
    for position, value in flips:
        if position < stop:
            damaged[position] = value
    data = bytes(damaged)

    try:
        found = events(data, explicit=explicit, little_endian=little_endian, skip=skip)
    except InstanceUnreadable:
        return

    tree(data, found)
    for kind, _, _, start, value_stop in found:
        assert 0 <= start <= stop
        assert value_stop == -1 or (start <= value_stop <= stop) or kind in (Kind.END_ITEM, Kind.END_SEQUENCE)


def test_window_names_the_bytes_it_lacks_and_joins_its_pieces() -> None:
    window = Window(10)
    window.add(0, b"0123")
    window.add(6, b"67")

    with pytest.raises(MissingBytes) as missing:
        window.view(2, 7)
    assert (missing.value.start, missing.value.stop) == (4, 7)

    window.add(3, b"3456789")
    assert bytes(window.view(2, 9)) == b"2345678"
    assert bytes(window.view(0, 10)) == b"0123456789"
    with pytest.raises(InstanceUnreadable):
        window.view(5, 11)
    with pytest.raises(InstanceUnreadable):
        window.add(8, b"abc")


@settings(deadline=None)
@given(pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=8), ask=st.integers(0, 50))
def test_window_answers_as_an_array_of_known_bytes_would(pieces: list[tuple[int, int]], ask: int) -> None:
    data = bytes(range(60))
    window, known = Window(60), [False] * 60
    for start, length in pieces:
        window.add(start, data[start : start + length])
        known[start : start + length] = [True] * length

    if all(known[ask : ask + 9]):
        view, base = window.piece_at(ask, 9)
        assert bytes(window.view(ask, ask + 9)) == data[ask : ask + 9] == bytes(view[ask - base : ask - base + 9])
    else:
        with pytest.raises(MissingBytes) as missing:
            window.view(ask, ask + 9)
        assert not all(known[missing.value.start : missing.value.stop])
        assert missing.value.stop <= ask + 9
