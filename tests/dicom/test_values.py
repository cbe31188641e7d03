"""Value encoders: DICOM JSON values of single VRs, against literal examples of PS3.18 Annex F and against pydicom."""

import json
import math
import struct
import warnings
from typing import Any  # JSON values

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

from storage.dicom.text import DEFAULT_CHARACTER_SET, CharacterSet, character_set
from storage.dicom.values import encoders, json_string, little_endian_bytes
from storage.links import fill_root
from tests.dicom.json_oracle import refuse_constant

UTF_8 = character_set(b"ISO_IR 192")


def values(
    vr: str, raw: bytes, *, characters: CharacterSet = DEFAULT_CHARACTER_SET, little_endian: bool = True
) -> list[Any] | None:
    """What a client reads in `Value`; None where the bytes fit the VR in no way."""
    encoded = encoders(little_endian=little_endian)[vr](raw, characters)
    return None if encoded is None else json.loads(b"[" + encoded + b"]", parse_constant=refuse_constant)


def text(vr: str, raw: bytes) -> bytes | None:
    """The JSON itself, for the rules that a parser hides."""
    return encoders(little_endian=True)[vr](raw, DEFAULT_CHARACTER_SET)


# --- numbers as text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("DS", b"1.10", b"1.10"),
        ("DS", b"-0.000000000000000001 ", b"-0.000000000000000001"),
        ("DS", b"1.5e-3", b"1.5e-3"),
        ("DS", b"1\\2.50\\-3 ", b"1,2.50,-3"),
        ("DS", b"12345678901234567890.5", b"12345678901234567890.5"),
        ("IS", b"12", b"12"),
        ("IS", b"-7\\0 ", b"-7,0"),
    ],
)
def test_J6_a_number_that_json_can_say_keeps_its_digits(vr: str, raw: bytes, expected: bytes) -> None:
    assert text(vr, raw) == expected


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("DS", b"+1.5", b"1.5"),
        ("DS", b"007", b"7"),
        ("DS", b".5", b"0.5"),
        ("DS", b"-.5", b"-0.5"),
        ("DS", b"1.", b"1"),
        ("DS", b"00.10\\ +2 ", b"0.10,2"),
        ("DS", b"1.E+05", b"1E+05"),
        ("IS", b"+5", b"5"),
        ("IS", b"0007", b"7"),
        ("IS", b"1.0", b"1"),
        ("IS", b" 3\\ 4 ", b"3,4"),
        ("IS", b"1e2", b"100"),
        ("IS", b"1.5", b"1.5"),
        ("IS", b"9007199254740991", b"9007199254740991"),
    ],
)
def test_J6_a_number_in_another_notation_is_normalised(vr: str, raw: bytes, expected: bytes) -> None:
    assert text(vr, raw) == expected


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("IS", b"1A", "1A"),
        ("IS", b"9007199254740992", "9007199254740992"),
        ("IS", b"-99999999999999999999", "-99999999999999999999"),
        ("IS", b"1e400", "1e400"),
        ("IS", b"1e30", "1e30"),
        ("DS", b"1e400", "1e400"),
        ("DS", b"9" * 400, "9" * 400),
        ("DS", b"NaN", "NaN"),
        ("DS", b"inf", "inf"),
        ("DS", b"1_0", "1_0"),
        ("DS", b"1 2", "1 2"),
        ("DS", b"1,5", "1,5"),
        ("DS", b".", "."),
        ("DS", b"-", "-"),
        ("DS", b"e5", "e5"),
        ("DS", b"0x10", "0x10"),
        ("DS", b"\xb21", "\xb21"),
    ],
)
def test_J6_what_is_no_number_is_the_stored_text(vr: str, raw: bytes, expected: str) -> None:
    assert values(vr, raw) == [expected]


@pytest.mark.parametrize("vr", ["IS", "DS", "CS", "LO", "UI", "DA"])
def test_J4_an_empty_value_among_others_is_null(vr: str) -> None:
    assert values(vr, b"1\\\\2\\") == [1, None, 2, None] if vr in ("IS", "DS") else ["1", None, "2", None]
    assert values(vr, b"\\ ") == [None, None]


