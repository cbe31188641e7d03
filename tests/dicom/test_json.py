"""The DICOM JSON Model of whole data sets, against pydicom, and by the rules of PS3.18 Annex F one by one."""

import base64
import os
import struct
import tracemalloc
import warnings
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any  # DICOM JSON is a tree of anything

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from storage.dicom.attributes import MAX_INLINE_BYTES
from storage.dicom.json import CHUNK_BYTES, JsonOptions, attributes_json, json_chunks
from storage.dicom.p10 import open_p10
from storage.dicom.vr import STANDARD_VRS
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from tests.dicom.json_oracle import BASE, PALETTE_TAGS, differences, load, read

P10_FILES = sorted((Path(__file__).parents[1] / "data" / "p10").iterdir())
REAL = Path(os.environ.get("CODWEB_REAL_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures" / "real"))
REAL_FILES = sorted(path for path in REAL.glob("*/*") if path.suffix not in (".dic", ".json"))

PYDICOM_CANNOT = {
    "emri_small_jpeg_2k_lossless_too_short.dcm": "pydicom reads nothing of it",
    "no_preamble_dicm_in_data": "pydicom takes the letters DICM in its data for a preamble",
    "no_meta.dcm": "pydicom reads big-endian where the data set is implicit",
    "Tag-0040-A170-VR-CS.dcm": "pydicom makes an item of the text that stands where a sequence should be",
    "GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": "no syntax fits it; both refuse",
}
CUT_ELEMENT = "rtplan_truncated.dcm"  # pydicom keeps the half of a value with which the file ends
MAX_FILES_OF_A_FOLDER = 25  # the longer folders are series of one kind
OPTIONS = JsonOptions(bulkdata_base=BASE)


@pytest.fixture(autouse=True)
def _pydicom_keeps_wrong_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config, "convert_wrong_length_to_UN", True)


