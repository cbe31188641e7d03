"""OHIF 3.13.2's requests, byte for byte, and what it and cornerstone3D read in the answers.

The queries and Accept headers were captured from the viewer and read in the sources of cornerstone3D and
dicom-microscopy-viewer. `Server.fetch` adds no header that is not written here.
"""

import httpx
import pytest

from tests.clients.answers import (
    JSON,
    SERIES_PANEL,
    STUDY_LIST,
    check_tags,
    digest,
    only_part,
    rows,
    values,
)
from tests.clients.conftest import Server, Sources

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:pydicom\..*")  # some files are wrong on purpose

BROWSER = {**JSON, "Accept-Encoding": "gzip, deflate, br, zstd", "Origin": "http://viewer.example.org:3000"}
OHIF_FIELDS = "includefield=00081030%2C00080060%2C00080090%2C00100030"
OHIF_STUDIES = f"/studies?limit=101&offset=0&fuzzymatching=false&{OHIF_FIELDS}"
OHIF_SERIES_FIELDS = "includefield=00080021%2C00080031%2C0008103E%2C00200011"

UNQUOTED = "multipart/related; type=application/octet-stream; transfer-syntax=*"
QUOTED = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'
MICROSCOPY = ", ".join(
    f'multipart/related; type="{media_type}"; transfer-syntax={syntax}'
    for media_type, syntax in (
        ("image/jls", "1.2.840.10008.1.2.4.80"),
        ("image/jls", "1.2.840.10008.1.2.4.81"),
        ("image/jp2", "1.2.840.10008.1.2.4.90"),
        ("image/jp2", "1.2.840.10008.1.2.4.91"),
        ("image/jpx", "1.2.840.10008.1.2.4.92"),
        ("image/jpx", "1.2.840.10008.1.2.4.93"),
        ("application/octet-stream", "*"),
        ("image/jpeg", "1.2.840.10008.1.2.4.50"),
    )
)

CT, PDF, JPEG, J2K, JLS, RLE = (
    "syn_ct_1.dcm",
    "syn_encapsulated_pdf.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "693_J2KR.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "rtdose_rle.dcm",
)
MULTIFRAME = "syn_native_mf16.dcm"


def frame_like_cornerstone(answer: httpx.Response) -> tuple[str, bytes]:
    """The transfer syntax and the payload, cut out as cornerstone's dicomImageLoader does, quirks included.

    It takes the first line of the part's header that begins with `--` for the boundary, wants `Content-Type:` spelled
    exactly so, and without a `transfer-syntax` parameter believes in Implicit VR Little Endian.
    """
    body = answer.content
    if "multipart" not in answer.headers["content-type"]:
        return syntax_like_cornerstone(answer.headers["content-type"]), body
    start = body.index(b"\r\n\r\n") + 4
    lines = body[: start - 4].decode("latin-1").split("\r\n")
    boundary = next(line for line in lines if line.startswith("--"))
    content_type = next(line[13:].strip() for line in lines if line[:13] == "Content-Type:")
    return syntax_like_cornerstone(content_type), body[start : body.index(boundary.encode(), start) - 2]


def syntax_like_cornerstone(content_type: str) -> str:
    for parameter in content_type.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "transfer-syntax":
            return value
    return "1.2.840.10008.1.2"


# OHIF: the study list


