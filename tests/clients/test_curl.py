"""curl, as people type it into a terminal."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import Server, Sources

CURL = shutil.which("curl")

pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")

CT, JPEG, MULTIFRAME = "syn_ct_1.dcm", "SC_rgb_jpeg_dcmtk.dcm", "examples_ybr_color.dcm"
FRAME = "Accept: application/octet-stream; transfer-syntax=*"


def curl(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run curl to its end: silent, without a proxy, without anybody's ~/.curlrc."""
    assert CURL is not None
    return subprocess.run([CURL, "-q", "-sS", "--noproxy", "*", *arguments], capture_output=True, timeout=30)


def headers_of(printed: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers that `curl -i` or `-I` printed."""
    status, *lines = printed.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return int(status.split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_the_address_that_serve_prints_answers(server: Server, sources: Sources) -> None:
    line = next(line for line in server.log.read_text().splitlines() if "curl" in line)
    address = line.partition("curl '")[2].rstrip("'")

    answer = curl("--fail", address)

    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)) == 5


@pytest.mark.parametrize("coding", ["gzip", "zstd", "gzip, zstd", "identity", "*"])
def test_metadata_is_the_same_in_every_coding(server: Server, sources: Sources, coding: str) -> None:
    address = server.root + sources[CT].series_path + "/metadata"
    plain = curl("--fail", address)
    features = curl("--version").stdout.decode()
    if "zstd" in coding and "zstd" not in features:
        coding = "gzip"

    coded = curl("--fail", "-i", "--compressed", "-H", f"Accept-Encoding: {coding}", address)

    assert coded.returncode == 0, coded.stderr
    headers, _, body = coded.stdout.partition(b"\r\n\r\n")
    assert json.loads(body) == json.loads(plain.stdout)
    expected = {"*": "gzip", "gzip, zstd": "zstd", "identity": None}.get(coding, coding)
    assert headers_of(headers)[1].get("content-encoding") == expected


@pytest.mark.parametrize("target", ["/studies", "/series?Modality=CT", "/metadata", "/bulkdata/7FE00010"])
def test_compressed_answers_are_what_curl_makes_of_them(server: Server, sources: Sources, target: str) -> None:
    path = target if target[1] == "s" else sources[CT].instance_path + target

    plain, coded = curl("--fail", server.root + path), curl("--fail", "--compressed", server.root + path)

    assert (plain.returncode, coded.returncode) == (0, 0), coded.stderr
    assert coded.stdout == plain.stdout


def test_every_instance_is_saved_bit_for_bit(server: Server, sources: Sources, tmp_path: Path) -> None:
    """All of them over one connection."""
    words = [word for source in sources.values() for word in ("-o", source.name, server.root + source.instance_path)]

    done = curl("--fail-early", "--fail", "-H", "Accept: application/dicom", "--output-dir", str(tmp_path), *words)

    assert done.returncode == 0, done.stderr
    saved = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert saved == {source.name: source.sha256 for source in sources.values()}


@pytest.mark.parametrize(
    ("target", "accept"),
    [
        ("/studies?limit=3", "*/*"),
        ("/metadata", "application/dicom+json"),
        ("", "application/dicom"),
        ("", 'multipart/related; type="application/dicom"'),
        ("/frames/1", "application/octet-stream; transfer-syntax=*"),
        ("/bulkdata/7FE00010", "application/octet-stream"),
    ],
)
def test_head_says_what_get_would_and_sends_nothing(server: Server, sources: Sources, target: str, accept: str) -> None:
    address = server.root + (target if target.startswith("/studies") else sources[CT].instance_path + target)

    head, got = curl("-I", "-H", f"Accept: {accept}", address), curl("-i", "-H", f"Accept: {accept}", address)

    status, headers = headers_of(head.stdout)
    _, expected = headers_of(got.stdout)
    body = got.stdout.partition(b"\r\n\r\n")[2]
    assert (status, head.stdout.partition(b"\r\n\r\n")[2]) == (200, b"")
    assert headers.pop("content-length", str(len(body))) == str(len(body))  # may be missing: RFC 9110 §9.3.2
    assert headers.keys() == expected.keys() - {"content-length"}
    for name in headers.keys() - {"date", "content-type"}:  # a multipart has another boundary each time
        assert headers[name] == expected[name], name


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("0-99", 0, 100), ("100-", 100, None), ("-7", -7, None), ("5-5", 5, 6), ("10-99999999", 10, None)],
)
def test_a_range_of_a_frame_is_a_part_of_it(
    server: Server, sources: Sources, wanted: str, start: int, stop: int | None
) -> None:
    """Progressive viewers ask for the beginning of a frame first."""
    address = server.root + sources[JPEG].instance_path + "/frames/1"
    whole = curl("--fail", "-H", FRAME, address).stdout
    assert hashlib.sha256(whole).hexdigest() == sources[JPEG].frame_hashes[0]

    part = curl("-i", "-r", wanted, "-H", FRAME, address).stdout

    status, headers = headers_of(part)
    first = range(len(whole))[start]
    expected = whole[start:stop]
    assert (status, part.partition(b"\r\n\r\n")[2]) == (206, expected)
    assert headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(whole)}"


def test_a_range_beyond_the_frame_is_416(server: Server, sources: Sources) -> None:
    address = server.root + sources[JPEG].instance_path + "/frames/1"
    length = len(curl("--fail", "-H", FRAME, address).stdout)

    status, headers = headers_of(curl("-i", "-r", "10000000-", "-H", FRAME, address).stdout)

    assert (status, headers["content-range"]) == (416, f"bytes */{length}")


def test_a_broken_download_goes_on_where_it_stopped(server: Server, sources: Sources, tmp_path: Path) -> None:
    source = sources[MULTIFRAME]
    file = tmp_path / "instance.dcm"
    file.write_bytes(source.path.read_bytes()[:50_000])

    done = curl(
        "--fail", "-C", "-", "-H", "Accept: application/dicom", "-o", str(file), server.root + source.instance_path
    )

    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() == source.sha256


def test_fail_fails_where_there_is_nothing(server: Server) -> None:
    missing = curl("--fail", server.root + "/studies/1.2.3/metadata")
    explained = curl(server.root + "/studies/1.2.3/metadata")

    assert missing.returncode == 22
    assert json.loads(explained.stdout)["status"] == 404


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("StudyDescription=Whole Body Bone", ["JPEG-LL.dcm"]),
        ("StudyDescription=WHOLE*BONE", ["JPEG-LL.dcm"]),
        ("PatientName=Müller^Jürgen*", []),
        ("PatientName=山田*", []),
    ],
)
def test_queries_with_blanks_and_letters_beyond_ascii(
    server: Server, sources: Sources, key: str, names: list[str]
) -> None:
    answer = curl("--fail", "-G", server.root + "/studies", "--data-urlencode", key)

    found = [row["0020000D"]["Value"][0] for row in json.loads(answer.stdout)]
    assert found == [sources[name].study_uid for name in names]


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_every_http_version_that_curl_may_offer(server: Server, sources: Sources, version: str) -> None:
    source = sources[CT]
    if version == "--http2" and "HTTP2" not in curl("--version").stdout.decode():
        version = "--http1.1"

    answer = curl("--fail", version, "-H", FRAME, server.root + source.instance_path + "/frames/1")

    assert answer.returncode == 0, answer.stderr
    assert hashlib.sha256(answer.stdout).hexdigest() == source.frame_hashes[0]
