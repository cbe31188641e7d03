"""Metadata modes: Full, and Orthanc's two short forms by its own names, lists and rules; instances always in full."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from app.settings import Settings
from storage.keys import SeriesKey
from tests.http import MADE, Attributes, data_set, entries_of, made_uid, store_of, value_of
from tests.support.server import Client, serving
from tests.support.stores import instance_path, loaded, series_key

OTHER = SeriesKey(MADE.study_uid, MADE.series_uid + ".2")

# The main DICOM tags of Orthanc 1.12.5 and later, as its book lists them.
PATIENT = "PatientName PatientBirthDate PatientSex OtherPatientIDs PatientID"
STUDY = (
    "StudyDate StudyTime StudyID StudyDescription AccessionNumber StudyInstanceUID RequestedProcedureDescription InstitutionName "
    "RequestingPhysician ReferringPhysicianName TimezoneOffsetFromUTC"
)
SERIES = (
    "SeriesDate SeriesTime Modality Manufacturer StationName SeriesDescription BodyPartExamined SequenceName ProtocolName "
    "SeriesNumber CardiacNumberOfImages ImagesInAcquisition NumberOfTemporalPositions NumberOfSlices NumberOfTimeSlices "
    "SeriesInstanceUID ImageOrientationPatient SeriesType OperatorsName PerformedProcedureStepDescription "
    "AcquisitionDeviceProcessingDescription ContrastBolusAgent PerformedProcedureStepStartDate PerformedProcedureStepStartTime "
    "RequestAttributesSequence"
)
INSTANCE = (
    "InstanceCreationDate InstanceCreationTime AcquisitionNumber ImageIndex InstanceNumber NumberOfFrames SOPInstanceUID "
    "TemporalPositionIdentifier ImagePositionPatient ImageComments ImageOrientationPatient"
)
MAIN_KEYWORDS = f"{PATIENT} {STUDY} {SERIES} {INSTANCE}".split()
UTF8 = {"vr": "CS", "Value": ["ISO_IR 192"]}

SAMPLE_VALUES = {
    "DA": "20240229", "TM": "120000", "PN": "Doe^Jane", "IS": "7", "DS": "1.5", "US": 3, "CS": "X", "LO": "text", "SH": "short",
    "LT": "long text",
}  # fmt: skip
SPECIAL_VALUES: dict[str, object] = {
    "TimezoneOffsetFromUTC": "+0100",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [1, 2, 3],
    "OtherPatientIDs": ["A", "B"],
}


def tag_of(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return f"{tag:08X}"


def with_every_main_tag(number: int) -> Dataset:
    """A data set that has a value for each main tag, and much else."""
    made = data_set(number)
    for keyword in MAIN_KEYWORDS:
        if keyword in made:
            continue
        if keyword == "RequestAttributesSequence":
            made.RequestAttributesSequence = [Dataset()]
            made.RequestAttributesSequence[0].RequestedProcedureID = "RP"
            continue
        setattr(made, keyword, SPECIAL_VALUES.get(keyword, SAMPLE_VALUES[dictionary_VR(keyword)]))
    made.InstanceNumber = number
    made.Rows, made.Columns, made.SliceThickness, made.KVP, made.AcquisitionDate = 512, 512, 2, 120, "20240301"
    return made


def by_uid(answer: Sequence[Attributes]) -> dict[str, Attributes]:
    return {value_of(each, "00080018"): each for each in answer}


async def get(client: Client, path: str, **headers: str) -> Any:  # Any: an httpx response
    response = await client.get(f"/dicomweb/{path}", headers=headers)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize(
    ("study_mode", "series_mode"), [("full", "main"), ("main", "extrapolate"), ("extrapolate", "full")]
)
async def test_each_route_has_its_own_mode_and_instances_are_always_full(
    tmp_path: Path, study_mode: str, series_mode: str
) -> None:
    """Orthanc's StudiesMetadata and SeriesMetadata; the answer says in which mode it was made."""
    [key] = {series_key(entry) for entry in entries_of("append")}
    modes = {"studies_metadata": study_mode, "series_metadata": series_mode}
    async with serving(await loaded("append"), tmp_path, wait=True, **modes) as client:
        study = await get(client, f"studies/{key.study_uid}/metadata")
        series = await get(client, f"{key.stem}/metadata")
        instances = [await client.get(f"{instance_path(entry)}/metadata") for entry in entries_of("append")]

    sizes = {"full": range(20, 999), "main": range(5, 20), "extrapolate": range(10, 30)}
    assert study.headers["x-metadata-mode"] == study_mode
    assert series.headers["x-metadata-mode"] == series_mode
    for response, mode in ((study, study_mode), (series, series_mode)):
        assert all(len(each) in sizes[mode] for each in response.json())
        assert ("warning" in response.headers) == (mode == "extrapolate")
        assert len(response.json()) == 4
    for response in instances:
        assert response.headers["x-metadata-mode"] == "full"
        [attributes] = response.json()
        assert "7FE00010" in attributes


