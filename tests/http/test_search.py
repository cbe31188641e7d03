"""QIDO-RS on six paths, against a plain model: list comprehensions over what the metadata of every instance says."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from pydicom import Dataset

from storage.keys import SeriesKey
from tests.http import MADE, Attributes, data_set, entries_of, searches_of, store_of, value_of
from tests.http.search_model import (
    BIG_STUDY,
    INSTANCE_QUERIES,
    INSTANCE_UID,
    MODALITIES_IN_STUDY,
    PATIENT_TAGS,
    SERIES_QUERIES,
    SERIES_UID,
    STUDY_QUERIES,
    STUDY_UID,
    UID_OF,
    Model,
    has_series,
    model_of,
    text_of,
)
from tests.support.buckets import RecordingBucket
from tests.support.server import ROOT, Client, serving
from tests.support.stores import loaded, series_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORE = "v2_raw"


@dataclass(frozen=True)
class Served:
    client: Client
    model: Model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server that has read every header, and the model of the same metadata."""
    state = tmp_path_factory.mktemp("state")
    async with serving(await loaded(STORE), state, deepen="all") as client:
        for _ in range(500):
            if not any(
                each.depth == "quick" and each.problem is None for each in await client.archive.catalogue.known()
            ):
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail(f"not all series were deepened: {client.archive.deepening.failed}")
        instances: list[Attributes] = []
        for key in {series_key(entry) for entry in entries_of(STORE)}:
            instances += (await client.get(f"/dicomweb/{key.stem}/metadata")).json()
        yield Served(client, model_of(instances))


async def uids(client: Client, path: str, query: str, level: str) -> list[str]:
    response = await client.get(f"{path}?{query}" + ("" if "limit=" in query else "&limit=5000"))
    assert response.status_code == 200, response.text
    return [value_of(row, UID_OF[level]) for row in response.json()]


def where(name: str, key: SeriesKey) -> tuple[str, SeriesKey | None, int]:
    """The level of a search resource, and what its path restricts it to."""
    level = name.split(" ", 1)[0]
    depth = {"a study": 1, "a series": 2}.get(name.partition(" of ")[2], 0)
    return level, key if depth else None, depth


@pytest.mark.parametrize("resource", searches_of(SeriesKey("1", "1")))
async def test_a_search_finds_what_the_model_finds(served: Served, resource: str) -> None:
    """Q1–Q6, Q10–Q17, viewers' rules 2–7 and 10: study keys on every level, series keys from studies down."""
    level = where(resource, SeriesKey("1", "1"))[0]
    queries = (
        STUDY_QUERIES | MODALITIES_IN_STUDY | {query: has_series(holds) for query, holds in SERIES_QUERIES.items()}
    )
    if level == "instances":
        queries |= INSTANCE_QUERIES
    keys = [SeriesKey(value_of(each, STUDY_UID), value_of(each, SERIES_UID)) for each in served.model.series]
    key = next(key for key in keys if key.study_uid == BIG_STUDY)
    hits = 0
    path = searches_of(key)[resource]
    _, within, depth = where(resource, key)
    for query, holds in queries.items():
        found = await uids(served.client, path, query, level)

        expected = served.model.find(level, holds, within, depth)
        assert sorted(found) == expected, (path, query)
        assert len(set(found)) == len(found)
        hits += 0 < len(expected) < len(served.model.level(level))
    assert hits > 5


async def test_order_is_total_and_by_date_number_and_uid(served: Served) -> None:
    """Q29: newest studies first, then series by SeriesNumber, then instances by InstanceNumber."""

    def number(each: Attributes, tag: str) -> float:
        value = value_of(each, tag)
        return float("inf") if value is None else float(value)

    def moment(each: Attributes) -> tuple[str, str]:
        date = re.sub("[-.]", "", text_of(each, "00080020"))
        time = text_of(each, "00080030").replace(":", "")
        return date, time

    studies = sorted(served.model.studies, key=lambda each: value_of(each, STUDY_UID))
    studies.sort(key=lambda each: tuple(part.ljust(20, "0") for part in moment(each)), reverse=True)
    found = (await served.client.get("/dicomweb/studies?limit=5000")).json()
    assert [moment(row)[0] for row in found] == [moment(each)[0] for each in studies]
    for study in studies:
        path = f"/dicomweb/studies/{value_of(study, STUDY_UID)}/series"
        rows = (await served.client.get(path)).json()
        order = [(number(row, "00200011"), value_of(row, SERIES_UID)) for row in rows]
        assert order == sorted(order)
        for row in rows:
            rows_inside = (await served.client.get(f"{path}/{value_of(row, SERIES_UID)}/instances")).json()
            inner = [(number(each, "00200013"), value_of(each, INSTANCE_UID)) for each in rows_inside]
            assert inner == sorted(inner)


