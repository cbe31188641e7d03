"""Reading metadata.json: every shape that exists, and hostile ones."""

import gzip
import json
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from storage.cod.metadata import Entry, Limits, SeriesMetadata, parse_series_metadata
from storage.errors import CorruptSeries, InstanceUnreadable
from tests.cod.builders import (
    DATA,
    INSTANCE,
    KEY,
    data_set,
    document,
    entry_v1,
    entry_v2,
    packed,
    stored,
    stored_series,
)

SERIES = list(stored_series())


def read_entry(**changes: object) -> Entry:
    return parse_series_metadata(stored(document({INSTANCE: entry_v2(INSTANCE, **changes)})), KEY).entries[INSTANCE]


def read_text(text: bytes, **limits: int) -> SeriesMetadata:
    return parse_series_metadata(text, KEY, limits=Limits(**limits))


# The stores of the published library


def test_every_entry_of_the_published_library_is_read_as_the_manifest_states_it() -> None:
    manifest = json.loads((DATA / "manifest.json").read_bytes())
    expected = {
        (store, entry["series_key"].split("/series/")[-1], entry["key"]): (
            entry["headers"]["start_byte"],
            entry["size"],
            entry["crc32c"],
            entry["version"],
        )
        for store, content in manifest["stores"].items()
        for entry in content["instances"]
    }

    found = {}
    for store, key, data in SERIES:
        for uid, entry in parse_series_metadata(data, key).entries.items():
            assert entry.problem is None and entry.instance_uid_key == uid and entry.crc32c is not None
            crc32c = msgspec.to_builtins(entry.crc32c.to_bytes(4, "big"))
            if store != "append_plainjson":  # a copy of `append`, not in the manifest
                found[(store, key.series_uid, uid)] = (entry.start, entry.size, crc32c, entry.version)

    assert found == expected
    assert len(found) > 100


