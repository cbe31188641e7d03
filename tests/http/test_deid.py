"""De-identified stores: the keys are the UIDs of the outside world, and no UID of the source files ever leaves.

T34. The originals are read by pydicom from the members of the tars; every answer of the whole API is searched for them.
"""

import base64
import gzip
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from pydicom import Dataset, dcmread

from storage.bucket.memory import MemoryBucket
from storage.checking import check_datastore
from tests.http import STORED, Attributes, entries_of, resources_of, searches_of, value_of
from tests.http.test_paths import links_in
from tests.support.multipart import parts_of
from tests.support.server import Client, serving
from tests.support.stores import DATA, instance_path, loaded, series_key

STORE = "deid"
ENTRIES = entries_of(STORE)
KEYS = sorted({series_key(entry) for entry in ENTRIES})
CT_ENTRIES = [entry for entry in ENTRIES if entry["source"].startswith("syn_ct")]
CT_KEY = series_key(CT_ENTRIES[0])
STANDARD = "1.2.840.10008."


def uids_of(dataset: Dataset) -> Iterator[str]:
    """Every UI value, nested ones and those of the file meta information too, but for those of the standard itself."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from uids_of(item)
        elif element.VR == "UI":
            values = [element.value] if isinstance(element.value, str) else element.value or []
            yield from (str(value) for value in values if value and not f"{value}.".startswith(STANDARD))


def originals_in(tar: bytes) -> dict[str, set[str]]:
    """The UI values of each member of a tar, by the member's key."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        for member in members:
            file = members.extractfile(member)
            assert file is not None
            dataset = dcmread(io.BytesIO(file.read()))
            found[Path(member.name).stem] = {*uids_of(dataset), *uids_of(dataset.file_meta)}
    return found


ORIGINALS = {
    uid: values
    for path in sorted((DATA / "cod" / STORE).rglob("*.tar"))
    for uid, values in originals_in(path.read_bytes()).items()
}
SECRETS = set().union(*ORIGINALS.values())


def assert_silent(text: str) -> None:
    """Nothing of the source files in a text."""
    assert [secret for secret in SECRETS if secret in text] == []


def assert_discreet(response: httpx.Response) -> None:
    assert_silent(str(response.headers))
    assert_silent(response.content.decode("latin-1"))