def element(tag: int, vr: str, raw: bytes) -> bytes:
    """One explicit little-endian element, as wrong as a test needs it."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"):
        return head + struct.pack("<HI", 0, len(raw)) + raw
    return head + struct.pack("<H", len(raw)) + raw


def item(*elements: bytes) -> bytes:
    content = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def p10_bytes(*elements: bytes, transfer_syntax_uid: str = "1.2.840.10008.1.2.1") -> bytes:
    uid = transfer_syntax_uid.encode() + b"\0" * (len(transfer_syntax_uid) % 2)
    return bytes(128) + b"DICM" + element(0x00020010, "UI", uid) + b"".join(elements)


def as_json(data: bytes, options: JsonOptions = OPTIONS, *, tail_start: int | None = None) -> dict[str, Any]:
    return load(attributes_json(open_p10(Window.of(data)), options, tail_start=tail_start))


def of(*elements: bytes, options: JsonOptions = OPTIONS) -> dict[str, Any]:
    return as_json(p10_bytes(*elements), options)


# --- against pydicom --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", P10_FILES, ids=lambda path: path.name)
def test_every_fixture_reads_as_pydicom_reads_it(path: Path) -> None:
    _compare_file(path)


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in REAL_FILES}) or [None], ids=lambda folder: folder.name if folder else ""
)
def test_real_files_read_as_pydicom_reads_them(folder: Path | None) -> None:
    if folder is None:
        pytest.skip("the corpus of real files is not here: CODWEB_REAL_FIXTURES names its folder")
    for path in [path for path in REAL_FILES if path.parent == folder][:MAX_FILES_OF_A_FOLDER]:
        _compare_file(path)


def _compare_file(path: Path) -> None:
    if path.name in PYDICOM_CANNOT:
        return
    p10 = open_p10(Window.of(path.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = differences(load(attributes_json(p10, OPTIONS)), read(path), little_endian=p10.little_endian)
    if path.name == CUT_ELEMENT:
        assert found == ["/300A00B0/1/300A0111/1: keys ['300A012C']"]
    else:
        assert found == [], path


PLAIN_TAGS: dict[str, list[int]] = {}
for _tag, _vr in STANDARD_VRS.items():
    if 0x00080006 < _tag < 0xFFFA0000 and _tag & 0xFFFF and _tag not in PALETTE_TAGS and _tag >> 16 != 0x7FE0:
        PLAIN_TAGS.setdefault(_vr, []).append(_tag)
LETTERS = st.text(st.characters(categories=("L", "N"), include_characters=" -+.'"), min_size=1, max_size=12)
PLAIN_LETTERS = st.text("ABCXYZ019_ ", min_size=1, max_size=12)
INTEGERS = {"US": (0, 16), "SS": (1, 16), "UL": (0, 32), "SL": (1, 32), "UV": (0, 64), "SV": (1, 64)}
WORDS = {"OB": 2, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8, "UN": 2}


def integers(is_signed: int, bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else st.integers(0, 2**bits - 1)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{vr: integers(*kind) for vr, kind in INTEGERS.items()},
    **dict.fromkeys(("LO", "SH", "UC"), LETTERS),
    **dict.fromkeys(("AE", "CS"), PLAIN_LETTERS),
    "AS": st.sampled_from(["001D", "099Y"]),
    "AT": st.integers(0, 2**32 - 1),
    "DA": st.dates(date(1000, 1, 1)).map(lambda date: f"{date:%Y%m%d}"),
    "DS": st.one_of(st.floats(-1e9, 1e9).map(lambda number: f"{number:.9g}"), st.sampled_from(["+1.50", ".5", "007"])),
    "DT": st.datetimes(datetime(1000, 1, 1)).map(lambda moment: f"{moment:%Y%m%d%H%M%S.%f}"),
    "FD": st.floats(allow_nan=False),
    "FL": st.floats(width=32, allow_nan=False),
    "IS": st.integers(-(2**31), 2**31 - 1).map(str),
    "PN": st.lists(LETTERS, min_size=1, max_size=3).map("=".join),
    "TM": st.times().map(lambda time: f"{time:%H%M%S.%f}"),
    "UI": st.lists(st.integers(0, 10**9), min_size=2, max_size=5).map(lambda parts: ".".join(map(str, parts))),
}
LONG_VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{
        vr: st.text(st.characters(categories=("L", "N"), include_characters=" \\\r\n"), max_size=40)
        for vr in ("LT", "UT")
    },
    "UR": st.just("http://example.org/a?b=c\\d"),
}


@st.composite
def elements(draw: st.DrawFn) -> DataElement:
    vr = draw(st.sampled_from(sorted((VALUES.keys() | LONG_VALUES.keys() | WORDS.keys()) & PLAIN_TAGS.keys())))
    tags = PLAIN_TAGS[vr]
    tag = tags[draw(st.integers(0, len(tags) - 1))]
    if vr in WORDS:
        return DataElement(tag, vr, draw(st.one_of(st.binary(max_size=5), st.just(b"12345678" * 200))) * WORDS[vr])
    return DataElement(tag, vr, draw(st.lists(VALUES[vr], max_size=3) if vr in VALUES else LONG_VALUES[vr]))


def data_sets() -> st.SearchStrategy[Dataset]:
    return st.recursive(
        _data_sets_of(elements()), lambda inner: _data_sets_of(st.one_of(elements(), _sequences(inner))), max_leaves=6
    )


@st.composite
def _data_sets_of(draw: st.DrawFn, members: st.SearchStrategy[DataElement]) -> Dataset:
    drawn = draw(st.lists(members, max_size=8))
    data_set = Dataset({member.tag: member for member in sorted(drawn, key=lambda member: member.tag)})
    data_set.is_undefined_length_sequence_item = draw(st.booleans())
    return data_set


@st.composite
def _sequences(draw: st.DrawFn, inner: st.SearchStrategy[Dataset]) -> DataElement:
    sequence = DataElement(draw(st.sampled_from(PLAIN_TAGS["SQ"])), "SQ", Sequence(draw(st.lists(inner, max_size=3))))
    sequence.is_undefined_length = draw(st.booleans())
    return sequence


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(data_set=data_sets())
def test_any_data_set_reads_as_pydicom_reads_it(syntax: pydicom.uid.UID, data_set: Dataset) -> None:
    data_set.SpecificCharacterSet = "ISO_IR 192"
    written = _written(data_set, syntax)

    found = differences(as_json(written), read(BytesIO(written)), little_endian=syntax != ExplicitVRBigEndian)

    assert found == []


def _written(data_set: Dataset, syntax: pydicom.uid.UID) -> bytes:
    file = BytesIO()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, on values that break a limit of their VR
        file.write(bytes(128) + b"DICM")
        dcmwrite(
            file,
            data_set,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
            enforce_file_format=False,
        )
    return file.getvalue().removeprefix(bytes(128) + b"DICM")


# --- the rules of PS3.18 Annex F, one by one --------------------------------------------------------------------------


def test_J1_keys_are_eight_upper_case_hex_digits_in_ascending_order() -> None:
    shown = of(
        element(0x0020000D, "UI", b"1.2\0"), element(0x0008103E, "LO", b"ab"), element(0x7FE00010, "OW", b"1234")
    )

    assert list(shown) == ["0008103E", "0020000D", "7FE00010"]


def test_J1_items_are_sorted_too_and_of_a_tag_that_occurs_twice_the_later_counts() -> None:
    content = item(element(0x00100020, "LO", b"B "), element(0x00100010, "PN", b"A "), element(0x00100020, "LO", b"C "))

    (shown,) = of(element(0x00081140, "SQ", content))["00081140"]["Value"]

    assert list(shown) == ["00100010", "00100020"]
    assert shown["00100020"]["Value"] == ["C"]


def test_J2_vr_comes_first_and_at_most_one_kind_of_value_follows() -> None:
    shown = of(
        element(0x00080060, "CS", b"CT"),
        element(0x00081140, "SQ", item(element(0x00091010, "UN", b"ab"))),
        element(0x00091011, "OB", bytes(2000)),
    )

    members = [*shown.values(), *shown["00081140"]["Value"][0].values()]
    assert [next(iter(member)) for member in members] == ["vr"] * 4
    assert [list(member)[1:] for member in members] == [["Value"], ["Value"], ["BulkDataURI"], ["InlineBinary"]]


def test_J3_no_group_length_no_group_0002_no_padding() -> None:
    shown = of(
        element(0x00080000, "UL", bytes(4)),
        element(0x00080060, "CS", b"CT"),
        element(0x00090000, "UL", bytes(4)),
        element(0xFFFCFFFC, "OB", bytes(8)),
    )

    assert list(shown) == ["00080060"]


def test_J3_file_meta_information_is_shown_when_it_is_asked_for() -> None:
    shown = of(element(0x00080060, "CS", b"CT"), options=JsonOptions(bulkdata_base=BASE, include_file_meta=True))

    assert list(shown) == ["00020010", "00080060"]
    assert shown["00020010"] == {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]}


def test_J4_empty_attributes_sequences_and_items() -> None:
    shown = of(
        element(0x00080050, "SH", b""),
        element(0x00081140, "SQ", b""),
        element(0x00082112, "SQ", item() + item()),
        element(0x7FE00010, "OW", b""),
    )

    assert shown == {
        "00080050": {"vr": "SH"},
        "00081140": {"vr": "SQ"},
        "00082112": {"vr": "SQ", "Value": [{}, {}]},
        "7FE00010": {"vr": "OW"},
    }


def test_J9_bytes_are_inline_up_to_the_threshold() -> None:
    shown = of(element(0x00091010, "OB", bytes(1024)), element(0x00091012, "OB", bytes(1026)))

    assert base64.b64decode(shown["00091010"]["InlineBinary"]) == bytes(1024)
    assert shown["00091012"] == {"vr": "OB", "BulkDataURI": f"{BASE}/00091012"}


@pytest.mark.parametrize("tag", [0x7FE00008, 0x7FE00009, 0x7FE00010])
def test_J10_pixel_data_is_bulk_data_however_small(tag: int) -> None:
    assert of(element(tag, "OW", b"12"))[f"{tag:08X}"] == {"vr": "OW", "BulkDataURI": f"{BASE}/{tag:08X}"}


def test_J10_bulk_data_in_items_is_named_by_its_path() -> None:
    icon = item(element(0x7FE00010, "OW", b"12"))

    shown = of(element(0x00880200, "SQ", item() + item(element(0x00081140, "SQ", icon))))

    inner = shown["00880200"]["Value"][1]["00081140"]["Value"][0]
    assert inner["7FE00010"]["BulkDataURI"] == f"{BASE}/00880200/2/00081140/1/7FE00010"


def test_J10_encapsulated_pixel_data_ends_the_object_unless_its_end_is_known() -> None:
    pixels = (
        struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + item() + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    data = p10_bytes(pixels, element(0x7FE10010, "LO", b"ab"), transfer_syntax_uid="1.2.840.10008.1.2.4.90")
    tail_start = data.index(b"\xe1\x7f\x10\0")

    assert list(as_json(data)) == ["7FE00010"]
    assert as_json(data)["7FE00010"] == {"vr": "OB", "BulkDataURI": f"{BASE}/7FE00010"}
    assert as_json(data, tail_start=tail_start)["7FE10010"] == {"vr": "LO", "Value": ["ab"]}


def test_palettes_are_inline() -> None:
    shown = of(element(0x00281201, "OW", bytes(131072)), element(0x00281221, "OW", bytes(300_000)))

    assert len(base64.b64decode(shown["00281201"]["InlineBinary"])) == 131072
    assert "BulkDataURI" in shown["00281221"]


def test_J11_the_character_set_of_the_answer_is_utf_8_and_is_said_to_be() -> None:
    shown = of(element(0x00080005, "CS", b"ISO_IR 100"), element(0x00100010, "PN", b"M\xfcller"))

    assert shown["00080005"]["Value"] == ["ISO_IR 192"]
    assert shown["00100010"]["Value"] == [{"Alphabetic": "Müller"}]


def test_J11_the_default_repertoire_is_left_as_it_is_named() -> None:
    assert of(element(0x00080005, "CS", b"ISO_IR 6"))["00080005"]["Value"] == ["ISO_IR 6"]
    assert of(element(0x00080005, "CS", b""))["00080005"] == {"vr": "CS"}


def test_J11_an_item_may_have_a_character_set_of_its_own() -> None:
    own = item(element(0x00080005, "CS", b"ISO_IR 144"), element(0x0008103E, "LO", b"\xbb\xee"))
    inherited = item(element(0x0008103E, "LO", b"\xe9\xe9"))

    shown = of(element(0x00080005, "CS", b"ISO_IR 100"), element(0x00081140, "SQ", own + inherited))

    texts = [data_set["0008103E"]["Value"] for data_set in shown["00081140"]["Value"]]
    assert texts == [["Лю"], ["éé"]]


def test_J11_a_character_set_that_comes_too_late_governs_all_the_same() -> None:
    late = item(element(0x0008103E, "LO", b"\xbb\xee"), element(0x00080005, "CS", b"ISO_IR 144"))

    shown = of(
        element(0x00100010, "PN", b"\xe9\xe9"),
        element(0x00080005, "CS", b"ISO_IR 100"),
        element(0x00321140, "SQ", late),
    )

    assert shown["00100010"]["Value"] == [{"Alphabetic": "éé"}]
    assert shown["00321140"]["Value"][0]["0008103E"]["Value"] == ["Лю"]


def test_J13_private_attributes_keep_their_place_and_their_creator() -> None:
    shown = of(
        element(0x00091000 & 0xFFFF0000 | 0x10, "LO", b"ACME"), element(0x00091001, "FL", struct.pack("<f", 0.5))
    )

    assert shown == {"00090010": {"vr": "LO", "Value": ["ACME"]}, "00091001": {"vr": "FL", "Value": [0.5]}}


def test_a_number_of_a_wrong_length_is_sent_as_unknown_bytes() -> None:
    assert of(element(0x00280010, "US", b"abc"))["00280010"] == {"vr": "UN", "InlineBinary": "YWJj"}


@pytest.mark.parametrize(("representation", "vr", "value"), [(0, "US", 65535), (1, "SS", -1)])
def test_an_implicit_us_or_ss_follows_pixel_representation(representation: int, vr: str, value: int) -> None:
    data_set = Dataset()
    data_set.PixelRepresentation = representation
    data_set.add_new(0x00280106, "US", 65535)
    nested = Dataset()
    nested.add_new(0x00283002, "US", [65535, 65535, 16])
    nested.add_new(0x00409216, "US", 65535)
    data_set.ModalityLUTSequence = [nested]
    data_set.add_new(0x00189810, "US", 65535)  # stands before Pixel Representation

    shown = as_json(_written(data_set, ImplicitVRLittleEndian))

    inner = shown["00283000"]["Value"][0]
    assert shown["00280106"] == shown["00189810"] == inner["00409216"] == {"vr": vr, "Value": [value]}
    assert inner["00283002"] == {"vr": vr, "Value": [65535, value, 16]}


def test_an_item_may_have_a_pixel_representation_of_its_own() -> None:
    inner, data_set = Dataset(), Dataset()
    inner.PixelRepresentation = 0
    inner.add_new(0x00189810, "US", 65535)
    data_set.PixelRepresentation = 1
    data_set.IconImageSequence = [inner, Dataset()]

    shown = as_json(_written(data_set, ImplicitVRLittleEndian))

    assert shown["00880200"]["Value"][0]["00189810"] == {"vr": "US", "Value": [65535]}


# --- options ----------------------------------------------------------------------------------------------------------


def test_extra_attributes_take_their_sorted_place_and_win() -> None:
    extra = {0x00083002: b'{"vr":"UI","Value":["1.2"]}', 0x00080060: b'{"vr":"CS"}', 0x00081140: b'{"vr":"SQ"}'}

    shown = of(
        element(0x00080060, "CS", b"CT"),
        element(0x00081140, "SQ", item(element(0x00080060, "CS", b"MR"))),
        element(0x00100020, "LO", b"1 "),
        options=JsonOptions(bulkdata_base=BASE, extra=extra),
    )

    assert list(shown) == ["00080060", "00081140", "00083002", "00100020"]
    assert shown["00083002"] == {"vr": "UI", "Value": ["1.2"]}
    assert shown["00080060"] == {"vr": "CS"}
    assert shown["00081140"] == {"vr": "SQ"}


def test_an_empty_data_set_is_an_object() -> None:
    assert of() == {}
    assert of(options=JsonOptions(bulkdata_base=BASE, extra={0x00080060: b'{"vr":"CS"}'})) == {"00080060": {"vr": "CS"}}


def test_with_mapped_uids_no_stored_uid_leaves() -> None:
    uid = b"1.2.826.0.1.99\0\0"
    nested = item(element(0x00081155, "UI", uid))
    data = p10_bytes(
        element(0x00080018, "UI", uid),
        element(0x00080058, "LO", uid),
        element(0x00081140, "SQ", nested),
        element(0x00090010, "LO", b"ACME"),
        element(0x00091010, "UN", uid),
        element(0x00091011, "OB", uid),
        element(0x00091012, "UN", nested),
    )
    options = JsonOptions(bulkdata_base=BASE, map_uid=lambda stored: f"2.25.{len(stored)}", include_file_meta=True)

    text = attributes_json(open_p10(Window.of(data)), options)

    assert b"1.2.826" not in text
    assert base64.b64encode(uid)[:12] not in text
    assert load(text)["00081140"]["Value"][0]["00081155"]["Value"] == ["2.25.14"]


# --- size, damage, missing bytes --------------------------------------------------------------------------------------


def _per_frame(count: int, *, text_bytes: int = 200) -> bytes:
    one = item(element(0x00204000, "LT", b"x" * text_bytes), element(0x00209157, "UL", struct.pack("<2I", 1, 2)))
    return element(0x00080060, "CS", b"MR") + element(0x52009230, "SQ", one * count)


@pytest.mark.long
def test_100_000_items_are_given_out_in_pieces() -> None:
    p10 = open_p10(Window.of(p10_bytes(_per_frame(100_000), element(0x7FE00010, "OW", b"12"))))

    sizes = [len(chunk) for chunk in json_chunks(p10, OPTIONS)]

    assert max(sizes) <= CHUNK_BYTES
    assert sum(sizes) > 20 * CHUNK_BYTES


@pytest.mark.long
def test_items_that_have_been_given_out_are_not_held() -> None:
    p10 = open_p10(Window.of(p10_bytes(_per_frame(10_000, text_bytes=10_000))))  # 10,000: tracing is ten times slower
    tracemalloc.start()
    try:
        size = sum(len(chunk) for chunk in json_chunks(p10, OPTIONS))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size > 95 << 20
    assert peak < 8 << 20


def test_pieces_join_to_the_same_object_as_a_small_one() -> None:
    extra = {0x00083002: b'{"vr":"UI"}', 0x52009229: b'{"vr":"SQ"}', 0x7FE00011: b'{"vr":"UI"}'}
    p10 = open_p10(Window.of(p10_bytes(_per_frame(8_000), element(0x7FE00010, "OW", b"12"))))

    shown = load(b"".join(json_chunks(p10, JsonOptions(bulkdata_base=BASE, extra=extra))))

    assert list(shown) == ["00080060", "00083002", "52009229", "52009230", "7FE00010", "7FE00011"]
    items = shown["52009230"]["Value"]
    assert len(items) == 8_000
    assert all(one == items[0] for one in items)
    assert items[0]["00209157"]["Value"] == [1, 2]


def test_a_long_sequence_can_be_overridden() -> None:
    p10 = open_p10(Window.of(p10_bytes(_per_frame(8_000), element(0x7FE00010, "OW", b"12"))))

    shown = load(attributes_json(p10, JsonOptions(bulkdata_base=BASE, extra={0x52009230: b'{"vr":"SQ"}'})))

    assert shown["52009230"] == {"vr": "SQ"}
    assert list(shown) == ["00080060", "52009230", "7FE00010"]


def test_a_long_unsorted_data_set_is_sorted() -> None:
    late = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00100010, "PN", b"\xe9\xe9")

    shown = of(_per_frame(8_000), late)

    assert list(shown) == ["00080005", "00080060", "00100010", "52009230"]
    assert shown["00100010"]["Value"] == [{"Alphabetic": "éé"}]


def test_many_long_attributes_are_given_out_in_pieces() -> None:
    data = p10_bytes(*(element(0x00091000 + number, "UT", b"x" * 400_000) for number in range(20)))

    chunks = list(json_chunks(open_p10(Window.of(data)), OPTIONS))

    assert max(map(len, chunks)) <= CHUNK_BYTES
    assert [len(member["Value"][0]) for member in load(b"".join(chunks)).values()] == [400_000] * 20


def test_text_and_numbers_beyond_a_megabyte_are_bulk_data() -> None:
    shown = of(element(0x00091010, "UC", b"1\\" * (MAX_INLINE_BYTES // 2 + 1)), element(0x00091011, "UT", b"a" * 1000))

    assert shown["00091010"] == {"vr": "UC", "BulkDataURI": f"{BASE}/00091010"}
    assert shown["00091011"]["Value"] == ["a" * 1000]


def test_many_values_are_encoded_in_bounded_memory() -> None:
    data = p10_bytes(element(0x00091010, "UV", bytes(MAX_INLINE_BYTES)))
    p10 = open_p10(Window.of(data))
    tracemalloc.start()
    try:
        for _ in json_chunks(p10, OPTIONS):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 << 20


def test_nesting_beyond_the_bound_is_an_error_and_no_recursion() -> None:
    content = b""
    for _ in range(70):
        content = element(0x00081140, "SQ", item(content))

    with pytest.raises(InstanceUnreadable, match="deeper"):
        of(content)


def test_bytes_that_the_window_lacks_are_asked_for() -> None:
    data = p10_bytes(
        element(0x00080060, "CS", b"CT"), element(0x0008103E, "LO", b"x" * 300), element(0x7FE00010, "OW", bytes(5000))
    )
    window, answer = Window(len(data)), b""
    window.add(0, data[:200])
    for _ in range(20):
        try:
            answer = attributes_json(open_p10(window), OPTIONS)
            break
        except MissingBytes as missing:
            window.add(missing.start, data[missing.start : missing.stop])

    assert load(answer) == as_json(data)
    with pytest.raises(MissingBytes):
        window.view(len(data) - 2000, len(data))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    place=st.integers(0, 10**9),
    byte=st.integers(0, 255),
    name=st.sampled_from(["CT_small.dcm", "rtplan.dcm", "reportsi.dcm"]),
)
def test_any_damaged_byte_gives_an_object_or_an_error_of_ours(place: int, byte: int, name: str) -> None:
    data = bytearray(next(path for path in P10_FILES if path.name == name).read_bytes()[:8000])
    data[132 + place % (len(data) - 132)] = byte

    try:
        shown = as_json(bytes(data))
    except InstanceUnreadable:
        return

    assert list(shown) == sorted(shown)
    assert all(len(member.keys() - {"vr"}) <= 1 for member in shown.values())