@pytest.mark.parametrize("depth", ["quick", "deep"])
async def test_main_mode_is_orthancs_list_with_the_values_of_full_mode(tmp_path: Path, depth: Any) -> None:
    """PS3.18 leaves no such mode; the list is the one that Orthanc's users know."""
    bucket = await store_of([with_every_main_tag(number) for number in range(3)], tmp_path)
    async with serving(bucket, tmp_path / "full") as client:
        await client.archive.shelf.get(MADE, depth=depth)
        full = by_uid((await get(client, f"{MADE.stem}/metadata")).json())
    async with serving(bucket, tmp_path / "main", series_metadata="main", studies_metadata="main") as client:
        await client.archive.shelf.get(MADE, depth=depth)
        series = await get(client, f"{MADE.stem}/metadata")
        study = await get(client, f"studies/{MADE.study_uid}/metadata")

    assert series.headers["x-cod-metadata"] == depth
    wanted = {tag_of(keyword) for keyword in MAIN_KEYWORDS}
    assert len(wanted) == 51
    assert study.json() == series.json()
    for uid, attributes in by_uid(series.json()).items():
        assert list(attributes) == sorted(wanted | {"00080005"})
        assert attributes.pop("00080005") == UTF8
        assert attributes == {tag: full[uid][tag] for tag in wanted}


async def test_a_short_form_is_the_same_in_every_coding_and_has_tags_of_its_own(tmp_path: Path) -> None:
    bucket = await store_of([with_every_main_tag(number) for number in range(3)], tmp_path)
    tags = []
    for mode in ("full", "main", "extrapolate"):
        async with serving(bucket, tmp_path / "state", series_metadata=mode) as client:
            await client.archive.shelf.get(MADE, depth="deep")
            answers = [
                await get(client, f"{MADE.stem}/metadata", **{"accept-encoding": coding})
                for coding in ("gzip", "zstd", "")
            ]
            assert all(answer.json() == answers[0].json() for answer in answers)
            tags += [answer.headers["etag"] for answer in answers]
            unchanged = await client.get(
                f"/dicomweb/{MADE.stem}/metadata", headers={"if-none-match": tags[-1], "accept-encoding": ""}
            )
            assert unchanged.status_code == 304
    assert len(set(tags)) == 9


COLUMNS: dict[str, list[object]] = {
    # what instances 1 to 5 say; the sample is the first, the middle and the last of them
    "Rows": [512, 512, 512, 256, 512],
    "SliceThickness": [1, 9, 2, 9, 2],
    "RescaleSlope": [3, 9, 10, 9, 2],
    "BitsStored": [None, None, 12, None, 12],
    "HighBit": [11, None, None, None, None],
    "PixelSpacing": [[0.5, 0.25]] * 5,
    "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.2"] * 5,
    "ImageOrientationPatient": [[1, 0, 0, 0, 1, 0], None, [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0]],
    "Manufacturer": ["ACME", "Other", "ACME", "Other", "Other"],
    "AcquisitionDate": ["20240301"] * 5,
    "KVP": [120] * 5,
}


def five(series: SeriesKey = MADE, first: int = 1, **changes: list[object]) -> list[Dataset]:
    """Instances of one series that disagree as the columns say."""
    made = []
    for row in range(5):
        values = {keyword: column[row] for keyword, column in (COLUMNS | changes).items() if column[row] is not None}
        made.append(data_set(first + row, series=series, InstanceNumber=row + 1, **values))
    return made


