"""One pass over many data sets: what it remembers of those before must never be seen in what it says of the next.

The oracles are `read_header` and `attributes_json`, which remember nothing.
"""

import gc
import os
import random
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from struct import pack
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.dicom.attributes import JsonOptions
from storage.dicom.examination import Examination, Examiner
from storage.dicom.json import attributes_json
from storage.dicom.p10 import open_p10, read_header
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from tests.dicom.builders import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    UNDEFINED,
    element,
    encapsulated_image,
    image_attributes,
    implicit,
    item,
    native_image,
    p10,
    read_slowly,
    sequence,
)

P10_FILES = sorted((Path(__file__).parents[1] / "data" / "p10").iterdir())
REAL = Path(os.environ.get("CODWEB_REAL_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures" / "real"))
REAL_FILES = sorted(path for path in REAL.glob("*/*") if path.suffix not in (".dic", ".json"))
MAX_FILE_BYTES = 1 << 20  # what is longer is pixels
MAX_FILES_OF_A_FOLDER = 12  # the longer folders are series of one kind

OPTIONS = JsonOptions(bulkdata_base="", bulk_threshold_bytes=64, include_file_meta=True)
POSITION = 0x00200032
CREATOR = 0x00290010
PRIVATE = 0x00291008


def alone(data: bytes) -> tuple[object, bytes] | str:
    """Header and JSON of a file, or why there are none."""
    try:
        opened = open_p10(Window.of(data))
        attributes = attributes_json(opened, OPTIONS)
        return replace(read_header(opened), is_cut=False), attributes
    except InstanceUnreadable as error:
        return str(error)


def by(examiner: Examiner, data: bytes) -> tuple[object, bytes] | str:
    try:
        found = examiner.examine(open_p10(Window.of(data)))
    except InstanceUnreadable as error:
        return str(error)
    return replace(found.header, is_cut=False), found.attributes  # see the test of cut files


def examined(data: bytes) -> Examination:
    return Examiner(OPTIONS, frozenset({POSITION})).examine(open_p10(Window.of(data)))


# --- the same as without a memory -------------------------------------------------------------------------------------


@pytest.mark.long
def test_every_fixture_says_the_same_behind_any_others() -> None:
    examiner = Examiner(OPTIONS)
    paths = [*P10_FILES]
    for folder in sorted({path.parent for path in REAL_FILES}):
        paths += [path for path in REAL_FILES if path.parent == folder][:MAX_FILES_OF_A_FOLDER]
    files = {path: path.read_bytes() for path in paths if path.stat().st_size <= MAX_FILE_BYTES}
    order = [*files]
    random.Random(1).shuffle(order)
    order += reversed(order)
    expected = {path: alone(data) for path, data in files.items()}

    assert [path for path in order if by(examiner, files[path]) != expected[path]] == []


def pieces(order: str) -> list[bytes]:
    """Elements that mean different things in different company, and some that are broken."""

    def number(value: int) -> bytes:
        return pack(order + "H", value)

    text = "Grün".encode("latin_1")
    code = element(0x00080100, "SH", b"C1", order=order) + element(0x00080104, "LO", text, order=order)
    ends = pack(order + "HHI", 0xFFFE, 0xE00D, 0), pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
    head = pack(order + "HHI", 0xFFFE, 0xE000, len(code))
    open_head = pack(order + "HHI", 0xFFFE, 0xE000, UNDEFINED)
    return [
        element(0x00080005, "CS", b"ISO_IR 100", order=order),
        element(0x00080005, "CS", b"ISO_IR 192", order=order),
        element(0x00081030, "LO", text, order=order),
        element(0x00081030, "LO", text + b"  ", order=order),
        element(0x00081032, "SQ", head + code, order=order),
        element(0x00081032, "SQ", open_head + code + ends[0] + ends[1], length=UNDEFINED, order=order),
        element(0x00081032, "SQ", b"", order=order),
        element(0x00081032, "SQ", head + code[:-2], order=order),  # the item runs past its sequence
        element(0x00100010, "PN", b"A^B ", order=order),
        element(0x00100010, "PN", b"A^C ", order=order),
        element(0x00100020, "UN", b"12", order=order),
        element(0x00180050, "DS", b"1.50", order=order),
        pack(order + "HHI", 0x0018, 0x0088, 4) + b"2.50",  # no VR: whether it is implicit depends on what follows
        pack(order + "HH", 0x0018, 0x0090) + b"\0\7" + pack(order + "H", 4) + b"2.50",
        element(CREATOR, "LO", b"SIEMENS CSA HEADER", order=order),
        element(CREATOR, "LO", b"NOBODY KNOWS", order=order),
        element(PRIVATE, "UN", b"IMAGE NUM 4 ", order=order),
        element(PRIVATE, "CS", b"IMAGE NUM 4 ", order=order),
        element(PRIVATE + 1, "OB", bytes(range(200)), order=order),
        element(0x00280103, "US", number(0), order=order),
        element(0x00280103, "US", number(1), order=order),
        element(0x00280106, "UN", number(0xFFFE), order=order),
        element(0x00280106, "US", number(0xFFFE), order=order),
        element(0x00280010, "US", number(4), order=order),
        element(0x7FE00010, "OW", bytes(6), order=order),
        element(0x7FE00010, "OW", b"", order=order),
        element(0xFFFCFFFC, "OB", bytes(4), order=order),
        b"\0\1\2",
    ]


