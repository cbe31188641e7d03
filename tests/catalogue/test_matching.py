"""Matching of attributes against keys: PS3.4 §C.2.2.2."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.catalogue.folding import fold, storable
from storage.catalogue.matching import Matcher, matches, matches_all, sortable
from storage.catalogue.pattern import Pattern
from storage.catalogue.query import AnyOf, Condition, DateTimeInterval, Interval, Number, Text, Universal
from storage.errors import CorruptSeries
from tests.catalogue.builders import element, key_is, name

NAME, DESCRIPTION, MODALITY, NUMBER, SEQUENCE = 0x00100010, 0x00081030, 0x00080060, 0x00200011, 0x00400275


def text(vr: str, pattern: str, *values: object) -> bool:
    """Whether values of a VR match a pattern."""
    wild = "*" in pattern or "?" in pattern
    return matches({DESCRIPTION: element(vr, values)}, Condition((DESCRIPTION,), vr, Text(pattern, is_wildcard=wild)))


def person(key: str, value: str, *, fuzzy: bool = False) -> bool:
    return matches({NAME: element("PN", [name(value)])}, key_is(NAME, key), fuzzy=fuzzy)


# Wildcards


@given(st.text("ab*?", max_size=9), st.text("abc", max_size=12))
def test_wildcards_match_as_a_regular_expression_would(pattern: str, value: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)

    assert Pattern(pattern, is_wildcard=True).matches(value) == (re.fullmatch(expression, value) is not None)


@given(st.text(max_size=12))
def test_a_pattern_without_wildcards_matches_itself_alone(value: str) -> None:
    assert Pattern(value, is_wildcard=False).matches(value)
    assert not Pattern(value, is_wildcard=False).matches(value + "x")


@given(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6))
def test_an_infix_is_found_wherever_it_stands(before: str, infix: str, behind: str) -> None:
    pattern = Pattern("*" + infix.replace("*", "").replace("?", "") + "*", is_wildcard=True)

    assert pattern.matches(before + infix.replace("*", "").replace("?", "") + behind)


@pytest.mark.parametrize("storm", ["*?" * 500 + "b", "?*" * 500 + "b", "*a" * 500 + "b", "*?a?" * 250 + "b"])
def test_a_storm_of_wildcards_takes_time_linear_in_the_text(storm: str) -> None:
    """T22: backtracking would take longer than the universe has."""
    pattern = Pattern(storm, is_wildcard=True)
    begin = time.process_time()

    assert not pattern.matches("a" * 20_000)

    assert time.process_time() - begin < 2


def test_what_folds_to_an_asterisk_is_no_wildcard() -> None:
    """U+FF0A is a fullwidth asterisk."""
    assert not text("LO", "a\uff0a?", "abcd")
    assert text("LO", "a\uff0a?", "a*b")


# Text


@pytest.mark.parametrize("vr", ["LO", "SH", "LT", "ST", "UC", "UT"])
def test_wildcards_in_text_ignore_case_and_accents_and_exact_text_does_not(vr: str) -> None:
    assert text(vr, "*CAFE*", "Le Café")
    assert text(vr, "l? caf*", "Le Café")
    assert text(vr, " Le Café ", "Le Café")
    assert not text(vr, "le café", "Le Café")


@pytest.mark.parametrize("vr", ["CS", "AE", "UR"])
def test_codes_and_addresses_keep_their_case(vr: str) -> None:
    assert text(vr, "AB*", "ABC")
    assert not text(vr, "ab*", "ABC")
    assert text(vr, "ABC", "ABC ")


def test_any_value_of_several_is_enough() -> None:
    assert text("CS", "MR", "CT", None, "MR")
    assert not text("CS", "PT", "CT", None, "MR")
    assert matches({MODALITY: element("CS", ["CT", "MR"])}, key_is(MODALITY, AnyOf(("XX", "MR"))))


def test_absent_and_empty_attributes_match_universal_keys_alone() -> None:
    for attributes in ({}, {MODALITY: b'{"vr":"CS"}'}, {MODALITY: b'{"vr":"CS","Value":[]}'}):
        assert matches(attributes, key_is(MODALITY, Universal()))
        assert matches(attributes, key_is(MODALITY, "*"))
        assert not matches(attributes, key_is(MODALITY, "?*"))
        assert not matches(attributes, key_is(MODALITY, "CT"))


def test_decoded_attributes_match_like_encoded_ones() -> None:
    assert matches({MODALITY: {"vr": "CS", "Value": ["CT"]}}, key_is(MODALITY, "CT"))


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"vr":"CS","Value":[NaN]}', b"[" * 100_000])
def test_what_is_no_json_is_corrupt_and_not_a_mismatch(raw: bytes) -> None:
    with pytest.raises(CorruptSeries):
        matches({MODALITY: raw}, key_is(MODALITY, "CT"))


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"null", b'{"Value":"CT"}', b'{"Value":[{"a":1},[],true,null]}'])
def test_json_of_another_shape_matches_nothing(raw: bytes) -> None:
    for condition in (
        key_is(MODALITY, "CT"),
        Condition((MODALITY,), "IS", Number(1)),
        Condition((MODALITY,), "PN", Text("a*", is_wildcard=True)),
        Condition((MODALITY, NUMBER), "IS", Number(1)),
    ):
        assert not matches({MODALITY: raw}, condition)


# Person names


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("doe^john", "Doe^John"),
        ("Doe^John^^", "Doe^John"),
        ("Doe^John", "Doe^John^^^"),
        ("Doe ^ John", "Doe^John"),
        ("MULLER", "Müller"),
        ("straße", "STRASSE"),
        ("山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Yamada^Tarou", "Yamada^Tarou=山田^太郎"),
        ("yamada*=山田*", "Yamada^Tarou=山田^太郎"),
        ("==やまだ*", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Doe^*", "Doe"),
        ("d?e^j*", "Doe^John"),
    ],
)
def test_names_that_match(key: str, value: str) -> None:
    assert person(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Doe", "Doe^John"),
        ("^John", "John"),
        ("Doe^John", "John^Doe"),
        ("*x=山田*", "Yamada^Tarou=山田^太郎"),
        ("=?*", "Yamada^Tarou"),
        ("do?", "Do"),
        ("???^", "Doey"),
    ],
)
def test_names_that_do_not_match(key: str, value: str) -> None:
    assert not person(key, value)


@pytest.mark.parametrize("key", ["jo do", "john", "doe, john", "Doe^J", "*oh*", "JÖHN"])
def test_fuzzy_keys_match_beginnings_of_words(key: str) -> None:
    """Q21."""
    assert person(key, "Doe^John", fuzzy=True)


@pytest.mark.parametrize("key", ["ohn", "doe jane", "doe john x", "a*"])
def test_fuzzy_keys_need_every_word(key: str) -> None:
    assert not person(key, "Doe^John", fuzzy=True)


def test_a_name_that_is_stored_as_plain_text_is_read_as_groups() -> None:
    assert matches({NAME: b'{"vr":"PN","Value":["Doe^John=\xe5\xb1\xb1"]}'}, key_is(NAME, "山"))


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_folded_text_can_be_stored_and_has_no_control_characters(value: str) -> None:
    """Lone surrogates cannot be stored, and the catalogue separates values by line feeds."""
    folded = fold(value)

    assert folded.encode().decode() == folded
    assert storable(value).encode().decode() == storable(value)
    assert not {"\n", "\r", "\x00", "\x85"} & {*folded}


# Numbers, dates, times


@pytest.mark.parametrize("stored", [1, 1.0, "1", "1.0", " 01", "+1", "1e0"])
def test_numbers_are_equal_whatever_their_spelling(stored: object) -> None:
    assert matches({NUMBER: element("IS", [stored])}, key_is(NUMBER, Number(1.0)))


@pytest.mark.parametrize("stored", [2, "1A", "1_0", "nan", "", None, True, "1" * 100, {"a": 1}])
def test_what_is_no_number_equals_none(stored: object) -> None:
    for wanted in (1.0, 10.0, float("nan")):
        assert not matches({NUMBER: element("IS", [stored])}, key_is(NUMBER, Number(wanted)))


@pytest.mark.parametrize(
    ("vr", "stored", "expected"),
    [
        ("DA", "20240131", "20240131"),
        ("DA", "2024.01.31", "20240131"),
        ("DA", "202401", ""),
        ("DA", "٢٠٢٤٠١٣١", ""),
        ("TM", "10", "100000.000000"),
        ("TM", "103015.5", "103015.500000"),
        ("TM", "10:30:15", "103015.000000"),
        ("TM", "1", ""),
        ("DT", "2024", "20240101000000.000000"),
        ("DT", "20240131103015.25+0100", "20240131103015.250000"),
        ("DT", "202401311", ""),
        ("LO", "20240131", ""),
    ],
)
def test_stored_moments_become_text_that_sorts(vr: str, stored: str, expected: str) -> None:
    assert sortable(vr, stored) == expected


def test_intervals_are_inclusive_at_both_ends() -> None:
    def within(low: str | None, high: str | None) -> bool:
        return matches({0x00080020: element("DA", ["20240102"])}, key_is(0x00080020, Interval(low, high)))

    assert within("20240102", "20240102")
    assert within(None, "20240102")
    assert within("20240102", None)
    assert not within("20240103", None)
    assert not within("20240103", "20240101")


def test_a_date_without_a_time_stands_for_its_whole_day() -> None:
    def within(low: str | None, high: str | None, time: str | None) -> bool:
        attributes = {0x00080020: element("DA", ["20240102"]), 0x00080030: element("TM", [time] if time else [])}
        return matches_all(attributes, (), (DateTimeInterval(0x00080020, 0x00080030, low, high),))

    assert within("20240102230000.000000", None, None)
    assert within(None, "20240102010000.000000", None)
    assert not within("20240102230000.000000", None, "2259")
    assert within("20240102230000.000000", "20240102230000.000000", "23")
    assert not within("20240103000000.000000", None, None)


# Sequences


def items(*pairs: tuple[str, str]) -> dict[int, bytes]:
    return {
        SEQUENCE: json.dumps(
            {
                "vr": "SQ",
                "Value": [
                    {"00400009": {"vr": "SH", "Value": [step]}, "00401001": {"vr": "SH", "Value": [procedure]}}
                    for step, procedure in pairs
                ],
            }
        ).encode()
    }


def within(tag: int, value: str) -> Condition:
    return Condition((SEQUENCE, tag), "SH", Text(value, is_wildcard=False))


def test_keys_of_one_sequence_must_hold_in_the_same_item() -> None:
    """PS3.4 §C.2.2.2.6."""
    both = (within(0x00400009, "S1"), within(0x00401001, "P2"))

    assert not matches_all(items(("S1", "P1"), ("S2", "P2")), both)
    assert matches_all(items(("S1", "P1"), ("S1", "P2")), both)


def test_universal_keys_within_a_sequence_match_its_absence() -> None:
    universal = Condition((SEQUENCE, 0x00400009), "SH", Universal())

    assert matches({}, universal)
    assert matches_all(items(("S1", "P1")), (universal, within(0x00401001, "P1")))


def test_sequences_within_sequences_keep_their_items_apart() -> None:
    def code(value: str, scheme: str) -> dict[str, Any]:
        return {"00080100": {"vr": "SH", "Value": [value]}, "00080102": {"vr": "SH", "Value": [scheme]}}

    def outer(*codes: dict[str, Any]) -> dict[str, Any]:
        return {"00321064": {"vr": "SQ", "Value": list(codes)}}

    def keys(value: str, scheme: str) -> tuple[Condition, Condition]:
        path = (SEQUENCE, 0x00321064)
        return (
            Condition((*path, 0x00080100), "SH", Text(value, is_wildcard=False)),
            Condition((*path, 0x00080102), "SH", Text(scheme, is_wildcard=False)),
        )

    attributes = {SEQUENCE: {"vr": "SQ", "Value": [outer(code("1", "A"), code("2", "B")), outer(code("3", "C"))]}}
    assert matches_all(attributes, keys("2", "B"))
    assert not matches_all(attributes, keys("1", "B"))
    assert not matches_all(attributes, keys("3", "A"))


def test_a_path_deeper_than_any_data_set_matches_nothing() -> None:
    deep = Condition((SEQUENCE,) * 5000, "SH", Text("x", is_wildcard=False))

    assert not Matcher((deep,)).matches(items(("S1", "P1")))
