"""The benchmarks' own parts: what is measured with must be right, and a wrong answer must be seen. No test takes a time."""

import gzip
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import imagecodecs
import pydicom
import pydicom.encaps
import pytest
import zstandard

from benchmarks import answers, wrk
from benchmarks.answers import WrongAnswer
from benchmarks.data import FORMAT, Instance, Manifest, Series, link, make_series
from benchmarks.far import as_ohif, from_the_middle, front_to_back
from benchmarks.header import ALL_ELEMENTS, TOP_LEVEL_ELEMENTS, SeriesPlan
from benchmarks.load import HOST, Answer, Asked, Connection, Unanswered, encode, many_clients, one_client
from benchmarks.rows import ORTHANC, Rows
from benchmarks.slides import Slide, SlidePlan, make_slide

PLAN = SeriesPlan(seed=1, profile="small", study=0, number=2, modality="CT", instances=3, size=16)


def answer(body: bytes, **headers: str) -> Answer:
    return Answer(200, {name.replace("_", "-"): value for name, value in headers.items()}, body, 0.0)


def multipart(*bodies: bytes) -> Answer:
    parts = b"".join(b"--edge\r\nContent-Type: application/octet-stream\r\n\r\n%b\r\n" % body for body in bodies)
    return answer(
        parts + b"--edge--\r\n", content_type='multipart/related; type="a/b"; boundary=edge; transfer-syntax=1'
    )


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()

    first, second = make_series(tmp_path / "a", PLAN), make_series(tmp_path / "b", PLAN)
    other = make_series(tmp_path / "c", SeriesPlan(2, "small", 0, 2, "CT", 3, 16))

    assert first == second
    assert {one.sha256 for one in first.instances}.isdisjoint(one.sha256 for one in other.instances)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_made_files_are_what_pydicom_itself_would_write(tmp_path: Path, modality: str) -> None:
    """PS3.10 §7.1: File Meta Information, then elements in increasing order of their tags."""
    plan = SeriesPlan(1, "small", 0, 0, modality, 2, 16)  # type: ignore[arg-type]  # one of the two

    made = make_series(tmp_path, plan)

    for number, path in enumerate(sorted((tmp_path / plan.series_uid).iterdir())):
        content, again = path.read_bytes(), BytesIO()
        data_set = pydicom.dcmread(path)
        pydicom.dcmwrite(again, data_set, enforce_file_format=True)
        assert again.getvalue() == content
        assert sha256(content).hexdigest() == made.instances[number].sha256
        assert sha256(data_set.PixelData).hexdigest() == made.instances[number].frame_sha256
        assert (data_set.SOPInstanceUID, data_set.InstanceNumber) == (made.instances[number].uid, number + 1)


def test_a_ct_header_has_as_many_attributes_as_the_profile_says(tmp_path: Path) -> None:
    make_series(tmp_path, PLAN)

    data_set = pydicom.dcmread(tmp_path / PLAN.series_uid / "00000.dcm")

    assert len(data_set) == TOP_LEVEL_ELEMENTS
    assert sum(1 for _ in data_set.iterall()) == ALL_ELEMENTS


def test_a_frame_is_checked_alone_and_in_a_multipart() -> None:
    right, wrong = b"\r\n--pixels", b"\r\n--pixelz"
    check = answers.frame(Instance("1.2", 0, "", sha256(right).hexdigest()))

    check(answer(right, content_type="application/octet-stream"))
    check(multipart(right))
    with pytest.raises(WrongAnswer):
        check(multipart(wrong))
    with pytest.raises(WrongAnswer):
        check(answer(right[:-1], content_type="application/octet-stream"))


def test_a_missing_or_exchanged_file_of_a_series_is_seen() -> None:
    check = answers.files([Instance(name, 0, sha256(name.encode()).hexdigest(), "") for name in ("1", "2")])

    check(multipart(b"1", b"2"))
    for wrong in (multipart(b"1"), multipart(b"2", b"1"), multipart(b"1", b"2", b"2")):
        with pytest.raises(WrongAnswer):
            check(wrong)


def test_a_body_that_breaks_off_before_its_last_boundary_is_seen() -> None:
    whole = multipart(b"1", b"2")

    with pytest.raises((WrongAnswer, ValueError)):
        answers.parts(Answer(200, whole.headers, whole.body[:-12], 0.0))