IMPLICIT_PIECES = [
    implicit(0x00080005, b"ISO_IR 100"),
    implicit(0x00081030, "Grün".encode("latin_1")),
    implicit(0x00081032, item(implicit(0x00280106, b"\xfe\xff"))),
    implicit(0x00081032, item(implicit(0x00280103, b"\1\0") + implicit(0x00280106, b"\xfe\xff"))),
    implicit(CREATOR, b"SIEMENS CSA HEADER"),
    implicit(CREATOR, b"NOBODY KNOWS"),
    implicit(PRIVATE, b"IMAGE NUM 4 "),
    implicit(PRIVATE, b"IMAGE NUM 4 ", length=500),
    implicit(0x00280103, b"\0\0"),
    implicit(0x00280103, b"\1\0"),
    implicit(0x00280106, b"\xfe\xff"),
    implicit(0x00283006, b"\1\0"),
    implicit(0x7FE00010, bytes(6)),
]
ENCODINGS = {EXPLICIT_LE: pieces("<"), EXPLICIT_BE: pieces(">"), IMPLICIT_LE: IMPLICIT_PIECES}


@st.composite
def data_sets(draw: st.DrawFn) -> bytes:
    """Any of the pieces: mostly in order, so that there are runs of the same ones; cut anywhere."""
    syntax = draw(st.sampled_from(sorted(ENCODINGS)))
    numbers = draw(st.lists(st.sampled_from(range(len(ENCODINGS[syntax]))), min_size=1, max_size=12))
    if draw(st.integers(0, 3)):
        numbers.sort()
    data = p10(b"".join(ENCODINGS[syntax][number] for number in numbers), syntax)
    return data[: -draw(st.integers(1, 20))] if draw(st.integers(0, 3)) == 0 else data


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(files=st.lists(data_sets(), min_size=2, max_size=10))
def test_data_sets_in_any_order_say_the_same_as_each_alone(files: list[bytes]) -> None:
    examiner = Examiner(OPTIONS)

    for data in (*files, *files, *reversed(files)):
        assert by(examiner, data) == alone(data)


def test_memory_that_is_full_begins_anew() -> None:
    examiner = Examiner(OPTIONS, max_memory_bytes=2000)
    files = [p10(image_attributes(rows=number) + element(PRIVATE, "ST", b"x" * 60)) for number in range(1, 60)]

    for data in (*files, *files):
        assert by(examiner, data) == alone(data)


def test_memory_does_not_grow_with_the_number_of_files() -> None:
    examiner = Examiner(OPTIONS, max_memory_bytes=50_000)

    def read(numbers: range) -> None:
        for number in numbers:
            texts = [element(0x00104000 + 2 * index, "LT", b"%0500d" % (20 * number + index)) for index in range(20)]
            examiner.examine(open_p10(Window.of(p10(b"".join(texts)))))

    gc.collect()
    gc.disable()  # nothing that holds a file's bytes may wait for the collector
    tracemalloc.start()
    try:
        read(range(10))
        before = tracemalloc.get_traced_memory()[0]
        read(range(10, 110))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()

    assert grown < 200_000  # the texts alone are 1 MB, and their JSON as much


