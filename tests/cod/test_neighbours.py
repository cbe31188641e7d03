"""Instances finished beside their neighbours: to the byte what each is alone, whatever the neighbours are."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.cod import neighbours as module
from storage.cod.attributes import Normalised, normalise
from storage.cod.data_set import Place, finished_element
from storage.cod.metadata import parse_series_metadata
from storage.cod.neighbours import Neighbours
from storage.errors import InstanceUnreadable
from tests.cod.builders import Json, stored_series
from tests.cod.test_attributes import data_sets, sequences

BASE = "codweb-root:/studies/1/series/2/instances"
EXTRA = {0x00083002: b'{"vr":"UI","Value":["1.2.840.10008.1.2.1"]}'}


def alone(stored: bytes, base: str, extra: Mapping[int, bytes]) -> Normalised | str:
    try:
        return normalise(stored, bulkdata_base=base, extra=extra)
    except InstanceUnreadable as error:
        return str(error)


def beside(neighbours: Neighbours, stored: bytes, base: str, extra: Mapping[int, bytes]) -> Normalised | str:
    try:
        return neighbours.normalise(stored, bulkdata_base=base, extra=extra)
    except InstanceUnreadable as error:
        return str(error)


def check(texts: list[bytes], extra: Mapping[int, bytes] = EXTRA) -> None:
    neighbours = Neighbours()
    for number, stored in enumerate(texts):
        base = f"{BASE}/{number}/bulkdata"
        assert beside(neighbours, stored, base, extra) == alone(stored, base, extra), stored


def image(number: int, **changes: object) -> Json:
    """A small CT slice as the published writer leaves it: elements that stay, that differ, and that hold others."""
    item = {
        "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00081155": {"vr": "UI", "Value": [f"1.2.{number}"]},
    }
    attributes: Json = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00080018": {"vr": "UI", "Value": [f"1.2.3.{number}"]},
        "00081140": {"vr": "SQ", "Value": [item]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
        "00200013": {"vr": "IS", "Value": [number]},
        "00200032": {"vr": "DS", "Value": [-200.5, 1e-7 * number, 3.0]},
        "00291010": {"vr": "OB", "InlineBinary": "QUJD" * number},
        "7FE00010": {"vr": "OW", "BulkDataURI": {"uri": f"gs://b/{number}", "head": "DICM"}},
        "00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.1"]},
    }
    attributes.update(changes)
    return {tag: element for tag, element in attributes.items() if element is not None}


def text(attributes: Json) -> bytes:
    return json.dumps(attributes, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.fixture
def taken_apart(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The texts that were finished as if they stood alone."""
    texts: list[bytes] = []

    def counting(stored: bytes, *, bulkdata_base: str, extra: Mapping[int, bytes]) -> Normalised:
        texts.append(stored)
        return normalise(stored, bulkdata_base=bulkdata_base, extra=extra)

    monkeypatch.setattr(module, "normalise", counting)
    return texts


def test_only_the_first_two_of_a_series_are_taken_apart(taken_apart: list[bytes]) -> None:
    texts = [text(image(number)) for number in range(1, 60)]

    check(texts)

    assert taken_apart == texts[:2]


def test_an_element_that_begins_to_differ_costs_one_lesson(taken_apart: list[bytes]) -> None:
    texts = [text(image(number, **{"00080060": {"vr": "CS", "Value": [f"CT{number // 20}"]}})) for number in range(60)]

    check(texts)

    assert len(taken_apart) == 3


def test_a_uid_within_a_sequence_does_not_take_the_sequence_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[int] = []

    def counting(tag: int, raw: bytes, place: Place) -> bytes:
        finished.append(tag)
        return finished_element(tag, raw, place)

    texts = [text(image(number)) for number in range(1, 60)]
    monkeypatch.setattr(module, "finished_element", counting)
    check(texts)

    assert finished.count(0x00081140) == 0
    assert finished.count(0x00291010) == len(texts) - 2  # base64 has to be looked at