RETURNED = {
    "studies": (
        {"00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190", *PATIENT_TAGS, STUDY_UID, "00200010",
         "00201206", "00201208"},
        {"00081030"},
    ),
    "series": ({"00080060", SERIES_UID, "00200011", "00201209", "00081190", STUDY_UID}, {"0008103E", "00080021", "00080031"}),
    "instances": (
        {"00080016", INSTANCE_UID, "00200013", "00083002", "00081190", "00080056", STUDY_UID, SERIES_UID},
        {"00080060", "00280010", "00280011", "00280100", "00280008"},
    ),
}  # fmt: skip
"""By level: attributes that every row has, and those that it has if the data do (Q25, viewers' rule 11)."""
COUNTED_ELSEWHERE = {"00080061", "00201206", "00201208", "00201209"}
"""Counts over studies and series are told by searches at those levels."""


@pytest.mark.parametrize("resource", searches_of(SeriesKey("1", "1")))
async def test_rows_hold_what_the_standard_and_viewers_want_and_say_the_truth(served: Served, resource: str) -> None:
    """Q25–Q27, Q32, Q33, J1–J6: unasked, with the attributes of the levels above that the path does not name."""
    in_big_study = [one for one in served.model.series if value_of(one, STUDY_UID) == BIG_STUDY]
    alone = [one for one in served.model.series if value_of(one, STUDY_UID) != BIG_STUDY]
    for one in (in_big_study[0], *alone[:3]):
        key = SeriesKey(value_of(one, STUDY_UID), value_of(one, SERIES_UID))
        level, within, depth = where(resource, key)
        required, known = RETURNED[level]
        if depth < 1 and level != "studies":
            required, known = required | RETURNED["studies"][0] - COUNTED_ELSEWHERE, known | RETURNED["studies"][1]
        if depth < 2 and level == "instances":
            required, known = required | RETURNED["series"][0] - COUNTED_ELSEWHERE, known | RETURNED["series"][1]
        if within is None and one is not in_big_study[0]:
            break
        rows = (await served.client.get(searches_of(key)[resource] + "?limit=5000")).json()
        for row in rows:
            expected = next(
                each
                for each in served.model.level(level)
                if value_of(each, UID_OF[level]) == value_of(row, UID_OF[level])
                and (level == "studies" or value_of(each, SERIES_UID) == value_of(row, SERIES_UID))
            )
            assert list(row) == sorted(row)
            assert row["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
            assert required <= row.keys()
            expected = expected.get("row", expected)
            for tag in (required | known) & expected.keys():
                assert row[tag].get("Value") == expected[tag].get("Value") or not expected[tag].get("Value"), (tag, row)
            assert row["00080056"]["Value"] == ["ONLINE"]
            [url] = row["00081190"]["Value"]
            assert url == ROOT + path_of(row, level)
        assert (await served.client.get(url + "/metadata")).status_code == 200


def path_of(row: Attributes, level: str) -> str:
    path = f"/studies/{value_of(row, STUDY_UID)}"
    if level != "studies":
        path += f"/series/{value_of(row, SERIES_UID)}"
    if level == "instances":
        path += f"/instances/{value_of(row, INSTANCE_UID)}"
    return path


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("studies", {"StudyDescription": "00081030", "ReferringPhysicianName": "00080090", "PatientAge": "00101010"}),
        ("series", {"BodyPartExamined": "00180015", "Manufacturer": "00080070", "StudyDescription": "00081030"}),
        ("instances of a series", {"ImageType": "00080008", "SliceLocation": "00201041", "Modality": "00080060"}),
        ("instances of a study", {"PatientName": "00100010", "WindowCenter": "00281050", "KVP": "00180060"}),
    ],
)
async def test_includefield_is_understood_in_every_spelling(
    served: Served, resource: str, fields: dict[str, str]
) -> None:
    """Q24, Q14, viewers' rule 1."""
    path = searches_of(series_key(entries_of(STORE)[0]))[resource]
    keywords, tags = list(fields), list(fields.values())
    spellings = [
        "includefield=" + ",".join(keywords),
        "includefield=" + "%2C".join(tags),
        "includefield=" + ",".join(tag.lower() for tag in tags),
        "&".join(f"includefield={name}" for name in keywords),
        "&".join(f"{name}=" for name in keywords),
        "&".join(f"{tag}=*" for tag in tags),
        f"&includefield={keywords[0]},{tags[1]}&includefield=%20{keywords[2].lower()}%20",
        "includefield=" + ",".join([*keywords, *keywords, "NoSuchAttribute", "zzz", "", "0009xx10"]),
    ]
    everything = (await served.client.get(path + "?includefield=all&limit=5000")).json()

    answers = [(await served.client.get(f"{path}?{spelling}&limit=5000")).json() for spelling in spellings]

    assert [number for number, answer in enumerate(answers) if answer != answers[0]] == []
    for row, whole in zip(answers[0], everything, strict=True):
        for tag in tags:
            assert row.get(tag) == whole.get(tag)
        assert whole.items() >= {tag: row[tag] for tag in row if tag not in tags}.items()