@pytest.mark.parametrize("headers", [JSON, BROWSER], ids=["as XHR", "as a browser's XHR"])
def test_ohif_study_list_shows_every_study_with_its_columns(
    server: Server, sources: Sources, headers: dict[str, str]
) -> None:
    found = rows(server, OHIF_STUDIES, headers)

    assert sorted(values(found, "0020000D")) == sorted({source.study_uid for source in sources.values()})
    for row in found:
        inside = sources.of_study(row["0020000D"]["Value"][0])
        assert row["00201208"]["Value"] == [len(inside)]
        if len(inside) == 1 and inside[0].read().get("Modality"):
            check_tags(row, STUDY_LIST, inside[0].read())


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ("PatientName=*lestrade*", [JPEG]),
        ("PatientName=%2AJXD19%2A", ["J2K_pixelrep_mismatch.dcm"]),
        ("PatientName=*comp*&00100020=*1CT*", ["CT_small.dcm"]),
        ("00100020=99000", ["liver.dcm"]),
        ("AccessionNumber=*03086212*", ["liver.dcm"]),
        ("StudyDate=20110525-20110526", ["OBXXXX1A_rle_2frame.dcm"]),
        ("StudyDate=19700102-20030501", ["liver.dcm", "emri_small_big_endian.dcm", "ExplVR_BigEnd.dcm"]),
        ("StudyDescription=*Whole%20Body*", ["JPEG-LL.dcm"]),
        ("ModalitiesInStudy=SEG%2CRTPLAN&StudyDate=20030716-20030716", ["rtplan.dcm"]),
        ("ModalitiesInStudy=SEG%5CNM&PatientName=*NM1*", ["JPEG-LL.dcm"]),
    ],
)
def test_ohif_study_list_filters(server: Server, sources: Sources, filters: str, names: list[str]) -> None:
    """Keywords and tags in one query, raw and encoded stars, both ends of dates, several modalities as one list."""
    found = rows(server, f"/studies?{filters}&limit=101&offset=0&fuzzymatching=false&{OHIF_FIELDS}")

    assert sorted(values(found, "0020000D")) == sorted(sources[name].study_uid for name in names)


def test_ohif_finds_a_study_by_uid_and_the_patients_other_studies(server: Server, sources: Sources) -> None:
    source = sources["CT_small.dcm"]

    by_uid = rows(server, f"{OHIF_STUDIES}&StudyInstanceUID={source.study_uid}")
    by_patient = rows(server, f"/studies?00100020=1CT1&limit=101&offset=0&fuzzymatching=false&{OHIF_FIELDS}")

    assert values(by_uid, "0020000D") == values(by_patient, "0020000D") == [source.study_uid]


@pytest.mark.parametrize("separator", [",", "%2C", "%5C", "&StudyInstanceUID="])
def test_ohif_lists_of_study_uids(server: Server, sources: Sources, separator: str) -> None:
    wanted = sorted((sources["CT_small.dcm"].study_uid, sources["liver.dcm"].study_uid))

    found = rows(server, f"{OHIF_STUDIES}&StudyInstanceUID={separator.join(wanted)}")

    assert sorted(values(found, "0020000D")) == wanted


# OHIF: a study is opened


def test_ohif_series_panel(server: Server, sources: Sources) -> None:
    source = sources[CT]
    everything = f"/studies/{source.study_uid}/series?{OHIF_SERIES_FIELDS}"

    found = {row["0020000E"]["Value"][0]: row for row in rows(server, everything)}
    deep_link = rows(server, f"{everything}&SeriesInstanceUID={source.series_uid}")

    assert found.keys() == {other.series_uid for other in sources.of_study(source.study_uid)}
    assert deep_link == [found[source.series_uid]]
    assert deep_link[0]["00201209"]["Value"] == [6]
    check_tags(deep_link[0], SERIES_PANEL, source.read())


@pytest.mark.parametrize("level", ["series", "study"])
def test_ohif_metadata_holds_the_geometry_of_a_volume(server: Server, sources: Sources, level: str) -> None:
    """Lazy loading asks series by series, otherwise the whole study at once; both begin with InstanceNumber 1."""
    source = sources[CT]
    path = source.series_path if level == "series" else f"/studies/{source.study_uid}"

    found = [
        row for row in rows(server, path + "/metadata", BROWSER) if row["0020000E"]["Value"] == [source.series_uid]
    ]

    assert [row["00200013"]["Value"] for row in found] == [[number] for number in (1, 2, 3, 4, 5, 6)]
    by_uid = {other.instance_uid: other.read() for other in sources.of_series(source.series_uid)}
    for row in found:
        data = by_uid[row["00080018"]["Value"][0]]
        for tag in ("00200032", "00200037", "00280030", "00281052", "00281053", "00281050", "00281051"):
            expected = data[tag].value
            assert row[tag]["Value"] == ([expected] if data[tag].VM == 1 else list(expected)), tag
        assert row["00083002"]["Value"] == [source.transfer_syntax_uid]
        assert row["7FE00010"].keys() == {"vr", "BulkDataURI"}


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom+json",
        "application/json",
        "*/*",
        "application/dicom+json, application/json",
        "application/json;q=.2, application/dicom+json;q=.9",
        "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*; transfer-syntax=*",
        None,
    ],
)
def test_metadata_is_an_array_of_dicom_json_for_each_accept(
    server: Server, sources: Sources, accept: str | None
) -> None:
    """The list with a doubled parameter is older OHIF's."""
    source = sources[CT]
    headers = {} if accept is None else {"Accept": accept}

    alone = rows(server, source.instance_path + "/metadata", headers)

    assert values(alone, "00080018") == [source.instance_uid]