@pytest.fixture(params=["quick", "deep"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(await loaded(STORE), tmp_path) as client:
        for key in KEYS:
            await client.archive.shelf.get(key, depth=request.param)
        yield client


def test_the_originals_are_worth_hiding() -> None:
    """The oracle of this file: it would prove nothing if it were empty."""
    assert len(SECRETS) > 15
    assert set(ORIGINALS) == {entry["key"] for entry in ENTRIES}
    assert not SECRETS & set(ORIGINALS)


async def test_no_search_shows_an_original_uid(client: Client) -> None:
    for key in KEYS:
        for path in searches_of(key).values():
            for query in ("", "includefield=all", "includefield=00081140,FrameOfReferenceUID,PixelData,0040A730"):
                response = await client.get(f"{path}?{query}")

                assert response.status_code == 200
                assert response.json()
                assert_discreet(response)


@pytest.mark.parametrize("mode", ["full", "main", "extrapolate"])
async def test_no_metadata_shows_an_original_uid(tmp_path: Path, mode: str) -> None:
    tags = "FrameOfReferenceUID,SOPInstanceUID,StudyInstanceUID"
    settings = {"studies_metadata": mode, "series_metadata": mode, "series_extrapolated_tags": tags}
    for depth in ("quick", "deep"):
        async with serving(await loaded(STORE), tmp_path / depth, wait=True, **settings) as client:
            for entry in ENTRIES:
                await client.archive.shelf.get(series_key(entry), depth=depth)
                for name, path in resources_of(entry).items():
                    if "metadata" in name:
                        response = await client.get(path)

                        assert response.status_code == 200
                        assert entry["key"] in response.text
                        assert_discreet(response)


async def test_the_uids_of_an_answer_are_the_keys_of_the_store(client: Client) -> None:
    """The hierarchy by which viewers find their way: study, series and instance are the entry's."""
    for entry in ENTRIES:
        key = series_key(entry)
        [attributes] = (await client.get(f"{instance_path(entry)}/metadata")).json()
        rows = (await client.get(searches_of(key)["instances of a series"])).json()
        row = next(row for row in rows if value_of(row, "00080018") == entry["key"])
        for each in (attributes, row):
            assert value_of(each, "00080018") == entry["key"]
            assert value_of(each, "0020000D") == key.study_uid
            assert value_of(each, "0020000E") == key.series_uid
            assert str(value_of(each, "00080016")).startswith(STANDARD)
        assert all(f"/{key.stem}/instances/{entry['key']}/" in link for link in links_in(attributes))


async def test_frames_are_served_and_files_are_refused_with_the_reason(client: Client) -> None:
    for entry in ENTRIES:
        for frame in entry["oracle_frames"]:
            response = await client.get(f"{instance_path(entry)}/frames/{frame['index'] + 1}", headers=STORED)
            assert_silent(str(response.headers))
            [part] = parts_of(response)
            assert_silent(str(part.headers))
            assert hashlib.sha256(part.body).hexdigest() == frame["sha256"]
        for name in ("study", "series", "instance"):
            for headers in ({}, {"accept": "application/dicom"}) if name == "instance" else ({},):
                response = await client.get(resources_of(entry)[name], headers=headers)
                assert response.status_code == 406
                assert "hides the original UIDs" in response.json()["detail"]
                assert_discreet(response)


async def test_bulk_data_is_served_unless_it_may_hold_a_uid(client: Client) -> None:
    """Every link leads somewhere: to the value, or to the reason why it is withheld."""
    answers = []
    for key in KEYS:
        for attributes in (await client.get(f"/dicomweb/{key.stem}/metadata")).json():
            links = [*links_in(attributes)]
            answers += [await client.get(link) for link in links]
            instance = f"/dicomweb/{key.stem}/instances/{value_of(attributes, '00080018')}"
            private = await client.get(f"{instance}/bulkdata/00091010")
            assert private.status_code == 406
            assert "private attributes" in private.json()["detail"]
    assert {response.status_code for response in answers} <= {200, 406}
    assert any(response.status_code == 200 for response in answers)
    for response in answers:
        assert_discreet(response)


async def test_an_original_uid_opens_nothing(client: Client) -> None:
    """Whoever knows an original UID must not learn whether it is here."""
    for secret in sorted(ORIGINALS[CT_ENTRIES[0]["key"]]):
        for query in (f"StudyInstanceUID={secret}", f"SOPInstanceUID={secret}", f"SeriesInstanceUID={secret}"):
            for level in ("studies", "series", "instances"):
                if query.startswith("SOP") and level != "instances":
                    continue
                assert (await client.get(f"/dicomweb/{level}?{query}")).json() == [], (level, query)
        assert (await client.get(f"/dicomweb/{CT_KEY.stem}/instances/{secret}/frames/1")).status_code == 404
        assert (await client.get(f"/dicomweb/studies/{secret}/metadata")).status_code == 404


@pytest.mark.parametrize("damage", ["swapped", "cut", "gone", "zeroed", "locked"])
async def test_errors_and_logs_of_a_damaged_store_tell_no_original_uid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """The reason names the entry, never what was found in the bytes."""
    caplog.set_level(logging.DEBUG)
    bucket = await loaded(STORE)
    await spoil(bucket, damage)
    async with serving(bucket, tmp_path) as client:
        for depth in ("quick", "deep"):
            for entry in CT_ENTRIES[:1]:
                for path in (*resources_of(entry).values(), *searches_of(series_key(entry)).values()):
                    response = await client.get(path, headers=STORED if path.endswith("/frames/1") else {})
                    assert response.status_code in (200, 404, 406, 500, 503)
                    assert_discreet(response)
                await client.archive.shelf.get(series_key(entry), depth=depth)

    findings = [finding async for finding in check_datastore(bucket, all_bytes=True)]

    assert findings
    for finding in findings:
        assert_silent(f"{finding.series} {finding.instance_uid} {finding.detail}")
    for record in caplog.records:
        assert_silent(record.getMessage())


async def spoil(bucket: MemoryBucket, damage: str) -> None:
    tar = bytes((await bucket.read(CT_KEY.tar)).data)
    match damage:
        case "swapped":
            await bucket.write(CT_KEY.tar, bytes((await bucket.read(KEYS[0].tar)).data) + tar)
        case "cut":
            await bucket.write(CT_KEY.tar, tar[: len(tar) // 2])
        case "gone":
            await bucket.delete(CT_KEY.tar)
        case "zeroed":
            await bucket.write(CT_KEY.tar, bytes(len(tar)))
        case "locked":
            await bucket.write(CT_KEY.tar, tar[512:])
            await bucket.write(CT_KEY.lock, b"somebody's")


async def test_a_check_of_a_sound_store_tells_no_original_uid() -> None:
    findings = [finding async for finding in check_datastore(await loaded(STORE), all_bytes=True)]

    for finding in findings:
        assert_silent(f"{finding.series} {finding.instance_uid} {finding.detail}")


Stored = dict[str, Any]  # Any: metadata.json, or an entry of it


async def with_attributes(added: Attributes) -> MemoryBucket:
    """The store with more attributes in the stored metadata of the CT series."""
    bucket = await loaded(STORE)
    document = json.loads(gzip.decompress(bytes((await bucket.read(CT_KEY.metadata)).data)))
    for entry in document["cod"]["instances"].values():
        attributes = json.loads(zstandard.decompress(base64.b64decode(entry["metadata"])))
        entry["metadata"] = base64.b64encode(zstandard.compress(json.dumps(attributes | added).encode())).decode()
    await bucket.write(CT_KEY.metadata, gzip.compress(json.dumps(document).encode()))
    return bucket


def original_of(entry: dict[str, Any], keyword: str = "SOPInstanceUID") -> str:
    return str(dcmread(DATA / "p10" / entry["source"])[keyword].value)


async def metadata_with(added: Attributes, state: Path) -> list[Attributes]:
    async with serving(await with_attributes(added), state) as client:
        response = await client.get(f"/dicomweb/{CT_KEY.stem}/metadata")
        assert response.headers["x-cod-metadata"] == "quick"
        assert_discreet(response)
        found: list[Attributes] = response.json()
    return found


async def test_references_within_the_study_still_match(tmp_path: Path) -> None:
    """In sequences and in text: an instance that is referred to is named by its key."""
    first, second = CT_ENTRIES[:2]
    item = {"00081155": {"vr": "UI", "Value": [original_of(second)]}}
    series_uid, study_uid = original_of(first, "SeriesInstanceUID"), original_of(first, "StudyInstanceUID")
    added = {
        "00081140": {"vr": "SQ", "Value": [item, {"00081199": {"vr": "SQ", "Value": [item]}}]},
        "0020000E": {"vr": "UI", "Value": [series_uid]},
        "00204000": {"vr": "LT", "Value": [f"see {original_of(second)}, of {study_uid}\\{series_uid}.dcm"]},
        "00081030": {"vr": "LO", "Value": [f"copy of {original_of(first)}"]},
    }

    for attributes in await metadata_with(added, tmp_path):
        one, other = attributes["00081140"]["Value"]
        assert value_of(one, "00081155") == value_of(other["00081199"]["Value"][0], "00081155") == second["key"]
        assert (
            value_of(attributes, "00204000") == f"see {second['key']}, of {CT_KEY.study_uid}\\{CT_KEY.series_uid}.dcm"
        )
        assert value_of(attributes, "00081030") == f"copy of {first['key']}"


async def test_a_foreign_uid_gets_one_other_name_that_is_kept_and_cannot_be_guessed(tmp_path: Path) -> None:
    """The name is a keyed hash: the same within a state folder, another one elsewhere."""
    foreign = "1.2.276.0.7230010.3.1.4.999999.1.2.3"
    added = {
        "00200052": {"vr": "UI", "Value": [foreign]},
        "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [foreign, "1.2.840.10008.1.1"]}}]},
        "00204000": {"vr": "LT", "Value": [f"({foreign})"]},
    }
    names = set()
    for state in ("one", "one", "other"):
        found = await metadata_with(added, tmp_path / state)
        [name] = {value_of(each, "00200052") for each in found}
        names.add(name)
        assert name.startswith("2.25.")
        assert len(name) <= 64
        assert foreign not in json.dumps(found)
        for each in found:
            assert each["00081140"]["Value"][0]["00081155"]["Value"] == [name, "1.2.840.10008.1.1"]
            assert value_of(each, "00204000") == f"({name})"
    assert len(names) == 2


async def test_what_is_no_uid_is_left_as_it_is_and_the_answer_stays_json(tmp_path: Path) -> None:
    """A careless writer puts `1.2` into a UI attribute: numbers that hold these characters must not change."""
    added = {
        "00200052": {"vr": "UI", "Value": ["1.2"]},
        "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["20240229"]}}]},
        "00180050": {"vr": "DS", "Value": [1.25]},
        "00180088": {"vr": "DS", "Value": ["1.2"]},
        "00080020": {"vr": "DA", "Value": ["20240229"]},
        "00181020": {"vr": "LO", "Value": ["1.2.3", "syngo 10.0.19044.1", "192.168.100.200"]},
        "00204000": {"vr": "LT", "Value": ['a "quoted" \\ text\r\nwith 1.2.840.10008.5.1.4.1.1.2 in it']},
    }

    for attributes in await metadata_with(added, tmp_path):
        assert value_of(attributes, "00200052") != "1.2"
        assert float(value_of(attributes, "00180050")) == 1.25
        assert float(value_of(attributes, "00180088")) == 1.2
        for tag in ("00080020", "00181020", "00204000"):
            assert attributes[tag] == added[tag]


async def test_opaque_values_lose_their_content(tmp_path: Path) -> None:
    """UN and private binary values may embed UIDs that nothing finds (PS3.15 §E.3.10)."""
    hidden = base64.b64encode(original_of(CT_ENTRIES[0]).encode()).decode()
    added = {
        "00091001": {"vr": "UN", "InlineBinary": hidden},
        "00091002": {"vr": "OB", "InlineBinary": hidden},
        "00181012": {"vr": "UN", "InlineBinary": hidden},
        "00081140": {"vr": "SQ", "Value": [{"00091001": {"vr": "OB", "InlineBinary": hidden}}]},
    }

    found = await metadata_with(added, tmp_path)

    assert hidden not in json.dumps(found)
    assert hidden[4:-4] not in json.dumps(found)
