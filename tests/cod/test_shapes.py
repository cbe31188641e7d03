"""Shapes of elements: what fits comes out as the element itself would, and what does not fit is left alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.cod.attributes import normalise
from storage.cod.data_set import Place
from storage.cod.shapes import Flat, Shape, learnt_shape

SEQUENCE = 0x00081140
BASE = "codweb-root:/studies/1/series/2/instances/3/bulkdata"


def item(uid: str, **changes: object) -> bytes:
    """A reference to an image, as a sequence of one item."""
    attributes: dict[str, object] = {
        "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00081155": {"vr": "UI", "Value": [uid]},
        "0040A170": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["121322"]}}]},
    }
    return json.dumps({"vr": "SQ", "Value": [attributes | changes]}).encode()


def shape_of(raw: bytes, other: bytes, tag: int = SEQUENCE) -> Shape | None:
    shape = learnt_shape(tag, raw, other)
    assert not isinstance(shape, Flat)
    return shape


def alone(tag: int, raw: bytes) -> bytes:
    """The element as a data set of its own is finished."""
    finished = normalise(b'{"%08X":%b}' % (tag, raw), bulkdata_base=BASE).json
    return finished[len('{"00000000":') : -1]


def filled(shape: Shape, raw: bytes) -> bytes | None:
    """The finished element among others; None if it does not fit."""
    before, behind = b'{"00080018": ', b', "7FE10010": {}}'
    found = shape.fill(before + raw + behind, len(before), Place(BASE))
    assert found is None or found[1] == len(before + raw)
    return found[0] if found is not None else None


def test_a_sequence_that_differs_in_a_uid_is_finished_by_the_uid() -> None:
    shape = shape_of(item("1.2.3"), item("1.2.4"))

    assert shape is not None
    assert filled(shape, item("1.2.56789")) == alone(SEQUENCE, item("1.2.56789"))


def test_several_strings_of_several_items_may_differ() -> None:
    def two(first: str, second: str) -> bytes:
        items = ({"00080100": {"vr": "SH", "Value": [code, "X"]}} for code in (first, second))
        return json.dumps({"vr": "SQ", "Value": list(items)}, ensure_ascii=False).encode()

    shape = shape_of(two("A", "B"), two("C", "D"))

    assert shape is not None
    assert filled(shape, two("T-11", "é")) == alone(SEQUENCE, two("T-11", "é"))


def test_strings_that_come_out_in_another_order_have_no_shape() -> None:
    def unsorted(uid: str, code: str) -> bytes:
        attributes = {"00081155": {"vr": "UI", "Value": [uid]}, "00080100": {"vr": "SH", "Value": [code]}}
        return json.dumps({"vr": "SQ", "Value": [attributes]}).encode()

    assert shape_of(unsorted("1.1", "A"), unsorted("1.2", "B")) is None


def test_a_person_name_is_finished_by_its_groups() -> None:
    def name(alphabetic: str) -> bytes:
        return json.dumps({"vr": "PN", "Value": [{"Alphabetic": alphabetic, "Phonetic": ""}]}).encode()

    shape = shape_of(name("Doe^Jane"), name("Roe^Richard"), 0x00081050)

    assert shape is not None
    assert filled(shape, name("Moe^Max")) == alone(0x00081050, name("Moe^Max"))


@pytest.mark.parametrize(
    "raw",
    [
        item(""),
        item("1.2\\3"),
        item("1.2.3").replace(b"1.2.3", b"1.2\t3"),
        item("1.2.3", **{"00081160": {"vr": "IS", "Value": ["1"]}}),
        item("1.2.3").replace(b'["1.2.3"]', b"[]"),
        item("1.2.3").replace(b'"1.2.3"', b"123"),
        b'{"vr": "SQ"}',
        b"null",
    ],
)
def test_an_element_of_another_shape_is_left_alone(raw: bytes) -> None:
    shape = shape_of(item("1.2.3"), item("1.2.4"))

    assert shape is not None
    assert filled(shape, raw) is None


@pytest.mark.parametrize(
    ("raw", "other"),
    [
        pytest.param(item("1", **{"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}),
                     item("1", **{"00080005": {"vr": "CS", "Value": ["ISO_IR 6"]}}), id="character set"),
        pytest.param(item("1", **{"00081160": {"vr": "IS", "Value": ["1"]}}),
                     item("1", **{"00081160": {"vr": "DS", "Value": ["1"]}}), id="VR"),
        pytest.param(item("1", **{"00081160": {"vr": "UI"}}), item("1", **{"00081161": {"vr": "UI"}}), id="key"),
        pytest.param(item("1", **{"00091010": {"vr": "OB", "InlineBinary": "QUJD"}}),
                     item("1", **{"00091010": {"vr": "OB", "InlineBinary": "QUJE"}}), id="base64"),
        pytest.param(item("1", **{"00091010": {"vr": "OB", "BulkDataURI": {"uri": "a"}}}),
                     item("2", **{"00091010": {"vr": "OB", "BulkDataURI": {"uri": "a"}}}), id="link beside"),
        pytest.param(item("1", **{"00080000": {"vr": "UI", "Value": ["1"]}}),
                     item("1", **{"00080000": {"vr": "UI", "Value": ["2"]}}), id="not sent"),
        pytest.param(item('a"b'), item('a"c'), id="escapes"),
        pytest.param(item("1"), item("1").replace(b'["1"]', b"[]"), id="structure"),
        pytest.param(item("1"), item("1"), id="nothing"),
    ],
)  # fmt: skip
def test_what_differs_in_more_than_plain_strings_has_no_shape(raw: bytes, other: bytes) -> None:
    assert shape_of(raw, other) is None


@given(st.lists(st.text(max_size=6), min_size=4, max_size=4), st.sampled_from(["UI", "LO", "CS", "DS", "US or SS"]))
def test_whatever_string_fits_comes_out_as_it_does_alone(texts: list[str], vr: str) -> None:
    def stored(text: str) -> bytes:
        return item("1.2", **{"00081160": {"vr": vr, "Value": ["A", text]}})

    shape = shape_of(stored(texts[0]), stored(texts[1]))

    for text in texts[2:]:
        value = filled(shape, stored(text)) if shape is not None else None
        assert value is None or value == alone(SEQUENCE, stored(text))


def link(quoted: str) -> bytes:
    return b'{"vr": "OW", "BulkDataURI": {"uri": "gs://b/1", "head": "%b"}}' % quoted.encode()


@pytest.mark.parametrize("quoted", ["DICM", "}}", '}}\\", \\"', "\\ufffd\\u0000", ""])
def test_a_link_is_ours_wherever_the_stored_one_ends(quoted: str) -> None:
    shape = shape_of(link("DICM"), link("other"), 0x7FE00010)

    assert shape is not None
    assert filled(shape, link(quoted)) == alone(0x7FE00010, link(quoted))


@pytest.mark.parametrize("quoted", ["\\x", "a\tb", "}}}}}}}}}}}}"])
def test_a_link_that_is_no_json_or_has_no_clear_end_is_left_alone(quoted: str) -> None:
    shape = shape_of(link("DICM"), link("other"), 0x7FE00010)

    assert shape is not None
    assert filled(shape, link(quoted)) is None


@pytest.mark.parametrize(
    ("raw", "head", "values"),
    [
        (b'{"vr": "UI", "Value": ["1.2"]}', b'{"vr":"UI","Value":[', b'"1.3"]}'),
        (b'{"vr":"DS","Value":[1.5,-2]}', b'{"vr":"DS","Value":[', b"0.25,1e-5,3]}"),
    ],
)
def test_a_flat_element_is_what_stands_before_its_values_and_they(raw: bytes, head: bytes, values: bytes) -> None:
    shape = learnt_shape(0x00200032, raw, None)

    assert isinstance(shape, Flat)
    assert raw.startswith(shape.stored)
    assert shape.finished == head
    assert shape.values.fullmatch(values)


@pytest.mark.parametrize("values", [b'""]}', b'"a\\n"]}', b"01]}", b"NaN]}", b"1.]}", b"]}", b"1234567890]}", b'"a"}'])
def test_values_that_may_need_mending_are_not_flat(values: bytes) -> None:
    shapes = [learnt_shape(0x00200032, b'{"vr":"IS","Value":[%b]}' % value, None) for value in (b"1", b'"1"')]

    assert not any(isinstance(shape, Flat) and shape.values.fullmatch(values) for shape in shapes)