@pytest.mark.parametrize(
    "name", [CT, MULTIFRAME, JPEG, J2K, JLS, RLE, "OBXXXX1A_rle_2frame.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm"]
)
@pytest.mark.parametrize("accept", [UNQUOTED, QUOTED, MICROSCOPY, 'multipart/related; type="*/*"', "*/*", None])
def test_a_frame_arrives_as_stored_in_every_form_that_a_viewer_asks_for(
    server: Server, sources: Sources, name: str, accept: str | None
) -> None:
    source = sources[name]

    answer = server.fetch(source.instance_path + "/frames/1", {} if accept is None else {"Accept": accept})

    assert answer.status_code == 200, answer.text
    assert "content-encoding" not in answer.headers
    syntax, payload = frame_like_cornerstone(answer)
    native = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
    assert syntax == ("1.2.840.10008.1.2.1" if source.transfer_syntax_uid in native else source.transfer_syntax_uid)
    assert digest(payload) == source.frame_hashes[0]
    assert answer.headers["content-type"].startswith("multipart/related")
    assert only_part(answer).body == payload


@pytest.mark.parametrize(
    ("name", "accept"),
    [
        (JLS, 'multipart/related; type="image/jls"; transfer-syntax="1.2.840.10008.1.2.4.80"'),
        (JLS, 'multipart/related; type="image/x-jls"'),
        (RLE, 'multipart/related; type="image/dicom-rle"'),
        (RLE, 'multipart/related; type="image/x-dicom-rle"'),
        (JPEG, 'multipart/related; type="image/jpeg"'),
        (J2K, 'multipart/related; type="image/jp2"'),
        (CT, "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1,image/jls;q=0.5"),
        (CT, "Multipart/Related;TYPE=application/octet-stream;Transfer-Syntax=1.2.840.10008.1.2.1"),
    ],
)
def test_a_frame_is_sent_under_its_media_type(server: Server, sources: Sources, name: str, accept: str) -> None:
    source = sources[name]

    syntax, payload = frame_like_cornerstone(server.fetch(source.instance_path + "/frames/1", {"Accept": accept}))

    assert (syntax, digest(payload)) == (source.transfer_syntax_uid, source.frame_hashes[0])


@pytest.mark.parametrize(
    ("name", "accept", "content_type"),
    [
        (RLE, "application/octet-stream; transfer-syntax=*", "application/octet-stream"),
        (CT, "application/octet-stream", "application/octet-stream"),
        (JPEG, "image/jpeg", "image/jpeg"),
        (J2K, "image/jp2", "image/jp2"),
        (JLS, "image/jls", "image/jls"),
    ],
)
def test_a_bare_media_type_gets_the_frame_alone(
    server: Server, sources: Sources, name: str, accept: str, content_type: str
) -> None:
    """`singlepart` settings, and cornerstone without its multipart header."""
    source = sources[name]

    answer = server.fetch(source.instance_path + "/frames/1", {"Accept": accept})

    assert answer.headers["content-type"].split(";")[0] == content_type
    assert frame_like_cornerstone(answer) == (source.transfer_syntax_uid, answer.content)
    assert digest(answer.content) == source.frame_hashes[0]


