"""Search keys: those that the standard requires, at every resource at which it allows them, and those that are not matched."""

from pathlib import Path
from typing import Any

from pydicom import Dataset

from storage.keys import SeriesKey
from tests.http import data_set, entries_of, made_uid, searches_of, store_of
from tests.support.multipart import parts_of
from tests.support.server import Client, serving
from tests.support.stores import loaded, series_key

A = SeriesKey("1.2.826.0.1.3680043.10.1234.11", "1.2.826.0.1.3680043.10.1234.12")
B = SeriesKey("1.2.826.0.1.3680043.10.1234.21", "1.2.826.0.1.3680043.10.1234.22")


def request_item(step: str, procedure: str) -> Dataset:
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = step, procedure
    return item


OF_A: dict[str, Any] = {  # Any: values of any VR
    "StudyDate": "20240131",
    "StudyTime": "101112",
    "AccessionNumber": "A-1",
    "ReferringPhysicianName": "Referring^A",
    "PatientName": "Name^A",
    "PatientID": "ID-A",
    "StudyID": "SA",
    "Modality": "CT",
    "SeriesNumber": 1,
    "PerformedProcedureStepStartDate": "20240130",
    "PerformedProcedureStepStartTime": "0910",
    "RequestAttributesSequence": [request_item("SPS-A", "RP-A")],
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "InstanceNumber": 3,
}
OF_B: dict[str, Any] = {  # as above
    "StudyDate": "20230131",
    "StudyTime": "202122",
    "AccessionNumber": "B-1",
    "ReferringPhysicianName": "Referring^B",
    "PatientName": "Name^B",
    "PatientID": "ID-B",
    "StudyID": "SB",
    "Modality": "MR",
    "SeriesNumber": 2,
    "PerformedProcedureStepStartDate": "20230130",
    "PerformedProcedureStepStartTime": "1910",
    "RequestAttributesSequence": [request_item("SPS-B", "RP-B")],
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "InstanceNumber": 4,
}

REQUIRED_KEYS = {
    # Table 10.6.1-5, a value of A, and of B. Keyword, tag, level.
    ("StudyDate", "00080020", "study"): ("20240131", "20230131"),
    ("StudyTime", "00080030", "study"): ("101112", "202122"),
    ("AccessionNumber", "00080050", "study"): ("A-1", "B-1"),
    ("ModalitiesInStudy", "00080061", "study"): ("CT", "MR"),
    ("ReferringPhysicianName", "00080090", "study"): ("Referring^A", "Referring^B"),
    ("PatientName", "00100010", "study"): ("Name^A", "Name^B"),
    ("PatientID", "00100020", "study"): ("ID-A", "ID-B"),
    ("StudyInstanceUID", "0020000d", "study"): (A.study_uid, B.study_uid),
    ("StudyID", "00200010", "study"): ("SA", "SB"),
    ("Modality", "00080060", "series"): ("CT", "MR"),
    ("SeriesInstanceUID", "0020000E", "series"): (A.series_uid, B.series_uid),
    ("SeriesNumber", "00200011", "series"): ("1", "2"),
    ("PerformedProcedureStepStartDate", "00400244", "series"): ("20240130", "20230130"),
    ("PerformedProcedureStepStartTime", "00400245", "series"): ("0910", "1910"),
    ("RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", "series"): ("SPS-A", "SPS-B"),
    ("RequestAttributesSequence.RequestedProcedureID", "00400275.00401001", "series"): ("RP-A", "RP-B"),
    ("SOPClassUID", "00080016", "instance"): (OF_A["SOPClassUID"], OF_B["SOPClassUID"]),
    ("SOPInstanceUID", "00080018", "instance"): (made_uid(1), made_uid(2)),
    ("InstanceNumber", "00200013", "instance"): ("3", "4"),
}