def test_an_element_without_a_value_here_and_there_costs_no_lesson(taken_apart: list[bytes]) -> None:
    empty: Json = {"00200032": {"vr": "DS"}, "00081140": {"vr": "SQ"}}
    texts = [text(image(number, **(empty if number % 3 == 0 else {}))) for number in range(1, 60)]

    check(texts)

    assert taken_apart == texts[:2]


def test_instances_that_are_not_alike_are_soon_left_alone(
    taken_apart: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[bytes] = []
    learn = Neighbours._learn

    def counting(self: Neighbours, stored: bytes, extra: tuple[int, ...]) -> None:
        learnt.append(stored)
        learn(self, stored, extra)

    monkeypatch.setattr(Neighbours, "_learn", counting)
    check([text({f"0009{number:04X}": {"vr": "LO", "Value": ["x"]}}) for number in range(16, 216)])

    assert len(taken_apart) == 200
    assert len(learnt) == module.MOST_LESSONS


@pytest.mark.long
@given(
    st.lists(data_sets(sequences), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400), st.text(max_size=3)), max_size=4),
)
@settings(max_examples=100)
def test_any_data_sets_one_after_the_other(attributes: list[Json], damage: list[tuple[int, int, str]]) -> None:
    texts = [text(each) for each in attributes for _ in range(3)]
    for which, at, instead in damage:
        whole = text(attributes[which % len(attributes)])
        texts.append(whole[:at] + instead.encode() + whole[at + len(instead) :])
        texts.append(whole)

    check(texts)
    check(texts, {})


@given(st.data())
@settings(max_examples=100)
def test_images_with_an_element_put_in_the_place_of_another(data: st.DataObject) -> None:
    elements = st.sampled_from(
        [
            '{"vr": "UI", "Value": ["1.2.3"]}',
            '{"vr": "UI", "Value": ["1.2.3"]',
            '{"vr": "UI", "Value": ["1.2.3"]}}',
            '{"vr": "UI", "Value": ["1.2\t3"]}',
            '{"vr": "UI", "Value": ["a\\u0041\\"}"]}',
            '{"vr": "UI", "Value": ["\\x"]}',
            '{"vr": "UI", "Value": [""]}',
            '{"vr": "LO", "Value": ["é"]}',
            '{"vr": "DS", "Value": [01]}',
            '{"vr": "DS", "Value": [1.5, 2,3e5]}',
            '{"vr": "DS", "Value": [1e+5]}',
            '{"vr": "DS", "Value": [NaN]}',
            '{"vr": "DS", "Value": [123456789012345678901]}',
            '{"vr": "DS", "Value": []}',
            '{"vr": "US or SS", "Value": [-1]}',
            '{"vr": "SQ", "Value": [{"00080018": {"vr": "UI", "Value": ["1"]}}]}',
            '{"vr": "OB", "InlineBinary": "QUI="}',
            '{"vr": "OB", "InlineBinary": "QUJD="}',
            '{"vr": "OW", "BulkDataURI": "x"}',
            "null",
            "12",
            '"text"',
            '{"vr": "UI"}, "00080018": {"vr": "UI"}',
        ]
    )
    keys = st.sampled_from([*image(1), "00080000", "0002xx10"])
    texts = [text(image(1)), text(image(2)), text(image(3))]
    for number in range(4, 12):
        whole = image(number)
        key = data.draw(keys)
        whole[key] = "HERE"
        texts.append(text(whole).replace(b'"HERE"', data.draw(elements).encode()))

    check(texts)


def test_text_that_is_no_utf8_is_refused_beside_good_neighbours() -> None:
    good = [text(image(number)) for number in (1, 2, 3)]

    check([*good, good[2].replace(b"1.2.3.3", b"1.2.3.\xff"), good[0]])


def test_every_instance_of_the_stores_of_the_published_library() -> None:
    for _, key, data in stored_series():
        neighbours = Neighbours()
        for uid, entry in parse_series_metadata(data, key).entries.items():
            try:
                stored = entry.attributes_json()
            except InstanceUnreadable:
                continue
            base = f"{BASE}/{uid}/bulkdata"
            assert beside(neighbours, stored, base, EXTRA) == alone(stored, base, EXTRA), uid