async def test_all_beats_other_fields_and_brings_no_pixels(served: Served) -> None:
    """Q24."""
    path = f"/dicomweb/{series_key(entries_of(STORE)[0]).stem}/instances"

    everything = (await served.client.get(path + "?includefield=all")).json()
    both = (await served.client.get(path + "?includefield=PatientName,all")).json()

    assert both == everything
    metadata = (await served.client.get(path.removesuffix("/instances") + "/metadata")).json()
    for row, attributes in zip(everything, metadata, strict=True):
        assert "7FE00010" not in row
        for tag, element in attributes.items():
            if element["vr"] not in ("OB", "OD", "OF", "OL", "OV", "OW", "UN") and tag not in ("00080005",):
                assert row[tag] == element, tag


async def test_links_to_bulk_data_in_rows_are_those_of_metadata(served: Served, tmp_path: Path) -> None:
    """Q24, B1, G18: bulk data that is asked for by name, and what lies inside of sequences."""
    key = series_key(next(entry for entry in entries_of(STORE) if entry["source"] == "emri_small.dcm"))
    [row] = (await served.client.get(f"/dicomweb/{key.stem}/instances?includefield=PixelData,PatientName")).json()
    [attributes] = (await served.client.get(f"/dicomweb/{key.stem}/metadata")).json()
    assert row["7FE00010"] == attributes["7FE00010"]

    wave = Dataset()
    wave.add_new("WaveformData", "OW", bytes(10_000))
    bucket = await store_of([data_set(1, WaveformSequence=[wave])], tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        [row] = (await client.get(f"/dicomweb/{MADE.stem}/instances?includefield=all")).json()
        [attributes] = (await client.get(f"/dicomweb/{MADE.stem}/metadata")).json()
        link = row["54000100"]["Value"][0]["54001010"]["BulkDataURI"]
        assert row["54000100"] == attributes["54000100"]
        assert link.startswith(ROOT)
        assert (await client.get(link)).content == bytes(10_000)


async def test_an_unknown_field_is_left_out_with_a_warning_and_lower_levels_in_silence(served: Served) -> None:
    """Q24, viewers' rule 1: OHIF asks for Modality at study level on every query."""
    strange = await served.client.get("/dicomweb/studies?includefield=NoSuchAttribute")
    habit = await served.client.get("/dicomweb/studies?includefield=00081030,00080060,00080090,00100030")

    assert strange.headers["warning"].startswith("299 ")
    assert "warning" not in habit.headers
    assert all("00080060" not in row for row in habit.json())


@pytest.mark.parametrize("resource", searches_of(SeriesKey("1", "1")))
async def test_pages_part_the_list_without_gap_or_overlap(served: Served, resource: str) -> None:
    """Q28, Q29, viewers' rule 8."""
    key = next(series_key(entry) for entry in entries_of(STORE) if series_key(entry).study_uid == BIG_STUDY)
    path = searches_of(key)[resource]
    whole = (await served.client.get(path + "?limit=5000")).json()
    for limit in (1 if len(whole) < 15 else 5, 7, len(whole), len(whole) + 1):
        pages: list[Attributes] = []
        for offset in range(0, len(whole) + 1, limit):
            response = await served.client.get(f"{path}?limit={limit}&offset={offset}")
            rows = response.json()
            pages += rows
            remaining = len(whole) - offset - len(rows)
            warning = f'299 codweb "There are {remaining} additional results that can be requested"'
            assert response.headers.get("warning") == (warning if remaining else None)
            if rows or not offset:
                assert response.headers["x-total-count"] == str(len(whole))
        assert pages == whole


async def test_behind_the_end_is_nothing_and_a_limit_of_nothing_counts(served: Served) -> None:
    """Q28: dicomweb-client and Slicer ask on until an answer is empty."""
    total = len(served.model.instances)
    for offset in (total, total + 1, 10**9, 10**30):
        response = await served.client.get(f"/dicomweb/instances?offset={offset}&limit=5")
        assert (response.status_code, response.json()) == (200, [])
        assert "x-total-count" not in response.headers
    none = await served.client.get("/dicomweb/instances?limit=0")
    assert (none.json(), none.headers["x-total-count"]) == ([], str(total))


@pytest.mark.parametrize("resource", ["series of a study", "instances of a study", "instances of a series"])
async def test_an_unknown_parent_in_the_path_finds_nothing(served: Served, resource: str) -> None:
    """Q30, viewers' rule 9: 200 and an empty array, as every other server."""
    response = await served.client.get(searches_of(SeriesKey("9.9.9", "9.9.9.1"))[resource])

    assert (response.status_code, response.json()) == (200, [])
    assert response.headers["content-type"] == "application/dicom+json"


async def test_a_series_under_another_study_holds_no_instances(served: Served) -> None:
    one, other = [series_key(entry) for entry in entries_of(STORE)][:: len(entries_of(STORE)) - 1]
    assert one.study_uid != other.study_uid

    response = await served.client.get(f"/dicomweb/studies/{one.study_uid}/series/{other.series_uid}/instances")

    assert response.json() == []


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/json", "application/json"),
        ('application/dicom+json, multipart/related; type="application/dicom+xml"', "application/dicom+json"),
        ("text/html,application/xhtml+xml,*/*;q=.2", "application/dicom+json"),
    ],
)
async def test_the_json_is_named_as_the_client_asked(served: Served, accept: str | None, media_type: str) -> None:
    """Q31, G2, G3."""
    response = await served.client.get(
        "/dicomweb/studies?limit=1", headers={} if accept is None else {"accept": accept}
    )
    by_query = await served.client.get(
        f"/dicomweb/studies?limit=1&accept={media_type}", headers={"accept": "image/png"}
    )

    assert response.headers["content-type"] == by_query.headers["content-type"] == media_type