async def extrapolated(bucket: Any, state: Path, path: str, **settings: Any) -> list[Attributes]:
    async with serving(
        bucket, state, series_metadata="extrapolate", studies_metadata="extrapolate", **settings
    ) as client:
        found: list[Attributes] = (await get(client, f"{path}/metadata")).json()
    return found


async def test_by_majority_a_value_is_told_of_all_when_most_samples_share_it(tmp_path: Path) -> None:
    """The book's rule: no consensus, not reported. Outliers outside the sample are told the sample's value."""
    bucket = await store_of(five(), tmp_path)

    found = await extrapolated(bucket, tmp_path / "state", MADE.stem)

    assert [value_of(each, "00280010") for each in found] == [512] * 5
    assert {str(value_of(each, "00180050")) for each in found} in ({"2"}, {"2.0"})
    assert [value_of(each, "00280101") for each in found] == [12] * 5  # absent in one of three
    assert [each["00280030"]["Value"] for each in found] == [[0.5, 0.25]] * 5 or [
        [float(value) for value in each["00280030"]["Value"]] for each in found
    ] == [[0.5, 0.25]] * 5
    assert [value_of(each, "00080016") for each in found] == ["1.2.840.10008.5.1.4.1.1.2"] * 5
    assert [value_of(each, "00080022") for each in found] == ["20240301"] * 5
    for each in found:
        assert "00281053" not in each  # three samples, three values
        assert "00280102" not in each  # in one of three
        assert "00180060" not in each  # not on the list


async def test_by_plurality_the_commonest_value_is_told_and_ties_go_to_the_smallest_text(tmp_path: Path) -> None:
    """Orthanc 1.4 and later: reported without consensus too; text sorts 10 before 2."""
    bucket = await store_of(five(), tmp_path)

    found = await extrapolated(bucket, tmp_path / "state", MADE.stem, extrapolate_rule="plurality")

    assert {float(value_of(each, "00281053")) for each in found} == {10.0}
    assert [value_of(each, "00280102") for each in found] == [11] * 5
    assert [value_of(each, "00280010") for each in found] == [512] * 5


@pytest.mark.parametrize(("rule", "told"), [("majority", None), ("plurality", 256)])
async def test_of_two_instances_that_differ_there_is_no_majority(tmp_path: Path, rule: str, told: int | None) -> None:
    bucket = await store_of([data_set(n, InstanceNumber=n, Rows=rows) for n, rows in ((1, 512), (2, 256))], tmp_path)

    found = await extrapolated(bucket, tmp_path / "state", MADE.stem, extrapolate_rule=rule)

    assert [value_of(each, "00280010") for each in found] == [told] * 2


async def test_one_instance_alone_is_its_own_majority(tmp_path: Path) -> None:
    bucket = await store_of([data_set(1, Rows=512)], tmp_path)

    [found] = await extrapolated(bucket, tmp_path / "state", MADE.stem)

    assert value_of(found, "00280010") == 512


async def test_what_an_instance_says_itself_is_never_overridden(tmp_path: Path) -> None:
    """Instance main tags beat extrapolated ones; a main tag of the series does not."""
    bucket = await store_of(five(), tmp_path)
    tags = "ImageOrientationPatient,Manufacturer"

    found = await extrapolated(bucket, tmp_path / "state", MADE.stem, series_extrapolated_tags=tags)

    orientations = [[float(value) for value in each["00200037"]["Value"]] for each in found]
    assert orientations == [[1, 0, 0, 0, 1, 0]] * 3 + [[0, 1, 0, 0, 0, 1]] + [[1, 0, 0, 0, 1, 0]]
    assert [value_of(each, "00080070") for each in found] == ["ACME"] * 5  # 2 of 3 samples; of all five, 3 say Other
    assert all("00280010" not in each for each in found)  # the list is the configured one, nothing more