@pytest.mark.parametrize("vr", ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC"])
def test_J4_padding_alone_is_an_empty_attribute(vr: str) -> None:
    assert values(vr, b"  ") == []
    assert values(vr, b"\0\0") == []


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
def test_J6_any_decimal_reads_as_the_number_it_is(number: Any) -> None:
    assert values("DS", str(number).encode()) == [float(number)]


@given(st.text(max_size=40))
def test_J6_any_text_in_a_number_is_json(written: str) -> None:
    for vr in ("IS", "DS"):
        raw = written.encode("utf-8")
        assert len(values(vr, raw) or []) in (0, raw.count(b"\\") + 1)


# --- binary numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize(
    ("vr", "code"),
    [("US", "H"), ("SS", "h"), ("UL", "I"), ("SL", "i"), ("UV", "Q"), ("SV", "q"), ("FL", "f"), ("FD", "d")],
)
@given(data=st.data())
def test_binary_numbers_are_the_numbers_that_were_packed(
    vr: str, code: str, little_endian: bool, data: st.DataObject
) -> None:
    size = struct.calcsize("<" + code)
    raw = data.draw(st.binary(min_size=size, max_size=size * 6).map(lambda part: part[: len(part) // size * size]))
    packed = struct.unpack(f"{'<' if little_endian else '>'}{len(raw) // size}{code}", raw)

    shown = values(vr, raw, little_endian=little_endian)

    assert shown == [_shown(number) for number in packed]


def _shown(number: Any) -> Any:
    if isinstance(number, float) and not math.isfinite(number):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(number)]
    return str(number) if isinstance(number, int) and abs(number) >= 2**53 else number


def test_J6_integers_that_javascript_would_round_are_strings() -> None:
    assert values("UV", struct.pack("<2Q", 2**53 - 1, 2**53)) == [2**53 - 1, str(2**53)]
    assert values("SV", struct.pack("<2q", -(2**53) + 1, -(2**63))) == [-(2**53) + 1, str(-(2**63))]


def test_J7_numbers_that_are_not_finite_are_named_by_strings() -> None:
    assert values("FD", struct.pack("<4d", math.nan, math.inf, -math.inf, 1.5)) == ["NaN", "Infinity", "-Infinity", 1.5]
    assert values("FL", struct.pack("<f", math.nan)) == ["NaN"]


def test_J8_attribute_tags_are_eight_upper_case_hex_digits() -> None:
    assert values("AT", b"\x28\x00\x09\x00\xe0\x7f\x10\x00") == ["00280009", "7FE00010"]
    assert values("AT", b"\x00\x28\x00\x09", little_endian=False) == ["00280009"]


@pytest.mark.parametrize(("vr", "length"), [("US", 3), ("UL", 2), ("FD", 9), ("AT", 6), ("SV", 4)])
def test_a_binary_number_of_a_wrong_length_has_no_value(vr: str, length: int) -> None:
    assert values(vr, bytes(length)) is None


def test_long_runs_of_numbers_are_complete() -> None:
    numbers = list(range(20_000))

    assert values("US", struct.pack("<20000H", *numbers)) == numbers


# --- strings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("CS", b"DERIVED \\ PRIMARY ", ["DERIVED", "PRIMARY"]),
        ("AE", b"  STORE ", ["STORE"]),
        ("UI", b"1.2.3\0", ["1.2.3"]),
        ("UI", b"1.2\\1.3\0", ["1.2", "1.3"]),
        ("LO", b" left kept \\b \0", [" left kept", "b"]),
        ("SH", b"a:b", ["a:b"]),
        ("LT", b" two\\one \r\n  ", [" two\\one \r\n"]),
        ("ST", b"a\\b", ["a\\b"]),
        ("UT", b"a\\b ", ["a\\b"]),
        ("UR", b"http://a/b\\c ", ["http://a/b\\c"]),
        ("UC", b"a\\b", ["a", "b"]),
        ("DA", b"20200101\\20200102", ["20200101", "20200102"]),
        ("TM", b"101112.5  ", ["101112.5"]),
    ],
)
def test_J12_J14_padding_goes_and_only_short_texts_split(vr: str, raw: bytes, expected: list[str]) -> None:
    assert values(vr, raw) == expected


def test_J14_control_characters_are_escaped() -> None:
    assert text("LT", b'a\tb\x01"\x7f') == b'"a\\tb\\u0001\\"\x7f"'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Doe^Jane", [{"Alphabetic": "Doe^Jane"}]),
        (b"Doe^Jane =A=b ", [{"Alphabetic": "Doe^Jane", "Ideographic": "A", "Phonetic": "b"}]),
        (b"=A", [{"Ideographic": "A"}]),
        (b"==b", [{"Phonetic": "b"}]),
        (b"Doe\\\\Roe", [{"Alphabetic": "Doe"}, None, {"Alphabetic": "Roe"}]),
        (b"==", []),
        (b"a=b=c=d", [{"Alphabetic": "a", "Ideographic": "b", "Phonetic": "c"}]),
    ],
)
def test_J5_person_names_are_objects_of_the_groups_that_are_not_empty(raw: bytes, expected: list[Any]) -> None:
    assert values("PN", raw) == expected