@pytest.mark.parametrize(
    ("store", "key", "data"), SERIES, ids=[f"{store}-{key.series_uid[-8:]}" for store, key, _ in SERIES]
)
def test_stored_json_is_what_json_and_zstandard_alone_read(store: str, key, data: bytes) -> None:  # type: ignore[no-untyped-def]  # key: by parametrize
    document = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)

    metadata = parse_series_metadata(data, key)

    assert list(metadata.entries) == list(document["cod"]["instances"])
    for uid, raw in document["cod"]["instances"].items():
        expected = raw["metadata"]
        if isinstance(expected, str):
            expected = json.loads(zstandard.decompress(msgspec.convert(expected, bytes)))
            originals = (raw["study_uid"], raw["series_uid"], raw["instance_uid"])
        else:
            originals = tuple(expected[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
        entry = metadata.entries[uid]
        assert repr(without_nan_tokens(json.loads(entry.attributes_json()))) == repr(without_nan_tokens(expected))
        uids = entry.original_uids()
        assert (uids.study_uid, uids.series_uid, uids.instance_uid) == originals
        assert not entry.names_other_place(key)


def without_nan_tokens(value: object) -> object:
    """NaN and its string mean the same here: version 1.0 files are mended as a whole."""
    if isinstance(value, dict):
        return {key: without_nan_tokens(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan_tokens(inner) for inner in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return json.dumps(value)
    return value


def test_a_hashed_store_is_known_by_its_own_field_and_keeps_the_original_uids_apart() -> None:
    deid = [(key, parse_series_metadata(data, key)) for store, key, data in SERIES if store == "deid"]

    assert deid
    for key, metadata in deid:
        assert metadata.is_deid and (metadata.study_uid, metadata.series_uid) == (key.study_uid, key.series_uid)
        for uid, entry in metadata.entries.items():
            assert entry.original_uids().instance_uid != uid
    assert not any(parse_series_metadata(data, key).is_deid for store, key, data in SERIES if store != "deid")


def test_fields_of_users_are_kept_and_the_thumbnail_is_apart() -> None:
    by_store = {store: parse_series_metadata(data, key) for store, key, data in SERIES}

    assert by_store["custom_fields"].custom
    assert any(parse_series_metadata(data, key).thumbnail for store, key, data in SERIES if store == "thumbs")
    assert "thumbnail" not in by_store["thumbs"].custom


def test_a_series_whose_files_all_failed_has_no_instances() -> None:
    metadata = parse_series_metadata(stored(document({})), KEY)

    assert metadata.entries == {}


# Shapes


@pytest.mark.parametrize("pack", [gzip.compress, lambda text: text, lambda text: gzip.compress(text) + b"\0" * 9])
def test_gzip_is_recognised_by_its_first_bytes(pack) -> None:  # type: ignore[no-untyped-def]  # three callables
    text = json.dumps(document({INSTANCE: entry_v2()})).encode()

    assert list(parse_series_metadata(pack(text), KEY).entries) == [INSTANCE]


def test_versions_may_be_mixed_and_an_entry_without_one_is_version_1() -> None:
    entries = {"1.2.1": entry_v1("1.2.1"), "1.2.2": entry_v2("1.2.2"), "1.2.3": entry_v1("1.2.3", version=None)}

    metadata = parse_series_metadata(stored(document(entries)), KEY)

    assert [entry.version for entry in metadata.entries.values()] == ["1.0", "2.0", "1.0"]
    for uid, entry in metadata.entries.items():
        assert json.loads(entry.attributes_json()) == data_set(uid)
        assert entry.original_uids().instance_uid == uid


def test_a_nan_token_in_version_1_hides_nothing() -> None:
    attributes = data_set() | {"00189087": {"vr": "FD", "Value": [float("nan"), 1.5, float("-inf")]}}

    metadata = parse_series_metadata(stored(document({INSTANCE: entry_v1(metadata=attributes)})), KEY)

    read = json.loads(metadata.entries[INSTANCE].attributes_json())
    assert read["00189087"]["Value"] == ["NaN", 1.5, "-Infinity"]


@pytest.mark.parametrize(
    ("field", "place", "is_other"),
    [
        ("uri", f"gs://any/prefix/{KEY.tar}://instances/{INSTANCE}.dcm", False),
        ("url", f"gs://any/prefix/{KEY.tar}://instances/{INSTANCE}.dcm", False),
        ("uri", f"{KEY.tar}://instances/{INSTANCE}.dcm", False),
        ("uri", f"gs://any/x{KEY.tar}://instances/{INSTANCE}.dcm", True),
        ("uri", f"gs://any/studies/9/series/9.tar://instances/{INSTANCE}.dcm", True),
        ("uri", f"gs://any/{KEY.tar}://instances/1.2.9.dcm", True),
        ("uri", "file:///etc/passwd", True),
        ("uri", None, False),
    ],
)
def test_the_stored_place_is_only_a_claim(field: str, place: str | None, is_other: bool) -> None:
    """T17: a `uri` to another bucket is never followed, but `check` can name it."""
    entry = read_entry(**{"uri": None, field: place})

    assert entry.problem is None
    assert entry.names_other_place(KEY) is is_other


@pytest.mark.parametrize("end_byte", [2535, 2536, 0, -5, "x", None])
def test_stored_end_byte_may_be_anything_while_there_is_a_size(end_byte: object) -> None:
    entry = read_entry(headers={"start_byte": 1536, "end_byte": end_byte})

    assert (entry.problem, entry.start, entry.stop) == (None, 1536, 2536)


def test_without_a_size_the_range_ends_at_end_byte() -> None:
    assert read_entry(size=None).size == 1000


# Hostile entries


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": None},
        {"headers": []},
        {"headers": {}},
        {"headers": {"start_byte": -1}},
        {"headers": {"start_byte": True}},
        {"headers": {"start_byte": 1536.0}},
        {"headers": {"start_byte": "1536"}},
        {"headers": {"start_byte": 2**63}},
        {"size": 0},
        {"size": -1},
        {"size": True},
        {"size": 2**64},
        {"size": "1000"},
        {"size": None, "headers": {"start_byte": 1536}},
        {"size": None, "headers": {"start_byte": 1536, "end_byte": 1536}},
        {"metadata": None},
        {"version": "3.0"},
        {"version": 2},
    ],
)
def test_a_bad_entry_names_its_problem_and_hides_no_neighbour(changes: dict[str, object]) -> None:
    entries = {INSTANCE: entry_v2(INSTANCE, **changes), "1.2.1": entry_v2("1.2.1")}

    metadata = parse_series_metadata(stored(document(entries)), KEY)

    problem = metadata.entries[INSTANCE].problem
    assert problem is not None and INSTANCE in problem
    assert metadata.entries["1.2.1"].problem is None
    with pytest.raises(InstanceUnreadable, match=INSTANCE):
        metadata.entries[INSTANCE].attributes_json()


@pytest.mark.parametrize("entry", [None, 1, "x", [], True])
def test_an_entry_that_is_no_object_is_a_problem(entry: object) -> None:
    assert parse_series_metadata(stored(document({INSTANCE: entry})), KEY).entries[INSTANCE].problem is not None


@pytest.mark.parametrize("uid", ["..", ".", "", "1.2/3", "1" * 129, "Doe^Jane", "1.2\n"])
def test_a_key_that_is_no_uid_is_a_problem_and_is_not_repeated(uid: str) -> None:
    problem = parse_series_metadata(stored(document({uid: entry_v2()})), KEY).entries[uid].problem

    assert problem is not None
    assert len(uid) < 3 or uid not in problem


@pytest.mark.parametrize("crc32c", [None, 5, "", "AQIDBA", "AQIDBAU=", "????", "AQ ID BA=="])
def test_a_checksum_that_cannot_be_read_is_none(crc32c: object) -> None:
    assert read_entry(crc32c=crc32c).crc32c is None


def test_a_checksum_is_base64_of_its_big_endian_bytes() -> None:
    assert read_entry().crc32c == 0x01020304


@pytest.mark.parametrize(
    ("positions", "lengths", "is_hint"),
    [
        ([10, 20], [10, 980], True),
        ([10, 20], [10, 981], False),
        ([10], [10, 10], False),
        ([-1], [10], False),
        ([10], [-1], False),
        ([2**63], [1], False),
        ([10.0], [1], False),
        ([True], [1], False),
        ([], [], False),
        ("10", "20", False),
        (None, None, False),
    ],
)
def test_a_stored_table_never_leads_out_of_its_instance(positions: object, lengths: object, is_hint: bool) -> None:
    """T8."""
    table = read_entry(offset_tables={"CustomOffsetTable": positions, "CustomOffsetTableLengths": lengths}).stored_table

    assert (table is not None) is is_hint
    if table is not None:
        assert table == ((10, 20), (10, 980))


# Hostile metadata of one instance


def test_metadata_that_declares_more_than_the_limit_is_not_unpacked() -> None:
    """T5: 1 GiB of zeros in 32 KiB."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=1 << 30)
    piece = bytes(1 << 20)
    bomb = b"".join(compressor.compress(piece) for _ in range(1024)) + compressor.flush()
    entry = read_entry(metadata=msgspec.to_builtins(bomb))

    tracemalloc.start()
    with pytest.raises(InstanceUnreadable, match=INSTANCE):
        entry.attributes_json()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 << 20


def test_metadata_that_does_not_declare_its_size_is_read_up_to_the_limit() -> None:
    text = json.dumps(data_set()).encode() + b" " * 100_000
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(text)
    assert zstandard.frame_content_size(frame) == -1
    entry = read_entry(metadata=msgspec.to_builtins(frame))

    assert entry.attributes_json(Limits(max_instance_bytes=len(text))) == text
    with pytest.raises(InstanceUnreadable):
        entry.attributes_json(Limits(max_instance_bytes=len(text) - 1))


GOOD_FRAME = zstandard.compress(json.dumps(data_set()).encode())


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "no base64!",
        packed(b"{}")[:-1],
        msgspec.to_builtins(GOOD_FRAME[:-1]),
        msgspec.to_builtins(GOOD_FRAME + b"x"),
        msgspec.to_builtins(GOOD_FRAME[:20]),
        msgspec.to_builtins(b"no frame"),
        packed(b"[]"),
        packed(b""),
        [],
        5,
    ],
)
def test_damaged_metadata_is_unreadable_and_names_the_instance(metadata: object) -> None:
    entry = read_entry(metadata=metadata)

    with pytest.raises(InstanceUnreadable, match=INSTANCE):
        entry.attributes_json()
    assert read_entry().attributes_json() == json.dumps(data_set()).encode()  # the next one is read as ever


def test_entries_may_be_unpacked_by_several_threads() -> None:
    texts = [json.dumps({"00104000": {"vr": "LT", "Value": [str(number) * 9999]}}).encode() for number in range(40)]
    entries = [read_entry(metadata=packed(text)) for text in texts] * 5

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(Entry.attributes_json, entries)) == texts * 5


def test_a_frame_without_size_that_is_cut_off_is_unreadable() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(json.dumps(data_set()).encode() * 1000)
    entry = read_entry(metadata=msgspec.to_builtins(frame[:-4]))

    with pytest.raises(InstanceUnreadable):
        entry.attributes_json()


# Hostile files


@pytest.mark.parametrize("kept", [0, 1, 2, 10, 18, 100, -9, -8, -1])
def test_a_file_that_is_cut_off_is_corrupt(kept: int) -> None:
    data = stored(document({INSTANCE: entry_v2()}))

    with pytest.raises(CorruptSeries, match=KEY.series_uid):
        parse_series_metadata(data[:kept], KEY)


def test_a_file_that_goes_on_behind_its_end_is_corrupt() -> None:
    data = stored(document({}))

    with pytest.raises(CorruptSeries):
        parse_series_metadata(data + data, KEY)


@given(st.data())
def test_any_damage_is_corrupt_or_harmless(data: st.DataObject) -> None:
    content = bytearray(
        data.draw(st.sampled_from([stored, lambda x: json.dumps(x).encode()]))(document({INSTANCE: entry_v1()}))
    )
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))

    try:
        entries = parse_series_metadata(bytes(content), KEY).entries
        for entry in entries.values():
            entry.attributes_json()
            entry.original_uids()
    except CorruptSeries:
        pass


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"cod":5}',
        b'{"cod":{}}',
        b'{"cod":{"instances":[]}}',
        b'{"cod":{"instances":null}}',
    ],
)
def test_a_document_of_another_shape_is_corrupt(text: bytes) -> None:
    with pytest.raises(CorruptSeries):
        read_text(text)


def test_text_that_is_no_utf8_is_corrupt() -> None:
    with pytest.raises(CorruptSeries, match="UTF-8"):
        read_text(b'{"cod":{"instances":{}},"note":"\xe4"}')


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_is_an_error_of_ours(opening: bytes) -> None:
    """T6."""
    with pytest.raises(CorruptSeries, match="nested"):
        read_text(b'{"cod":' + opening * 100_000)


def test_a_gzip_bomb_is_noticed_before_it_is_held() -> None:
    """T6: 1 GiB of zeros in 1 MiB."""
    compressor = zlib.compressobj(9, wbits=31)
    first, again = (compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + again * 1023

    tracemalloc.start()
    with pytest.raises(CorruptSeries, match="unpacks to more"):
        read_text(bomb, max_bytes=64 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 80 << 20


def test_a_suspicious_ratio_is_refused_far_below_the_size_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))

    with pytest.raises(CorruptSeries, match="unpacks to more"):
        read_text(bomb)


def test_size_limits_hold_for_plain_files_too() -> None:
    text = json.dumps(document({})).encode()

    read_text(text, max_bytes=len(text))
    with pytest.raises(CorruptSeries):
        read_text(text, max_bytes=len(text) - 1)


def test_more_instances_than_allowed_are_refused() -> None:
    data = stored(document({f"1.2.{number}": entry_v2(f"1.2.{number}") for number in range(4)}))

    assert len(read_text(data, max_instances=4).entries) == 4
    with pytest.raises(CorruptSeries, match="4 instances"):
        read_text(data, max_instances=3)


@pytest.mark.parametrize("end", [b'"1":0}}}', b'"1":0', b'"'])
def test_a_flood_of_tiny_members_is_refused_before_they_are_decoded(end: bytes) -> None:
    """T6: each member of a dict costs 200 bytes of memory and 10 of the file."""
    flood = b'{"cod":{"instances":{' + b'"1.2.345":0,' * 2_200_000 + end

    tracemalloc.start()
    with pytest.raises(CorruptSeries, match="members"):
        read_text(flood, max_instances=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 << 20


def test_many_members_within_instances_are_no_flood() -> None:
    private = {f"0009{element:04X}": {"vr": "LT", "Value": ["{[:" * 99]} for element in range(0x1000, 0x1200)}
    entry = json.dumps(entry_v1(metadata=data_set() | private)).encode()
    text = b'{"cod":{"instances":{' + b",".join(b'"1.%d":%b' % (number, entry) for number in range(60)) + b"}}}"
    assert text.count(b":") > 1 << 21

    assert len(read_text(text, max_instances=1000).entries) == 60