async def test_a_link_to_bulk_data_is_told_of_no_other_instance(tmp_path: Path) -> None:
    """It would lead to the value of the sampled instance."""
    long: list[object] = ["x" * 1_100_000] * 5
    bucket = await store_of(five(TextValue=long, Rows=[64] * 5), tmp_path)
    async with serving(bucket, tmp_path / "full") as client:
        await client.archive.shelf.get(MADE, depth="deep")
        assert "BulkDataURI" in (await get(client, f"{MADE.stem}/metadata")).json()[0]["0040A160"]

    found = await extrapolated(bucket, tmp_path / "state", MADE.stem, series_extrapolated_tags="TextValue,Rows")

    assert [sorted({"0040A160", "00280010"} & each.keys()) for each in found] == [["00280010"]] * 5


async def test_the_study_route_samples_each_series_by_itself(tmp_path: Path) -> None:
    bucket = await store_of([*five(), *five(OTHER, 11, Rows=[64] * 5)], tmp_path)

    found = await extrapolated(bucket, tmp_path / "state", f"studies/{MADE.study_uid}")

    rows = {(value_of(each, "0020000E"), value_of(each, "00280010")) for each in found}
    assert rows == {(MADE.series_uid, 512), (OTHER.series_uid, 64)}
    assert sorted(by_uid(found)) == sorted(made_uid(number) for number in (*range(1, 6), *range(11, 16)))


async def test_extrapolated_answers_hold_the_main_tags_too(tmp_path: Path) -> None:
    bucket = await store_of([with_every_main_tag(number) for number in range(3)], tmp_path)

    found = await extrapolated(bucket, tmp_path / "state", MADE.stem)

    main = {tag_of(keyword) for keyword in MAIN_KEYWORDS} | {"00080005"}
    more = {tag_of(keyword) for keyword in ("Rows", "Columns", "SOPClassUID", "SliceThickness", "AcquisitionDate")}
    for each in found:
        assert set(each) == main | more


def test_orthancs_names_of_the_modes_are_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CODWEB_STUDIES_METADATA", "MainDicomTags")
    monkeypatch.setenv("CODWEB_SERIES_METADATA", "Extrapolate")
    settings = Settings(state_dir=tmp_path)
    assert (settings.studies_metadata, settings.series_metadata) == ("main", "extrapolate")

    assert Settings(studies_metadata="Full").studies_metadata == "full"


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("studies_metadata", "Fast", "studies_metadata"),
        ("series_metadata", "FULL", "series_metadata"),
        ("extrapolate_rule", "unanimity", "extrapolate_rule"),
        ("series_extrapolated_tags", "Rows,NoSuchKeyword", "NoSuchKeyword is no keyword"),
        ("series_extrapolated_tags", "00091010", "00091010 is no keyword"),
        ("studies_extrapolated_tags", "RequestAttributesSequence", "cannot be extrapolated"),
        ("studies_extrapolated_tags", "PixelData", "cannot be extrapolated"),
    ],
)
def test_what_cannot_be_done_is_refused_at_start(setting: str, value: str, told: str) -> None:
    """Orthanc stops too; a misspelt list that was ignored would be noticed by nobody."""
    with pytest.raises(ValidationError, match=told):
        Settings.model_validate({setting: value})


ACCEPTS = [
    "*/*",
    "application/*",
    "application/json",
    "application/dicom+json",
    "application/dicom+json;q=0.5, image/png",
    "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*; transfer-syntax=*",
    'multipart/related; type="application/dicom+xml", application/dicom+json;q=.2',
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "",
]


async def test_metadata_is_json_for_whoever_can_take_it(tmp_path: Path) -> None:
    """G2, G3, J15, viewers' rule 13: always an array, also of one."""
    entry = entries_of("custom_fields")[0]
    async with serving(await loaded("custom_fields"), tmp_path) as client:
        for accept in ACCEPTS:
            for path in (series_key(entry).stem, instance_path(entry).removeprefix("/dicomweb/")):
                response = await get(client, f"{path}/metadata", accept=accept)

                expected = "application/json" if accept == "application/json" else "application/dicom+json"
                assert response.headers["content-type"] == expected
                assert [value_of(each, "00080018") for each in response.json()] == [entry["key"]]
        del client.headers["accept"]
        assert (await get(client, f"{series_key(entry).stem}/metadata")).headers[
            "content-type"
        ] == "application/dicom+json"
