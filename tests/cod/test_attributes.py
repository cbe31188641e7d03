"""Stored DICOM JSON → PS3.18 Annex F, against a plain model and against pydicom's own reading of the source files."""

import json
import math
import re
import warnings
from collections.abc import Callable

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.cod.attributes import Normalised, lacks_required, normalise
from storage.cod.metadata import parse_series_metadata
from storage.errors import InstanceUnreadable
from storage.levels import KEPT_TAGS
from tests.cod.builders import DATA, Json, stored_series

BASE = "codweb-root:/studies/1/series/2/instances/3/bulkdata"
PIXELS = ("7FE00008", "7FE00009", "7FE00010")
BULK = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")


def read(attributes: Json, **options: object) -> Json:
    """Normalise a stored data set; the answer is read by `json`, which must find no token that RFC 8259 forbids."""
    return parsed(normalise(json.dumps(attributes).encode(), bulkdata_base=BASE, **options))  # type: ignore[arg-type]  # options by name


def parsed(normalised: Normalised) -> Json:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    def unique(pairs: list[tuple[str, object]]) -> Json:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    answer: Json = json.loads(normalised.json.decode(), parse_constant=refuse, object_pairs_hook=unique)
    return answer


# The model: what Annex F makes of the stored form, in plain Python


def model(attributes: Json, base: str, map_uid: Callable[[str], str] | None = None) -> Json:
    answer = {}
    for key, element in attributes.items():
        if re.fullmatch("[0-9A-Fa-f]{8}", key) is None or key[:4] in ("0000", "0002") or key.upper() == "FFFCFFFC":
            continue
        if key[:4].upper() == "FFFE" or key[4:] == "0000":
            continue
        answer[key.upper()] = model_element(key.upper(), element, base, map_uid)
    return dict(sorted(answer.items()))


def model_element(key: str, element: Json, base: str, map_uid: Callable[[str], str] | None) -> Json:
    vr = element["vr"]
    inline = element.get("InlineBinary")
    is_link = "BulkDataURI" in element or (inline and (key in PIXELS or (vr == "UN" and map_uid is not None)))
    if is_link:
        return {"vr": vr, "BulkDataURI": f"{base}/{key}"}
    if inline:
        return {"vr": vr, "InlineBinary": inline}
    values = [model_value(vr, value, map_uid) for value in element.get("Value", [])]
    if vr == "SQ":
        values = [
            model(item, f"{base}/{key}/{number}", map_uid) for number, item in enumerate(element.get("Value", []), 1)
        ]
    if key == "00080005" and not all(value in (None, "ISO_IR 6", "ISO 2022 IR 6") for value in values):
        values = ["ISO_IR 192"]
    if all(value is None for value in values):
        return {"vr": vr}
    return {"vr": vr, "Value": values}


def model_value(vr: str, value: object, map_uid: Callable[[str], str] | None) -> object:
    if isinstance(value, dict):
        groups = {name: group for name in ("Alphabetic", "Ideographic", "Phonetic") if (group := utf8(value.get(name)))}
        return groups or None
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(value)]
    if isinstance(value, str):
        text = utf8(value)
        return (map_uid(text) if map_uid is not None and vr == "UI" and text else text) or None
    if vr in ("SV", "UV") and isinstance(value, (int, float)) and abs(value) >= 2**53:
        return json.dumps(value)
    return value


def utf8(text: object) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text) if isinstance(text, str) else ""


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=6) | st.sampled_from(
    ["", "NaN", '"', "\\", "[]", "null", 'a"b', ',"00080100":', "\\ud800", "x\\", "BulkDataURI", "{}", " ", "7FE00010"]
)
numbers = st.integers(-(2**63), 2**64) | st.floats() | st.sampled_from([0, 1.5, -0.0, 1e-7, 1e22, 2**53, 1e300])
uids = st.sampled_from(["1.2.840.10008.1.2", "1.2.3", "9.9.9.1", ""])
lists = {
    "LO": st.lists(texts, max_size=3),
    "UI": st.lists(uids, max_size=2),
    "DS": st.lists(numbers | st.none(), max_size=3),
    "UV": st.lists(numbers, max_size=2),
    "US": st.lists(st.integers(0, 65535), max_size=3),
    "AT": st.lists(st.sampled_from(["00100010", "7FE00010"]), max_size=2),
    "PN": st.lists(
        st.dictionaries(st.sampled_from(["Alphabetic", "Ideographic", "Phonetic", "Other"]), texts), max_size=2
    ),
}
tags = st.sampled_from(
    [
        "00020010",
        "00080000",
        "00080016",
        "00080018",
        "00091010",
        "0009101a",
        "0009101B",
        "00200032",
        "FFFCFFFC",
        "DeidUID",
    ]
)
links = st.fixed_dictionaries({"uri": texts, "head": texts}) | texts


