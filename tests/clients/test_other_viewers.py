"""The requests of Slim, wsidicom, Weasis, dcm4che, MONAI Label and 3D Slicer, byte for byte, read in their sources."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.clients.answers import INSTANCE_LIST, Attributes, check_tags, digest, only_part, rows, values
from tests.clients.conftest import Server, Sources
from tests.support.multipart import parts_of

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:pydicom\..*")  # some files are wrong on purpose

CT, J2K, MULTIFRAME = "syn_ct_1.dcm", "693_J2KR.dcm", "syn_native_mf16.dcm"


# Slim and wsidicom


def test_slim_gathers_series_by_modality_and_reports_whole(server: Server, sources: Sources) -> None:
    report = sources["reportsi.dcm"]
    sop_class = report.read().SOPClassUID

    studies = rows(server, "/studies?ModalitiesInStudy=SR&fuzzymatching=true")
    series = rows(server, f"/series?Modality=SR&StudyInstanceUID={report.study_uid}")
    by_modality = rows(server, f"/studies/{report.study_uid}/instances?Modality=SR")
    by_class = rows(server, f"/studies/{report.study_uid}/instances?SOPClassUID={sop_class}")
    whole = server.fetch(
        report.instance_path, {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax="*"'}
    )

    assert report.study_uid in values(studies, "0020000D")
    assert values(series, "0020000E") == [report.series_uid]
    assert values(by_modality, "00080018") == values(by_class, "00080018") == [report.instance_uid]
    assert digest(only_part(whole).body) == report.sha256


def test_wsidicom_lists_the_instances_of_several_series(server: Server, sources: Sources) -> None:
    source = sources[CT]
    other = next(other for other in sources.of_study(source.study_uid) if other.series_uid != source.series_uid)
    query = f"includefield=AvailableTransferSyntaxUID&0020000E={source.series_uid}&0020000E={other.series_uid}"

    both = rows(
        server, f"/studies/{source.study_uid}/instances?{query}", {"Accept": "application/dicom+json, application/json"}
    )
    images = rows(
        server, f"/studies/{source.study_uid}/instances?{query}&00080016={source.read().SOPClassUID}&00080060=CT"
    )

    expected = {
        each.instance_uid: each for uid in (source.series_uid, other.series_uid) for each in sources.of_series(uid)
    }
    assert sorted(values(both, "00080018")) == sorted(expected)
    for row in both:
        instance = expected[row["00080018"]["Value"][0]]
        assert row["00083002"]["Value"] == [instance.transfer_syntax_uid]
        check_tags(row, INSTANCE_LIST, instance.read())
    assert set(values(images, "00080018")) >= {each.instance_uid for each in sources.of_series(source.series_uid)}


def test_wsidicom_probes_transfer_syntaxes_by_406(server: Server, sources: Sources) -> None:
    source = sources[J2K]
    forms = {
        'multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.50': 406,
        'multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80': 406,
        'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1': 406,
        'multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90': 200,
    }

    for accept, status in forms.items():
        answer = server.fetch(source.instance_path + "/frames/1", {"Accept": accept})
        assert answer.status_code == status, accept


def test_wsidicom_gets_many_frames_in_one_request(server: Server, sources: Sources) -> None:
    source = sources[MULTIFRAME]

    answer = server.fetch(source.instance_path + "/frames/5,1,2,2", {"Accept": 'multipart/related; type="*/*"'})

    assert [digest(part.body) for part in parts_of(answer)] == [source.frame_hashes[index] for index in (4, 0, 1, 1)]


# Weasis and dcm4che


def test_weasis_walks_down_by_tags_and_retrieves_at_the_links(server: Server, sources: Sources) -> None:
    source = sources[CT]
    fields = "includefield=00080020,00080030,00080050,00081030,00080090,00200010"

    studies = rows(server, f"/studies?&{fields}&00100020=COD-FIX-1&00100021=&includedefaults=false")
    series = rows(
        server,
        f"/studies/{source.study_uid}/series?&includefield=0008103E,00200011,00081190&0020000E={source.series_uid}",
    )
    instances = rows(server, f"{source.series_path}/instances?&includefield=00200013,00081190,00080016")

    assert values(studies, "0020000D") == [source.study_uid]
    assert values(series, "0020000E") == [source.series_uid]
    assert len(instances) == 6
    for row in (*studies, *series, *instances):
        assert urlsplit(row["00081190"]["Value"][0]).netloc == server.address
    accept = {"Accept": 'multipart/related;type="application/dicom";transfer-syntax=*'}
    for row in instances:
        answer = server.fetch(row["00081190"]["Value"][0].removeprefix(server.root), accept)
        known = sources.of_series(source.series_uid)
        assert digest(only_part(answer).body) in {each.sha256 for each in known}


@pytest.mark.parametrize("query", ["?accept=*", "?accept=*/*", "?accept=multipart/related;type=application/dicom"])
def test_dcm4che_retrieves_with_accept_in_the_address(server: Server, sources: Sources, query: str) -> None:
    """Its `wadors` sends `?accept=*` and reads `boundary=` without blanks around the sign."""
    source = sources["JPEG-LL.dcm"]

    answer = server.fetch(
        source.series_path + query, {"Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}
    )

    assert "; boundary=" in answer.headers["content-type"].replace('"', "")
    expected = {each.sha256 for each in sources.of_series(source.series_uid)}
    assert {digest(part.body) for part in parts_of(answer)} == expected


# MONAI Label and 3D Slicer


def test_monai_label_finds_series_over_everything_and_fetches_them(server: Server, sources: Sources) -> None:
    ct = {source.series_uid for source in sources.values() if source.read().get("Modality") == "CT"}

    found = rows(server, "/series?Modality=CT")

    assert {CT, "CT_small.dcm", J2K} <= {
        name for name, source in sources.items() if source.series_uid in values(found, "0020000E")
    }
    assert set(values(found, "0020000E")) <= ct
    for row in found:
        study, series = row["0020000D"]["Value"][0], row["0020000E"]["Value"][0]
        assert row["00081190"]["Value"] == [f"{server.root}/studies/{study}/series/{series}"]
    link = next(row["00081190"]["Value"][0] for row in found if row["0020000E"]["Value"] == [sources[CT].series_uid])
    whole = server.fetch(link.removeprefix(server.root), {"Accept": 'multipart/related; type="application/dicom"'})
    assert len(parts_of(whole)) == 6


def pages(read: Callable[[int], list[Attributes]]) -> list[Attributes]:
    """3D Slicer's browser: page after page until one is empty; a page that comes again ends it too."""
    everything: list[Attributes] = []
    while page := read(len(everything)):
        assert page != everything[-len(page) :], "the offset was ignored"
        everything += page
    return everything


def test_slicer_pages_through_the_studies(server: Server, sources: Sources) -> None:
    found = pages(lambda offset: rows(server, f"/studies?limit=5&offset={offset}&includefield=StudyDescription"))

    assert sorted(values(found, "0020000D")) == sorted({source.study_uid for source in sources.values()})
    described = {
        uid: row.get("00081030", {}).get("Value") for uid, row in zip(values(found, "0020000D"), found, strict=True)
    }
    assert described[sources["JPEG-LL.dcm"].study_uid] == ["Whole Body Bone"]