def test_next_slice_of_a_series_encodes_only_what_is_different() -> None:
    examiner = Examiner(OPTIONS)
    stable = b"".join(element(0x00181000 + 2 * index, "LO", b"%06d" % index) for index in range(100))
    slices = [
        element(0x00080018, "UI", b"2.25.%d" % number) + stable + element(POSITION, "DS", b"0\\0\\%d " % number)
        for number in range(10, 14)
    ]

    encoded = [
        calls_of("member", lambda data=data: examiner.examine(open_p10(Window.of(p10(data))))) for data in slices
    ]

    meta = 2
    assert encoded == [meta + 102, meta + 2, meta + 2, meta + 2]


def calls_of(name: str, run: object) -> int:
    """How often a function of this name is called."""
    count = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_name == name

    sys.setprofile(note)
    try:
        run()  # type: ignore[operator]
    finally:
        sys.setprofile(None)
    return count


# --- what else a pass tells -------------------------------------------------------------------------------------------


def test_watched_values_are_found_in_known_and_unknown_elements() -> None:
    examiner = Examiner(OPTIONS, frozenset({POSITION}))
    data = p10(
        element(0x00181000, "LO", b"ab") + element(POSITION, "DS", b"0\\0\\1 ") + element(0x00400001, "AE", b"X ")
    )

    found = [examiner.examine(open_p10(Window.of(data))).values for _ in range(5)]

    assert found == [{POSITION: b"0\\0\\1 "}] * 5


def test_bulk_data_are_named_with_their_places() -> None:
    value = bytes(range(100))
    data = p10(
        sequence(0x00081140, [item(), item(element(PRIVATE, "OB", value))]) + element(0x7FE00010, "OW", value[:8])
    )

    found = examined(data)

    assert {path: data[start:stop] for path, (start, stop) in found.bulk.items()} == {
        b"00081140/2/00291008": value,
        b"7FE00010": value[:8],
    }


def test_tail_behind_encapsulated_pixels_is_asked_for_once_the_header_is_known() -> None:
    tail = element(0xFFFAFFFA, "SQ")
    data = encapsulated_image([b"ab", b"cd"], frames="2") + tail
    seen = []

    def find_tail(header: object) -> int:
        seen.append(header)
        return len(data) - len(tail)

    opened = open_p10(Window.of(data))
    found = Examiner(OPTIONS).examine(opened, find_tail)

    assert seen == [read_header(opened)]
    assert found.attributes == attributes_json(opened, OPTIONS, tail_start=len(data) - len(tail))
    assert b"FFFAFFFA" in found.attributes


@pytest.mark.parametrize("data", [native_image(bytes(32), frames="2"), encapsulated_image([b"ab"], frames=None)])
def test_missing_bytes_are_asked_for_until_there_are_enough(data: bytes) -> None:
    examiner = Examiner(OPTIONS)
    examiner.examine(open_p10(Window.of(data)))

    found, _ = read_slowly(data, lambda window: examiner.examine(open_p10(window)))

    assert found == Examiner(OPTIONS).examine(open_p10(Window.of(data)))


def test_header_of_a_cut_file_says_so() -> None:
    """Also where the cut can only be seen inside of a sequence, over which `read_header` jumps."""
    whole = p10(image_attributes() + sequence(0x00400555, [item(element(0x0040A160, "UT", b"text"))]))
    nested = p10(element(0x00081032, "SQ", pack("<HHI", 0xFFFE, 0xE000, 20) + element(0x00080100, "SH", b"AB")))

    assert not examined(whole).header.is_cut
    assert examined(whole[:-2]).header.is_cut
    assert examined(p10(image_attributes())[:-1]).header.is_cut
    assert not examined(nested).header.is_cut


def test_nothing_is_held_of_a_data_set_whose_header_is_missing() -> None:
    with pytest.raises(MissingBytes):
        Examiner(OPTIONS).examine(open_p10(_beginning_of(native_image(bytes(32)), 200)))


def _beginning_of(data: bytes, length: int) -> Window:
    window = Window(len(data))
    window.add(0, data[:length])
    return window