async def test_what_is_not_done_is_said_in_a_warning(served: Served) -> None:
    """Q21–Q23: taken with 200, and honest about it."""
    for parameter, words in {
        "emptyvaluematching": "emptyvaluematching parameter is not supported",
        "multiplevaluematching": "multiplevaluematching parameter is not supported",
    }.items():
        response = await served.client.get(f"/dicomweb/studies?{parameter}=true")
        assert response.status_code == 200
        assert words in response.headers["warning"]
        assert "warning" not in (await served.client.get(f"/dicomweb/studies?{parameter}=false")).headers
    fuzzy = await served.client.get("/dicomweb/studies?PatientName=lestr&fuzzymatching=true")
    assert len(fuzzy.json()) == 1
    assert "warning" not in fuzzy.headers


async def test_searches_of_studies_and_series_ask_nothing_of_the_bucket(tmp_path: Path) -> None:
    bucket = RecordingBucket(await loaded("append"))
    async with serving(bucket, tmp_path) as client:
        bucket.reset()
        for path in ("/dicomweb/studies?includefield=all", "/dicomweb/series?includefield=all&Modality=CT"):
            assert (await client.get(path)).json()
        assert bucket.requests == []


async def test_an_exact_study_is_found_before_the_sync_has_come_by(tmp_path: Path) -> None:
    """Viewers open deep links at once; a search that cannot be complete says so."""
    key = series_key(entries_of("append")[0])
    for name, path in {
        "by key": f"/dicomweb/studies?StudyInstanceUID={key.study_uid}",
        "by key among others": f"/dicomweb/series?0020000D=9.9,{key.study_uid}",
        "instances by key": f"/dicomweb/instances?StudyInstanceUID={key.study_uid}",
        **{name: path for name, path in searches_of(key).items() if " of " in name},
    }.items():
        async with serving(await loaded("append"), tmp_path / name, wait=False) as client:
            nothing = await client.get("/dicomweb/studies")
            response = await client.get(path)
            await client.archive.sync()
            settled = await client.get(path)

            assert nothing.json() == []
            assert "still being filled" in nothing.headers["warning"]
            assert response.json() == settled.json() != []
            assert "still being filled" in response.headers["warning"]
            assert "warning" not in settled.headers
    for path in ("", "/metadata", f"/series/{key.series_uid}/metadata"):
        async with serving(await loaded("append"), tmp_path / f"retrieve{len(path)}", wait=False) as client:
            assert (await client.get(f"/dicomweb/studies/{key.study_uid}{path}")).status_code == 200


