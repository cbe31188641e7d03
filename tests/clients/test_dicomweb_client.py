"""dicomweb-client, the reference client in Python, against the real server: what it gets is what pydicom reads.

It sends `Host` without the port, `%2A` for `*`, repeated `includefield` keys, and by default `type="*/*"` for frames.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.multival import MultiValue

from tests.clients.answers import values
from tests.clients.conftest import Sources, refused

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:pydicom\..*")  # some files are wrong on purpose

CT_SERIES = "syn_ct_1.dcm"
PDF = "syn_encapsulated_pdf.dcm"

SEVERAL_PATIENTS_IN_ONE_STUDY = "1.2.826.0.1.3680043.8.498.12356127604533793127098560674655651257"
"""The synthetic study: its instances deliberately disagree about the patient's name and the study's date."""


def studies_where(sources: Sources, predicate: Callable[[Dataset], bool]) -> set[str]:
    """The studies of which an instance passes, as pydicom reads it."""
    return {source.study_uid for source in sources.values() if predicate(source.read())}


# Search


def test_all_studies_series_and_instances_are_found(client: DICOMwebClient, sources: Sources) -> None:
    studies, series, instances = (
        client.search_for_studies(),
        client.search_for_series(),
        client.search_for_instances(),
    )

    assert sorted(values(studies, "0020000D")) == sorted({source.study_uid for source in sources.values()})
    assert sorted(values(series, "0020000E")) == sorted({source.series_uid for source in sources.values()})
    assert sorted(values(instances, "00080018")) == sorted(source.instance_uid for source in sources.values())


def test_a_study_row_counts_its_series_and_instances(client: DICOMwebClient, sources: Sources) -> None:
    for row in client.search_for_studies():
        inside = sources.of_study(row["0020000D"]["Value"][0])

        assert row["00201206"]["Value"] == [len({source.series_uid for source in inside})]
        assert row["00201208"]["Value"] == [len(inside)]
        modalities = {source.read().get("Modality") for source in inside} - {None}
        if row["0020000D"]["Value"] == [SEVERAL_PATIENTS_IN_ONE_STUDY]:  # its series have no one modality either
            assert set(row["00080061"]["Value"]) <= modalities
        else:
            assert set(row["00080061"].get("Value", ())) == modalities


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({"PatientID": "4MR1"}, lambda data: data.get("PatientID") == "4MR1"),
        ({"00100020": "4MR1"}, lambda data: data.get("PatientID") == "4MR1"),
        ({"PatientID": "?MR1"}, lambda data: data.get("PatientID") == "4MR1"),
        ({"PatientName": "compressedsamples*"}, lambda data: str(data.get("PatientName")).startswith("CompressedS")),
        ({"PatientName": "*^?M1"}, lambda data: str(data.get("PatientName")).endswith("^NM1")),
        ({"StudyDate": "20040826"}, lambda data: data.get("StudyDate") == "20040826"),
        ({"StudyDate": "20040101-20041231"}, lambda data: str(data.get("StudyDate")).startswith("2004")),
        ({"StudyDate": "20160101-"}, lambda data: str(data.get("StudyDate") or "0") >= "2016"),
        ({"StudyDate": "-20031231"}, lambda data: "1" <= str(data.get("StudyDate") or "3")[:8] <= "20031231"),
        ({"ModalitiesInStudy": "NM"}, lambda data: data.get("Modality") == "NM"),
        ({"ModalitiesInStudy": "MR,US"}, lambda data: data.get("Modality") in ("MR", "US")),
        ({"PatientID": "4MR1", "StudyDate": "20200101-"}, lambda data: False),
        ({"PatientID": "nobody"}, lambda data: False),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_studies_are_found_by_what_pydicom_reads_in_their_files(
    client: DICOMwebClient, sources: Sources, filters: dict[str, str], matches: Callable[[Dataset], bool]
) -> None:
    found = set(values(client.search_for_studies(search_filters=filters), "0020000D"))

    assert found - {SEVERAL_PATIENTS_IN_ONE_STUDY} == (
        studies_where(sources, matches) - {SEVERAL_PATIENTS_IN_ONE_STUDY}
    )


def test_a_list_of_study_uids_finds_each_of_them(client: DICOMwebClient, sources: Sources) -> None:
    wanted = [sources["CT_small.dcm"].study_uid, sources["liver.dcm"].study_uid]

    found = client.search_for_studies(search_filters={"StudyInstanceUID": ",".join(wanted)})

    assert sorted(values(found, "0020000D")) == sorted(wanted)


@pytest.mark.parametrize("fuzzy", [True, False])
def test_fuzzy_matching_is_taken_either_way(client: DICOMwebClient, sources: Sources, fuzzy: bool) -> None:
    found = client.search_for_studies(fuzzymatching=fuzzy, search_filters={"PatientName": "CompressedSamples^CT1"})

    assert values(found, "0020000D") == [sources["CT_small.dcm"].study_uid]


def test_fields_that_are_asked_for_are_returned(client: DICOMwebClient, sources: Sources) -> None:
    source = sources["CT_small.dcm"]

    [row] = client.search_for_studies(
        fields=["StudyDescription", "00081030", "InstitutionName"],
        search_filters={"StudyInstanceUID": source.study_uid},
    )
    [instance] = client.search_for_instances(*source.uids[:2], fields=["SliceThickness", "ImageType"])

    assert row["00081030"]["Value"] == [source.read().StudyDescription]
    assert instance["00180050"]["Value"] == [float(source.read().SliceThickness)]
    assert instance["00080008"]["Value"] == list(source.read().ImageType)


@pytest.mark.parametrize("limit", [1, 4, 7])
def test_pages_hold_every_result_once(client: DICOMwebClient, sources: Sources, limit: int) -> None:
    """`get_remaining` asks for page after page until one is empty: it would never end if the offset were ignored."""
    pages = [
        client.search_for_studies(limit=limit, get_remaining=True),
        client.search_for_instances(limit=limit * 5, get_remaining=True),
    ]

    assert Counter(values(pages[0], "0020000D")) == Counter({source.study_uid for source in sources.values()})
    assert Counter(values(pages[1], "00080018")) == Counter(source.instance_uid for source in sources.values())


def test_limit_and_offset_cut_the_same_list(client: DICOMwebClient) -> None:
    everything = client.search_for_series()

    assert client.search_for_series(limit=3, offset=5) == everything[5:8]
    assert client.search_for_series(offset=len(everything)) == []


def test_series_are_found_inside_a_study_and_over_all_of_them(client: DICOMwebClient, sources: Sources) -> None:
    source = sources[CT_SERIES]
    study, series = source.uids[:2]

    inside = client.search_for_series(study)
    one = client.search_for_series(study, search_filters={"SeriesInstanceUID": series})
    by_modality = client.search_for_series(search_filters={"Modality": "SR"})

    assert sorted(values(inside, "0020000E")) == sorted({other.series_uid for other in sources.of_study(study)})
    assert values(one, "0020000E") == [series]
    assert one[0]["00201209"]["Value"] == [6]
    reports = {"reportsi.dcm", "test-SR.dcm"}
    assert set(values(by_modality, "0020000E")) == {sources[name].series_uid for name in reports}
    assert values(by_modality, "00080060") == ["SR", "SR"]


def test_instances_are_found_at_each_level_and_by_class(client: DICOMwebClient, sources: Sources) -> None:
    source = sources[CT_SERIES]
    study, series = source.uids[:2]

    of_study, of_series = client.search_for_instances(study), client.search_for_instances(study, series)
    by_class = client.search_for_instances(search_filters={"SOPClassUID": source.read().SOPClassUID})

    assert sorted(values(of_study, "00080018")) == sorted(other.instance_uid for other in sources.of_study(study))
    assert values(of_series, "00200013") == [1, 2, 3, 4, 5, 6]
    assert {
        str(other.read().SOPClassUID)
        for other in sources.values()
        if other.instance_uid in values(by_class, "00080018")
    } == {str(source.read().SOPClassUID)}


# Metadata


READ_BY_VIEWERS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("PatientName", "PatientID", "InstanceNumber", "SeriesNumber", "ImageType", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PlanarConfiguration"),
    *("PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
]


def plain(value: Any) -> Any:
    """A value for comparing: blanks at the end of a text are padding (PS3.5 §6.2), and an empty value is no value."""
    if isinstance(value, MultiValue):
        return [plain(member) for member in value]
    if isinstance(value, str):
        value = value.rstrip()
    return None if value == "" else value


def test_metadata_of_every_instance_holds_what_pydicom_reads(client: DICOMwebClient, sources: Sources) -> None:
    """Every attribute that a viewer computes with, in every file."""
    for source in sources.values():
        told, read = Dataset.from_json(client.retrieve_instance_metadata(*source.uids)), source.read()
        for keyword in READ_BY_VIEWERS:
            assert plain(told.get(keyword)) == plain(read.get(keyword)), (source.name, keyword)


def test_metadata_of_a_series_and_of_a_study_hold_each_instance_once(client: DICOMwebClient, sources: Sources) -> None:
    for source in sources.values():
        of_series = client.retrieve_series_metadata(*source.uids[:2])
        assert sorted(values(of_series, "00080018")) == sorted(
            other.instance_uid for other in sources.of_series(source.series_uid)
        )
    for study_uid in {source.study_uid for source in sources.values()}:
        of_study = client.retrieve_study_metadata(study_uid)
        assert sorted(values(of_study, "00080018")) == sorted(
            other.instance_uid for other in sources.of_study(study_uid)
        )


def test_an_instance_reads_the_same_alone_in_its_series_and_in_its_study(
    client: DICOMwebClient, sources: Sources
) -> None:
    source = sources[CT_SERIES]

    alone = client.retrieve_instance_metadata(*source.uids)

    assert alone in client.retrieve_series_metadata(*source.uids[:2])
    assert alone in client.retrieve_study_metadata(source.study_uid)


# What is not there


def test_what_does_not_exist_is_404(client: DICOMwebClient, sources: Sources) -> None:
    here, elsewhere = sources["CT_small.dcm"], sources["liver.dcm"]
    study, series, instance = here.uids
    calls: list[Callable[[], Any]] = [
        lambda: client.retrieve_study_metadata("1.2.3"),
        lambda: client.retrieve_study("1.2.3"),
        lambda: client.retrieve_series_metadata(study, "1.2.3"),
        lambda: client.retrieve_series(study, "1.2.3"),
        lambda: client.retrieve_instance(study, series, "1.2.3"),
        lambda: client.retrieve_instance_metadata(study, series, "1.2.3"),
        lambda: client.retrieve_instance(study, series, elsewhere.instance_uid),
        lambda: client.retrieve_instance(elsewhere.study_uid, series, instance),
        lambda: client.retrieve_instance(study, elsewhere.series_uid, instance),
        lambda: client.retrieve_instance_frames(study, series, instance, [2]),
        lambda: client.retrieve_instance_frames(*sources[PDF].uids, [1]),
        lambda: client.retrieve_bulkdata(client.base_url + here.instance_path + "/bulkdata/00420011"),
    ]

    assert [refused(call) for call in calls] == [404] * len(calls)


def test_a_search_inside_an_unknown_study_is_empty(client: DICOMwebClient) -> None:
    assert client.search_for_series("1.2.3") == []
    assert client.search_for_instances("1.2.3", "4.5.6") == []