ALLOWED = {  # Table 10.6.1-4, and series keys in searches for studies
    "study": ("studies", "series", "instances"),
    "series": ("studies", "series", "instances", "series of a study", "instances of a study"),
    "instance": ("instances", "instances of a study", "instances of a series"),
}


async def studies_found(client: Client, path: str) -> list[str]:
    response = await client.get(path)
    assert response.status_code == 200, (path, response.text)
    assert "warning" not in response.headers, path
    return [row["0020000D"]["Value"][0] for row in response.json()]


async def test_every_required_key_finds_what_has_its_value_by_tag_and_by_keyword(tmp_path: Path) -> None:
    """Q10, Q11: PS3.18 §10.6.1.2.3, at every resource at which its level is allowed."""
    store = await store_of([data_set(1, series=A, **OF_A), data_set(2, series=B, **OF_B)], tmp_path)
    async with serving(store, tmp_path / "state") as client:
        for (keyword, tag, level), (value_of_a, value_of_b) in REQUIRED_KEYS.items():
            for name in ALLOWED[level]:
                path = searches_of(A)[name]
                is_within = "study" in name or "a series" in name
                for key in (keyword, tag):
                    assert await studies_found(client, f"{path}?{key}={value_of_a}") == [A.study_uid], (name, key)
                    of_b = await studies_found(client, f"{path}?{key}={value_of_b}")
                    assert of_b == ([] if is_within else [B.study_uid]), (name, key)


async def test_a_key_that_cannot_be_matched_filters_nothing_and_is_named(tmp_path: Path) -> None:
    """Q10: PS3.4 §C.2.2.1.3. What no index holds is no reason for an empty answer."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    made = data_set(1, series=A, SliceThickness="2", ReferencedImageSequence=[item])
    async with serving(await store_of([made], tmp_path), tmp_path / "state") as client:
        for key, tag in (
            ("SliceThickness=3", "00180050"),
            ("ReferencedImageSequence.ReferencedSOPInstanceUID=9.9", "00081140"),
        ):
            for name, path in searches_of(A).items():
                response = await client.get(f"{path}?{key}")

                assert len(response.json()) == 1, (name, key)
                assert tag in response.headers["warning"], (name, key)


async def test_the_zone_of_a_request_is_no_filter_and_is_said_not_to_be_applied(tmp_path: Path) -> None:
    """Q19: PS3.18 §8.3.4.1.1."""
    made = data_set(1, series=A, **OF_A, TimezoneOffsetFromUTC="+0100")
    async with serving(await store_of([made], tmp_path), tmp_path / "state") as client:
        for name in ("studies", "series", "instances"):
            path = f"/dicomweb/{name}?TimezoneOffsetFromUTC=-0500&StudyTime=101112"
            response = await client.get(path)

            assert len(response.json()) == 1, name
            assert "TimezoneOffsetFromUTC" in response.headers["warning"]


async def test_links_of_rows_lead_to_what_the_row_is_of(tmp_path: Path) -> None:
    """Q32: RetrieveURL at each level."""
    searches = searches_of(series_key(entries_of("append")[0]))
    async with serving(await loaded("append"), tmp_path) as client:
        for name, instances in (("studies", 4), ("series", 4), ("instances", 1)):
            for row in (await client.get(searches[name])).json():
                assert row["00081190"]["vr"] == "UR"
                response = await client.get(row["00081190"]["Value"][0])

                assert len(parts_of(response)) == instances, name


async def test_rows_of_instances_lack_what_is_counted_over_a_series_or_study_yet(tmp_path: Path) -> None:
    """Q26: PS3.18 §10.6.3.3.3 wants all attributes of the levels above, asked for or not."""
    made = data_set(1, series=A, **OF_A)
    async with serving(await store_of([made], tmp_path), tmp_path / "state") as client:
        for name in ("instances", "instances of a study"):
            [row] = (await client.get(f"{searches_of(A)[name]}?ModalitiesInStudy=CT")).json()

            assert not row.keys() & {"00080061", "00201206", "00201208", "00201209"}, name