async def test_readiness_tells_when_the_catalogue_is_complete(tmp_path: Path) -> None:
    async with serving(await loaded("append"), tmp_path, wait=False) as client:
        before = (await client.get("/readyz")).json()
        await client.archive.sync()
        after = (await client.get("/readyz")).json()

    assert before["catalogue"]["complete"] is False
    assert after["catalogue"] == {"studies": 1, "series": 1, "problems": 0, "complete": True}


async def test_no_match_is_200_or_by_setting_204(tmp_path: Path) -> None:
    """Finding 11 of the standard's editions: 200 with an empty array now, 204 then."""
    for status, body in ((200, b"[]"), (204, b"")):
        async with serving(await loaded("append"), tmp_path / str(status), search_empty_status=status) as client:
            response = await client.get("/dicomweb/studies?PatientID=nobody")

        assert (response.status_code, response.content) == (status, body)
        assert ("content-type" in response.headers) == (status == 200)


async def test_a_series_without_instances_is_no_study_for_a_viewer(served: Served) -> None:
    """A broken writer leaves a metadata.json that lists nothing; a study list with an empty line helps nobody."""
    rows = (await served.client.get("/dicomweb/studies?limit=5000")).json()

    assert len(rows) == len(served.model.studies)
    assert all(value_of(row, "00201208") > 0 for row in rows)
    assert (await served.client.get("/readyz")).json()["catalogue"]["problems"] == 1


async def test_keys_in_one_sequence_must_hold_in_one_item(tmp_path: Path) -> None:
    """Q11, Q20: PS3.4 §C.2.2.2.6."""
    items = [data_set_of_request("P1", "R1"), data_set_of_request("P2", "R2")]
    bucket = await store_of([data_set(1, RequestAttributesSequence=items)], tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        for query, count in {
            "RequestAttributesSequence.RequestedProcedureID=P1": 1,
            "00400275.00401001=P2": 1,
            "00400275.RequestedProcedureID=P2&RequestAttributesSequence.00400009=R2": 1,
            "00400275.00401001=P1&00400275.00400009=R2": 0,
            "00400275.00401001=P*": 1,
            "00400275.00401001=": 1,
        }.items():
            for path in ("series", "instances"):
                response = await client.get(f"/dicomweb/{path}?{query}")
                assert len(response.json()) == count, (path, query)
                assert all("00400275" in row for row in response.json())


def data_set_of_request(procedure_id: str, step_id: str) -> Dataset:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = procedure_id, step_id
    return item