def test_metadata_is_checked_for_depth_instances_attributes_and_equal_text_in_all_codings() -> None:
    entry = {"00080018": {"vr": "UI", "Value": ["1.2"]}, "00100020": {"vr": "LO"}}
    text, other = json.dumps([entry]).encode(), json.dumps([{**entry, "00100030": {"vr": "DA"}}]).encode()
    instances = [Instance("1.2", 0, "", "")]
    deep = {"x_cod_metadata": "deep"}
    check = answers.metadata(instances, 2, depth="deep", texts=set())

    check(answer(text, **deep))
    check(answer(gzip.compress(text), content_encoding="gzip", **deep))
    check(answer(zstandard.compress(text[:9]) + zstandard.compress(text[9:]), content_encoding="zstd", **deep))
    for wrong in (
        answer(text, x_cod_metadata="quick"),
        answer(other, **deep),
        answer(b"[" + text[1:-1] + b"," + text[1:], **deep),
        answer(gzip.compress(text[:9]) + gzip.compress(text[9:]), content_encoding="gzip", **deep),
    ):
        with pytest.raises(WrongAnswer):
            check(wrong)
    with pytest.raises(WrongAnswer):
        answers.metadata(instances, 3, depth="deep")(answer(text, **deep))


def manifest_of(studies: int) -> Manifest:
    """Studies of two series, one larger series, a slide and a study of one instance; nothing of it is made."""
    small = [
        Series(f"1.{study}", f"1.{study}.{number}", [Instance(f"1.{study}.{number}.1", 1, "", "")])
        for study in range(studies)
        for number in range(2)
    ]
    large = Series("2.1", "2.1.1", [Instance("2.1.1.1", 1, "", "")])
    page = [Series("4.1", "4.1.1", [Instance("4.1.1.1", 1, "", "")])]
    slide = Slide("3.1", "3.1.1", "3.1.1.1", 1, "", True, ["", ""])
    return Manifest(FORMAT, 1, small=small, large=large, slides=[slide], page=page, elements=1, all_elements=1)


def test_every_row_asks_something_and_has_a_name_of_its_own() -> None:
    rows = Rows(manifest_of(2)).all()

    assert all(row.questions for row in rows)
    assert len({row.slug for row in rows}) == len(rows)


def test_the_few_studies_and_orthanc_are_asked_rows_that_all_studies_are_asked_too() -> None:
    """Or there would be nothing to compare."""
    manifest = manifest_of(3)
    names = {row.name for row in Rows(manifest).all()}

    few = Rows(manifest.of_few()).all()
    orthanc = [row for row in Rows(manifest, ORTHANC).all() if row.beside_orthanc]

    assert {row.name for row in few} == names
    assert {row.name for row in orthanc} < names
    assert manifest.of_few().study_uids == {"1.0", "1.1", "2.1", "3.1"}
    assert all(question.path.startswith("/dicom-web/") for row in orthanc for question in row.questions)


def test_a_datastore_of_few_series_holds_the_same_files(tmp_path: Path) -> None:
    series = tmp_path / "all/studies/1/series"
    (series / "2").mkdir(parents=True)
    for name in ("2.tar", "2/metadata.json", "3.tar"):
        (series / name).write_text(name)

    link(tmp_path / "all", tmp_path / "few", [("1", "2")])

    found = [path.relative_to(tmp_path / "few") for path in (tmp_path / "few").rglob("*") if path.is_file()]
    assert sorted(map(str, found)) == ["studies/1/series/2.tar", "studies/1/series/2/metadata.json"]
    assert all((tmp_path / "few" / path).samefile(tmp_path / "all" / path) for path in found)


@pytest.mark.parametrize("has_table", [True, False])
def test_a_slide_holds_the_tiles_that_its_manifest_names(tmp_path: Path, has_table: bool) -> None:
    """PS3.5 §A.4, as pydicom reads it."""
    made = make_slide(tmp_path, SlidePlan(seed=1, across=6, has_table=has_table))

    path = tmp_path / made.series_uid / "slide.dcm"
    data_set = pydicom.dcmread(path)
    offsets = pydicom.encaps.parse_basic_offsets(data_set.PixelData)
    tiles = [*pydicom.encaps.generate_frames(data_set.PixelData, number_of_frames=36)]
    assert (path.stat().st_size, sha256(path.read_bytes()).hexdigest()) == (made.bytes, made.sha256)
    assert len(offsets) == (36 if has_table else 0)
    assert [sha256(tile).hexdigest() for tile in tiles] == made.tiles
    assert len(set(made.tiles)) == 36
    assert imagecodecs.jpeg8_decode(tiles[35]).shape == (256, 256, 3)
    assert data_set.NumberOfFrames == 36