def test_J11_text_is_utf_8_and_not_escaped() -> None:
    encoded = encoders(little_endian=True)["LO"]("Grüße 試験 😀".encode(), UTF_8)

    assert encoded == '"Grüße 試験 😀"'.encode()


def test_J12_a_backslash_byte_inside_a_character_splits_nothing() -> None:
    halves = next(chr(code) for code in range(0x4E00, 0x9FA5) if b"\\" in chr(code).encode("gb18030"))

    assert values("LO", f"{halves}\\b".encode("gb18030"), characters=character_set(b"GB18030")) == [halves, "b"]


def test_bytes_outside_the_repertoire_become_replacement_characters() -> None:
    assert values("LO", b"a\xff\xfeb", characters=UTF_8) == ["a\ufffd\ufffdb"]


@pytest.mark.parametrize("term", [b"zlib_codec", b"idna", b"unicode_escape", b"utf_7", b"ISO_IR 999", b"\xff\0\x1b"])
def test_an_unknown_character_set_is_the_default_one_and_never_a_codec_of_python(term: bytes) -> None:
    assert character_set(term).encodings == DEFAULT_CHARACTER_SET.encodings


@pytest.mark.parametrize("term", [b"ISO-IR 100", b"ISO IR 100", b"ISO_IR 100 ", b"ISO-8859-1", b"latin1"])
def test_misspelt_character_sets_are_understood(term: bytes) -> None:
    assert character_set(term).decode(b"\xe9") == "é"
    assert not character_set(term).is_default


@given(
    terms=st.lists(st.sampled_from(sorted(python_encoding)), min_size=1, max_size=4),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from(
                [b"\x1b(B", b"\x1b$B", b"\x1b)I", b"\x1b(J", b"\x1b$)C", b"\x1b-F", b"\x1b$(D", b"\x1b$)A"]
            ),
            st.sampled_from([b"\x1b", b"\x1b$", b"\r\n", b"\\", b"^", b"abc", b";3EED"]),
        ),
        max_size=8,
    ),
)
def test_any_bytes_in_any_character_set_decode_as_pydicom_decodes_them(terms: list[str], parts: list[bytes]) -> None:
    raw = b"".join(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on every invalid byte
        expected = decode_bytes(raw, convert_encodings(terms), TEXT_VR_DELIMS)

    assert character_set("\\".join(terms).encode()).decode(raw) == expected


@pytest.mark.parametrize("vr", ["LO", "UT", "UR", "CS", "PN", "UI", "IS", "DS"])
def test_text_that_looks_like_a_link_of_ours_is_not_filled_in(vr: str) -> None:
    encoded = text(vr, b"codweb-root:/studies")
    assert encoded is not None

    filled = json.loads(fill_root(encoded, "http://attacked"))

    assert filled in ("codweb-root:/studies", {"Alphabetic": "codweb-root:/studies"})


def test_lone_surrogates_never_reach_the_wire() -> None:
    assert json_string("a\ud800b") == b'"a?b"'


# --- UIDs and bytes ---------------------------------------------------------------------------------------------------


def test_every_uid_is_mapped_and_empty_ones_stay_null() -> None:
    encode = encoders(little_endian=True, map_uid=lambda uid: "9." + uid)["UI"]

    assert encode(b"1.2\\\\3.4\0", DEFAULT_CHARACTER_SET) == b'"9.1.2",null,"9.3.4"'
    assert encode(b"\0", DEFAULT_CHARACTER_SET) == b""


@pytest.mark.parametrize(("vr", "size"), [("OB", 1), ("UN", 1), ("OW", 2), ("OF", 4), ("OL", 4), ("OD", 8), ("OV", 8)])
def test_J9_big_endian_bytes_are_turned_word_by_word(vr: str, size: int) -> None:
    raw = bytes(range(16))
    turned = b"".join(raw[start : start + size][::-1] for start in range(0, 16, size))

    assert little_endian_bytes(raw, vr) == turned


def test_J9_half_a_word_cannot_be_turned() -> None:
    assert little_endian_bytes(b"abc", "OW") is None