def with_values(vr: str) -> st.SearchStrategy[Json]:
    return lists[vr].map(lambda values: {"vr": vr, "Value": values}) | st.just({"vr": vr})


binaries = st.builds(
    lambda vr, inline: {"vr": vr, "InlineBinary": inline}, st.sampled_from(BULK), st.sampled_from(["", "AAE="])
)
bulk = st.builds(lambda vr, link: {"vr": vr, "BulkDataURI": link}, st.sampled_from(BULK), links)
plain = st.one_of([with_values(vr) for vr in lists])
charsets = st.lists(st.sampled_from(["", "ISO_IR 6", "ISO_IR 100", "ISO 2022 IR 87"]), max_size=2)


def data_sets(elements: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    special = st.fixed_dictionaries(
        {},
        optional={
            "00080005": charsets.map(lambda values: {"vr": "CS", "Value": values}),
            "7FE00010": binaries | bulk,
        },
    )
    return st.builds(lambda some, more: some | more, st.dictionaries(tags, elements, max_size=5), special)


sequences = st.recursive(
    plain | binaries | bulk,
    lambda elements: st.lists(data_sets(elements), max_size=3).map(lambda items: {"vr": "SQ", "Value": items}),
    max_leaves=8,
)
separators = st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")])


@pytest.mark.long
@given(data_sets(sequences), separators, st.booleans(), st.booleans())
def test_any_stored_data_set_becomes_what_the_plain_model_makes_of_it(
    attributes: Json, separators: tuple[str, str], is_mapped: bool, is_ascii: bool
) -> None:
    stored = json.dumps(attributes, separators=separators, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    map_uid = (lambda uid: "2.25." + uid) if is_mapped else None
    if not is_ascii and re.search("[\ud800-\udfff]", json.dumps(attributes, ensure_ascii=False)):
        with pytest.raises(InstanceUnreadable):
            normalise(stored, bulkdata_base=BASE, map_uid=map_uid)
        return

    first = normalise(stored, bulkdata_base=BASE, map_uid=map_uid)
    again = normalise(stored, bulkdata_base=BASE, map_uid=map_uid)
    elsewhere = normalise(stored, bulkdata_base="https://a", map_uid=None)

    expected = model(attributes, BASE, map_uid)
    assert repr(parsed(first)) == repr(expected)  # repr: the order of keys counts, and 1 is not 1.0
    assert first == again
    assert repr(parsed(elsewhere)) == repr(model(attributes, "https://a"))
    assert {f"{tag:08X}": json.loads(raw) for tag, raw in first.kept.items()} == {
        key: element for key, element in expected.items() if int(key, 16) in KEPT_TAGS
    }


# The stores of the published library


def test_quick_form_equals_pydicom_s_reading_wherever_upstream_lost_nothing() -> None:
    """The oracle is pydicom on the source file; the manifest tells which sources were stored unchanged."""
    manifest = json.loads((DATA / "manifest.json").read_bytes())
    sources = {
        (store, entry["key"]): entry
        for store, content in manifest["stores"].items()
        for entry in content["instances"]
        if entry.get("same_bytes_as_source") and not entry["problems"] and store != "deid"
    }
    compared = 0
    for store, key, data in stored_series():
        for uid, entry in parse_series_metadata(data, key).entries.items():
            source = sources.get((store, uid))
            if source is None:
                continue
            answer = normalise(entry.attributes_json(), bulkdata_base=BASE)

            expected = read_by_pydicom(source["source"])
            of_file = manifest["p10"][source["source"]]
            for tag, level in (("00080018", "sop"), ("0020000D", "study"), ("0020000E", "series")):
                expected[tag] = {"vr": "UI", "Value": [of_file[level]]}  # upstream puts invalid ones back
            expected = dict(sorted(expected.items()))

            for lost in source.get("tags_missing_from_json", []):
                expected.pop(lost, None)
            assert answer.transfer_syntax_uid == source["stored_transfer_syntax"]
            assert json.dumps(parsed(answer)) == json.dumps(expected), source["source"]
            compared += 1
    assert compared > 60


def read_by_pydicom(source: str) -> Json:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files are bad on purpose
        attributes = pydicom.dcmread(DATA / "p10" / source, force=True).to_json_dict(
            bulk_data_element_handler=lambda element: "link", suppress_invalid_tags=True
        )
    return model(attributes, BASE)


def test_nothing_of_the_store_s_own_links_and_of_group_2_is_ever_sent() -> None:
    """K7, T34: neither `uri` nor `head`, nor a bucket."""
    for _, key, data in stored_series():
        for entry in parse_series_metadata(data, key).entries.values():
            answer = normalise(entry.attributes_json(), bulkdata_base=BASE)

            assert b"gs://" not in answer.json and b'"head"' not in answer.json and b'"0002' not in answer.json
            assert b'"00080000"' not in answer.json
            for value in elements_of(parsed(answer)):
                assert value["vr"] in BULK or len(value["vr"]) == 2
                assert isinstance(value.get("BulkDataURI", BASE), str)
                assert value.get("BulkDataURI", BASE).startswith(BASE)


def elements_of(attributes: Json) -> list[Json]:
    found = list(attributes.values())
    for element in attributes.values():
        for item in element.get("Value", []) if element["vr"] == "SQ" else []:
            found += elements_of(item)
    return found


def test_no_original_uid_of_a_hashed_store_is_left() -> None:
    """T34: every UID of the source files is looked for in the answers."""
    well_known = "1.2.840.10008."
    seen = 0
    for store, key, data in stored_series():
        if store != "deid":
            continue
        for uid, entry in parse_series_metadata(data, key).entries.items():
            stored = json.loads(entry.attributes_json())
            originals = {
                value
                for element in elements_of(model(stored, BASE))
                if element["vr"] == "UI"
                for value in element.get("Value", [])
                if not value.startswith(well_known)
            }
            assert len(originals) >= 3

            answer = normalise(
                entry.attributes_json(),
                bulkdata_base=f"codweb-root:/instances/{uid}/bulkdata",
                map_uid=lambda original: original if original.startswith(well_known) else f"2.25.{len(original)}",
            )

            assert not [original for original in originals if original.encode() in answer.json]
            assert not [raw for raw in answer.kept.values() for original in originals if original.encode() in raw]
            seen += 1
    assert seen > 0


# Rule by rule (PS3.18 §F.2)


def test_keys_are_upper_case_and_ascend_at_every_depth() -> None:
    """J1."""
    item = {"0009101B": {"vr": "SH", "Value": ["b"]}, "0009101a": {"vr": "SH", "Value": ["a"]}}

    answer = read({"00200013": {"vr": "IS"}, "00081140": {"vr": "SQ", "Value": [item]}})

    assert list(answer) == ["00081140", "00200013"]
    assert list(answer["00081140"]["Value"][0]) == ["0009101A", "0009101B"]


def test_bulk_data_becomes_a_link_of_ours_that_counts_items_from_1() -> None:
    """J10."""
    link = {"vr": "OB", "BulkDataURI": {"uri": "gs://bucket/x.tar://instances/1.dcm", "head": "DICM"}}

    answer = read({"00400275": {"vr": "SQ", "Value": [{}, {"00091010": link}]}, "00091010": link})

    assert answer["00091010"] == {"vr": "OB", "BulkDataURI": BASE + "/00091010"}
    assert answer["00400275"]["Value"] == [{}, {"00091010": {"vr": "OB", "BulkDataURI": BASE + "/00400275/2/00091010"}}]


@pytest.mark.parametrize("key", PIXELS)
def test_pixels_are_a_link_however_few_they_are(key: str) -> None:
    assert read({key: {"vr": "OW", "InlineBinary": "AAE="}})[key] == {"vr": "OW", "BulkDataURI": f"{BASE}/{key}"}
    assert read({key: {"vr": "OW"}})[key] == {"vr": "OW"}


def test_numbers_stay_as_they_are_written() -> None:
    """J6."""
    stored = b'{"00200032":{"vr":"DS","Value":[1.50,-0.0,1E5,100000000000000000000001]}}'

    assert b"[1.50,-0.0,1E5,100000000000000000000001]" in normalise(stored, bulkdata_base=BASE).json


@pytest.mark.parametrize("number", ["1e999", "-1e400", "9" * 400])
def test_a_number_no_reader_can_hold_becomes_text(number: str) -> None:
    stored = b'{"00200032":{"vr":"DS","Value":[%b]}}' % number.encode()

    assert parsed(normalise(stored, bulkdata_base=BASE))["00200032"]["Value"] == [number]


def test_values_that_are_not_finite_are_text() -> None:
    """J7: Python writes them as tokens that no browser reads; text that looks like a token stays."""
    stored = {
        "00189087": {"vr": "FD", "Value": [math.nan, math.inf, -math.inf, 1.0]},
        "00104000": {"vr": "LT", "Value": ["NaN"]},
    }

    answer = read(stored)

    assert answer["00189087"]["Value"] == ["NaN", "Infinity", "-Infinity", 1.0]
    assert answer["00104000"]["Value"] == ["NaN"]


def test_half_of_a_surrogate_pair_is_replaced_and_a_whole_pair_is_kept() -> None:
    stored = rb'{"00104000":{"vr":"LT","Value":["\ud800 \udc00 \ud83d\ude00 \\ud800"]}}'

    assert parsed(normalise(stored, bulkdata_base=BASE))["00104000"]["Value"] == ["\ufffd \ufffd \U0001f600 \\ud800"]


@pytest.mark.parametrize(
    ("charset", "expected"),
    [
        (["ISO_IR 100"], ["ISO_IR 192"]),
        (["ISO_IR 192"], ["ISO_IR 192"]),
        (["", "ISO 2022 IR 149"], ["ISO_IR 192"]),
        (["ISO_IR 6"], ["ISO_IR 6"]),
        ([""], None),
        ([], None),
    ],
)
def test_the_character_set_is_that_of_the_answer(charset: list[str], expected: list[str] | None) -> None:
    """J11: the text is UTF-8 by now; the default repertoire is part of it."""
    element = {"vr": "CS", "Value": charset}

    answer = read({"00080005": element, "00081140": {"vr": "SQ", "Value": [{"00080005": element}]}})

    assert answer["00080005"].get("Value") == expected
    assert answer["00081140"]["Value"][0]["00080005"].get("Value") == expected


def test_extra_attributes_are_merged_in_order_and_override() -> None:
    extra = {0x00083002: b'{"vr":"UI","Value":["1.2.3"]}', 0x00200013: b'{"vr":"IS","Value":[7]}'}
    stored = {"00200013": {"vr": "IS", "Value": [1]}, "00080018": {"vr": "UI", "Value": ["1.2"]}}

    normalised = normalise(json.dumps(stored).encode(), bulkdata_base=BASE, extra=extra)

    assert list(parsed(normalised)) == ["00080018", "00083002", "00200013"]
    assert parsed(normalised)["00200013"]["Value"] == [7]
    assert normalised.kept == {0x00080018: b'{"vr":"UI","Value":["1.2"]}', 0x00200013: b'{"vr":"IS","Value":[7]}'}


def test_the_transfer_syntax_is_told_apart_from_the_data_set() -> None:
    normalised = normalise(b'{"00020010":{"vr":"UI","Value":["1.2.840.10008.1.2\\u0000"]}}', bulkdata_base=BASE)

    assert (normalised.json, normalised.transfer_syntax_uid) == (b"{}", "1.2.840.10008.1.2")


@pytest.mark.parametrize(
    ("element", "vr"),
    [
        ({"vr": "US or SS", "Value": [1]}, "US"),
        ({"vr": "US or SS", "Value": [-1]}, "SS"),
        ({"vr": "OB or OW", "InlineBinary": "AAE="}, "OW"),
        ({"vr": "US or OW", "BulkDataURI": {"uri": "x", "head": ""}}, "OW"),
    ],
)
def test_a_vr_that_pydicom_left_open_is_decided(element: Json, vr: str) -> None:
    assert read({"00091010": element})["00091010"]["vr"] == vr


def test_well_known_uids_are_the_mapper_s_business_and_empty_ones_are_not_mapped() -> None:
    stored = {"00091010": {"vr": "UI", "Value": ["1.2\0", "", "1.3"]}, "00091011": {"vr": "AT", "Value": ["00100010"]}}

    answer = read(stored, map_uid=lambda uid: f"[{uid}]")

    assert answer["00091010"]["Value"] == ["[1.2]", None, "[1.3]"]
    assert answer["00091011"]["Value"] == ["00100010"]


def test_mapped_uids_are_never_remembered_for_another_store() -> None:
    stored = {"00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}

    answers = [json.dumps(read(stored, map_uid=map_uid)) for map_uid in (None, lambda uid: "a", lambda uid: "b", None)]

    assert answers[0] == answers[3] and '"1.2.3"' in answers[0]
    assert '"a"' in answers[1] and '"b"' in answers[2] and "1.2.3" not in answers[1] + answers[2]


# Hostile


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"[]",
        b"null",
        b'{"00080018":',
        b'{"00080018":5}',
        b'{"00080018":{}}',
        b'{"00080018":{"vr":5}}',
        b'{"00080018":{"vr":"XX"}}',
        b'{"00080018":{"vr":"UI\\","}}',
        b'{"00080018":{"vr":"UI","Value":"1.2"}}',
        b'{"00080018":{"vr":"UI","Value":[true]}}',
        b'{"00080018":{"vr":"UI","Value":[[]]}}',
        b'{"00080018":{"vr":"UI","Value":[{}]}}',
        b'{"00091010":{"vr":"OB","Value":["x"]}}',
        b'{"00091010":{"vr":"OB","InlineBinary":"A"}}',
        b'{"00091010":{"vr":"OB","InlineBinary":"<script>"}}',
        b'{"00091010":{"vr":"OB","InlineBinary":{}}}',
        b'{"00091010":{"vr":"LO","InlineBinary":"AAE="}}',
        b'{"00091010":{"vr":"SQ","BulkDataURI":"x"}}',
        b'{"00091010":{"vr":"SQ","Value":["x"]}}',
        b'{"00091010":{"vr":"SQ","Value":[null]}}',
        b'{"00091010":{"vr":"PN","Value":[5]}}',
        b'{"00091010":{"vr":"PN","Value":[{"Alphabetic":5}]}}',
        b'{"00091010":{"vr":"OB","Value":[1],"InlineBinary":"AAE="}}',
        b'{"00080018":{"vr":"LO","Value":["\xff"]}}',
    ],
)
def test_what_is_no_data_set_is_unreadable(stored: bytes) -> None:
    for _ in range(2):
        with pytest.raises(InstanceUnreadable, match="instances/3"):
            normalise(stored, bulkdata_base=BASE)


def test_a_message_quotes_no_value() -> None:
    with pytest.raises(InstanceUnreadable) as caught:
        normalise(b'{"00100010":{"vr":"PN","Value":["Doe^Jane"]}}', bulkdata_base=BASE)

    assert "Doe" not in str(caught.value) and "00100010" in str(caught.value)


def nested(depth: int) -> bytes:
    return b'{"00081140":{"vr":"SQ","Value":[' * depth + b'{"00091010":{"vr":"SH"}}' + b"]}}" * depth


def test_depth_is_bounded() -> None:
    """T6."""
    assert normalise(nested(64), bulkdata_base=BASE).json == nested(64)
    for depth in (100, 300, 100_000):
        with pytest.raises(InstanceUnreadable):
            normalise(nested(depth), bulkdata_base=BASE)


# What upstream dropped


def test_an_image_without_its_geometry_asks_for_the_header() -> None:
    """F: ImagePositionPatient of 17 characters vanishes when the published library stores it."""
    lacking = {}
    for store, key, data in stored_series():
        for entry in parse_series_metadata(data, key).entries.values() if store == "v2_raw" else ():
            normalised = normalise(entry.attributes_json(), bulkdata_base=BASE)
            lacking[entry.instance_uid_key] = normalised.lacks
    manifest = json.loads((DATA / "manifest.json").read_bytes())["p10"]

    assert set(lacking[manifest["syn_overlong_ds.dcm"]["sop"]]) >= {0x00200032, 0x00200037}
    assert lacking[manifest["syn_ct_1.dcm"]["sop"]] == ()
    assert lacking[manifest["syn_float_pixels.dcm"]["sop"]] == ()
    assert lacking[manifest["syn_encapsulated_pdf.dcm"]["sop"]] == ()


CT, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
PIXEL_TAGS = {0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103}
PLANE_TAGS = {0x00200032, 0x00200037, 0x00280030}


@pytest.mark.parametrize(
    ("present", "sop_class_uid", "expected"),
    [
        (set(), CT, PIXEL_TAGS | PLANE_TAGS),
        (PIXEL_TAGS | PLANE_TAGS, CT, set()),
        (PIXEL_TAGS | {0x7FE00010}, CT, PLANE_TAGS),
        ({0x7FE00010}, SC, PIXEL_TAGS),
        ({0x7FE00010}, None, PIXEL_TAGS),
        ({0x7FE00008}, SC, PIXEL_TAGS - {0x00280101, 0x00280103}),
        (set(), SC, set()),
    ],
)
def test_required_attributes_follow_from_the_sop_class(
    present: set[int], sop_class_uid: str | None, expected: set[int]
) -> None:
    assert lacks_required(present, sop_class_uid) == tuple(sorted(expected))