def test_the_accept_parameter_beats_the_header(server: Server, sources: Sources) -> None:
    """cornerstone's `urlArguments` and browsers' `<img>` and `<object>` have no other way to say it."""
    source = sources[JPEG]
    path = source.instance_path + "/frames/1"
    picture = {"Accept": "image/jxl,image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"}

    alone = server.fetch(path + "?accept=image/jpeg", {"Accept": UNQUOTED})
    multipart = server.fetch(
        path + '?accept=multipart/related%3Btype%3D"application/octet-stream"%3Btransfer-syntax%3D*', picture
    )
    json = server.fetch(source.series_path + "/metadata?accept=application/dicom+json", {"Accept": "text/html"})

    assert (alone.headers["content-type"].split(";")[0], digest(alone.content)) == (
        "image/jpeg",
        source.frame_hashes[0],
    )
    assert digest(only_part(multipart).body) == source.frame_hashes[0]
    assert json.headers["content-type"] == "application/dicom+json"


def test_ohif_reads_a_frame_in_the_middle_for_the_thumbnail(server: Server, sources: Sources) -> None:
    source = sources[MULTIFRAME]

    answer = server.fetch(source.instance_path + "/frames/3", {**BROWSER, "Accept": UNQUOTED})

    assert "content-encoding" not in answer.headers
    assert digest(frame_like_cornerstone(answer)[1]) == source.frame_hashes[2]


@pytest.mark.parametrize(
    ("accept", "is_multipart"),
    [
        ('multipart/related; type="application/pdf", multipart/related; type="application/octet-stream"', True),
        ("*/*", False),
        ("application/octet-stream", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", False),
    ],
    ids=["OHIF", "OHIF with staticWado", "OHIF's ECG viewport", "a browser's <object>"],
)
def test_ohif_gets_the_pdf_at_its_link(server: Server, sources: Sources, accept: str, is_multipart: bool) -> None:
    source = sources[PDF]
    [row] = rows(server, source.instance_path + "/metadata")
    uri = row["00420011"]["BulkDataURI"]
    document = bytes(source.read().EncapsulatedDocument)

    assert uri.startswith(server.root) and "?" not in uri
    answer = server.fetch(uri.removeprefix(server.root), {"Accept": accept})

    assert answer.status_code == 200
    part = only_part(answer).body if is_multipart else answer.content
    assert part == document
    assert document.startswith(b"%PDF")


def test_ohif_asks_again_and_nothing_is_sent_twice(server: Server, sources: Sources) -> None:
    """A study that is opened again: metadata and frames are known to be unchanged."""
    source = sources[CT]
    for path, headers in (("/metadata", BROWSER), (f"/instances/{source.instance_uid}/frames/1", {"Accept": UNQUOTED})):
        etag = server.fetch(source.series_path + path, headers).headers["etag"]

        again = server.fetch(source.series_path + path, {**headers, "If-None-Match": etag})

        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("accept", [QUOTED, 'multipart/related; type="application/pdf"'])
def test_a_quoted_accept_passes_its_preflight_and_the_answer_may_be_read(
    server: Server, sources: Sources, accept: str
) -> None:
    path = sources[CT].instance_path + "/frames/1"
    origin = {"Origin": "http://viewer.example.org:3000"}
    asked = {**origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "accept"}

    preflight = server.fetch(path, asked, method="OPTIONS")
    answer = server.fetch(path, {**origin, "Accept": accept})

    assert preflight.status_code in (200, 204)
    assert "accept" in preflight.headers["access-control-allow-headers"].lower()
    assert "GET" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-origin"] == answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


# What a viewer must be told


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/studies?limit=abc", 400),
        ("/studies?StudyDate=yesterday", 400),
        ("/studies?unheardof=1&includedefaults=false", 200),
        ("/studies/1.2.3/series", 200),
        ("/studies/1.2.3/metadata", 404),
        ("/studies/1.2.3/series/4.5/instances/6.7/frames/1", 404),
    ],
)
def test_failures_carry_a_status_a_reason_and_cors(server: Server, target: str, status: int) -> None:
    answer = server.fetch(target, {**JSON, "Origin": "http://viewer.example.org"})

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


def test_a_frame_that_cannot_be_sent_as_asked_says_how_to_ask(server: Server, sources: Sources) -> None:
    """OHIF shows a black viewport without a word: the reason is in the body."""
    source = sources[JPEG]

    answer = server.fetch(
        source.instance_path + "/frames/1", {"Accept": 'multipart/related; type="application/octet-stream"'}
    )

    assert answer.status_code == 406
    assert "transfer-syntax=*" in answer.json()["detail"]