def test_a_wrong_tile_is_seen() -> None:
    slide = Slide("1", "2", "3", 1, "", True, [sha256(tile).hexdigest() for tile in (b"one", b"two")])

    answers.tile(slide, 1)(multipart(b"two"))
    with pytest.raises(WrongAnswer):
        answers.tile(slide, 1)(multipart(b"one"))


def test_the_command_tells_its_profiles_its_sizes_and_its_exit_codes() -> None:
    told = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=True)

    for word in ("reading", "far", "tiles", "--quick", "--studies", "exit code", "python -m benchmarks far"):
        assert word in told.stdout


def test_a_viewer_asks_for_slices_in_the_order_that_was_logged() -> None:
    """OHIF 3.13: the shown slice, the thumbnail's, then outwards from the shown one."""
    slices = [Instance(str(number), 1, "", "") for number in range(1, 13)]

    assert [one.uid for one in as_ohif(slices)] == ["12", "7", "11", "10", "9", "8", "6", "5", "4", "3", "2", "1"]
    assert [one.uid for one in from_the_middle(slices)][:5] == ["7", "6", "8", "5", "9"]
    for order in (front_to_back, as_ohif, from_the_middle):
        assert sorted(order(slices), key=slices.index) == slices


needs_wrk = pytest.mark.skipif(wrk.version() is None, reason="wrk is not installed")


@contextmanager
def speaking(*answers_in_turn: bytes) -> Iterator[int]:
    """A port where every connection gets these answers to its requests, one after the other, again and again."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while True:
                for one in answers_in_turn:
                    try:
                        if not connection.recv(4096):
                            return
                        connection.sendall(one)
                    except OSError:  # the client has enough
                        return

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=serve, args=[connection], daemon=True).start()

    with socket.create_server((HOST, 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # or accept() would wait on


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


def test_the_client_reads_answers_with_a_length_and_chunked_ones_on_one_connection() -> None:
    """RFC 9112 §6.2, §7.1."""
    with speaking(PLAIN, CHUNKED) as port, Connection(port) as connection:
        read = [connection.get(encode("/")).body for _ in range(4)]

    assert read == [b"hello"] * 4


def test_the_client_reads_a_body_that_ends_with_its_connection_and_connects_again() -> None:
    """RFC 9112 §6.3: neither a length nor chunks."""

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhel")
                connection.sendall(b"lo")

    with socket.create_server((HOST, 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        with Connection(listening.getsockname()[1]) as connection:
            first, second = connection.get(encode("/")).body, connection.length(encode("/"))

    assert (first, second) == (b"hello", 5)


@needs_wrk
def test_wrk_asks_all_requests_in_turn_and_counts_their_answers() -> None:
    asked = [Asked(encode("/"), 5), Asked(encode("/longer"), 5)]

    with speaking(PLAIN) as port:
        times = wrk.ask(port, asked, 2, seconds=1)

    assert times.count > 10
    assert times.bytes == 5 * times.count
    assert 0 < times.p50_ms <= times.p95_ms <= times.p99_ms


@needs_wrk
@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9000),
    ],
)
def test_answers_to_wrk_that_differ_end_the_measurement(wrong: bytes) -> None:
    with speaking(wrong) as port, pytest.raises(Unanswered):
        wrk.ask(port, [Asked(encode("/"), 5)], 1, seconds=1)


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
    ],
)
def test_an_answer_that_differs_under_load_ends_the_measurement(wrong: bytes) -> None:
    asked = [Asked(encode("/"), 5)]

    with speaking(PLAIN, PLAIN, wrong) as port:
        with pytest.raises(Unanswered):
            one_client(port, asked, seconds=0, least=10)
        with pytest.raises(Unanswered):
            many_clients(port, asked, 2, seconds=5)


def test_both_clients_count_every_answer_and_its_bytes() -> None:
    asked = [Asked(encode("/"), 5)]

    with speaking(PLAIN) as port:
        alone = one_client(port, asked, seconds=0, least=20)
        together = many_clients(port, asked, 3, seconds=0)

    assert (alone.count, alone.bytes) == (20, 100)
    assert together.bytes == 5 * together.count >= 15
    assert 0 < alone.p50_ms <= alone.p95_ms <= alone.p99_ms
