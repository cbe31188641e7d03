"""What becomes of a file that is offered to a series: new, same, conflict, or an error with its reason."""

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pydicom
import pytest

from storage import Hints, NewFile, open_series
from storage.errors import InstanceUnreadable
from storage.library import Series
from tests.ingest.reading import CT, P10
from tests.library.reading import (
    SERIES,
    SLICES,
    STUDY,
    UIDS,
    Folder,
    changed,
    checksum,
    other_header,
)

NOWHERE = "s3://no-such-bucket-anywhere/slice.dcm"
"""An address that cannot be fetched: who does not mind has not fetched it."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A series of two slices."""
    folder = Folder(tmp_path / "store")
    with open_series(folder.root, STUDY, SERIES, mode="w") as series:
        series.append(CT[:2])
    return folder


@pytest.fixture
def series(folder: Folder) -> Iterator[Series]:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        yield series


def hints(number: int, **other: object) -> Hints:
    """What is true of a slice."""
    data = SLICES[number]
    true = {"size": len(data), "crc32c": checksum(data), "instance_uid": UIDS[number]}
    return Hints(**(true | other))  # type: ignore[arg-type]


def test_same_file_again_is_same_and_changes_nothing(folder: Folder) -> None:
    before = folder.everything()

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append(CT[:2])

    assert [note.instance_uid for note in result.same] == UIDS[:2]
    assert folder.everything() == before


def test_same_uid_with_other_bytes_is_a_conflict_and_what_is_stored_stays(folder: Folder) -> None:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append([other_header(SLICES[0])])

    assert [note.instance_uid for note in result.conflict] == UIDS[:1]
    assert folder.is_whole(dict(zip(UIDS[:2], SLICES[:2], strict=True)))


def test_other_header_over_the_same_pixels_is_same_if_asked(series: Series) -> None:
    result = series.append([other_header(SLICES[0])], treat_same_pixels_as_same=True)

    assert (len(result.same), len(result.conflict)) == (1, 0)


def test_other_pixels_are_a_conflict_whatever_is_asked(series: Series) -> None:
    pixels = bytes(reversed(pixels_of(SLICES[0])))

    result = series.append([changed(SLICES[0], PixelData=pixels)], treat_same_pixels_as_same=True)

    assert len(result.conflict) == 1


def test_same_bytes_of_pixels_under_another_meaning_are_a_conflict(series: Series) -> None:
    """MONOCHROME1 shows the same numbers as a negative."""
    result = series.append(
        [changed(SLICES[0], PhotometricInterpretation="MONOCHROME1")], treat_same_pixels_as_same=True
    )

    assert len(result.conflict) == 1


def test_pixels_that_cannot_be_compared_are_an_error_and_nothing_else(folder: Folder) -> None:
    tar = bytearray(folder.tar.read_bytes())
    tar[folder.entries()[UIDS[0]]["headers"]["start_byte"] + 1500] ^= 0xFF
    folder.tar.write_bytes(tar)

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append([other_header(SLICES[0])], treat_same_pixels_as_same=True)

    assert "cannot be compared" in result.errors[0].reason


def pixels_of(data: bytes) -> bytes:
    return bytes(pydicom.dcmread(io.BytesIO(data)).PixelData)


def test_first_of_two_files_with_one_uid_is_taken(folder: Folder) -> None:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append([SLICES[2], bytes(SLICES[2]), other_header(SLICES[2])])

    assert [len(part) for part in (result.new, result.same, result.conflict)] == [1, 1, 1]
    assert folder.stored()[UIDS[2]] == SLICES[2]


def test_source_that_is_named_twice_is_taken_once(series: Series) -> None:
    result = series.append([CT[2], NewFile(CT[2])])

    assert [len(part) for part in (result.new, result.same, result.conflict, result.errors)] == [1, 0, 0, 0]


def test_refused_files_have_their_reason_and_keep_nobody_back(folder: Folder, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("no DICOM")
    offered: list[str | Path] = [
        note,
        tmp_path / "absent",
        P10 / "no_meta.dcm",
        P10 / "MR_small.dcm",
        "http://host/a.dcm",
        CT[2],
    ]

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append(offered)

    reasons = {error.source.rsplit("/", 1)[1]: error.reason for error in result.errors}
    assert "not a DICOM file" in reasons["note.txt"]
    assert "No such file" in reasons["absent"]
    assert "no DICM" in reasons["no_meta.dcm"]
    assert "belongs to another study" in reasons["MR_small.dcm"]
    assert "no address that can be read" in reasons["a.dcm"]
    assert [note.instance_uid for note in result.new] == [UIDS[2]]
    assert folder.is_whole(dict(zip(UIDS[:3], SLICES[:3], strict=True)))


def test_folders_and_archives_are_taken_file_by_file(folder: Folder, tmp_path: Path) -> None:
    scans = tmp_path / "scans" / "deep"
    scans.mkdir(parents=True)
    (scans / "three").write_bytes(SLICES[2])
    with zipfile.ZipFile(tmp_path / "scans" / "rest.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("four.dcm", SLICES[3])

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        assert len(series.append([tmp_path / "scans"]).new) == 2

    assert folder.is_whole(dict(zip(UIDS[:4], SLICES[:4], strict=True)))
    assert [entry["original_path"] for entry in folder.entries().values()][2:] == ["deep/three", "rest.zip/four.dcm"]


def test_file_that_changes_before_the_commit_leaves_the_series_as_it_was(folder: Folder, tmp_path: Path) -> None:
    before = folder.everything()
    moving = tmp_path / "moving.dcm"
    moving.write_bytes(SLICES[2])

    with pytest.raises(InstanceUnreadable):
        with open_series(folder.root, STUDY, SERIES, mode="a") as series:
            series.append([moving])
            moving.write_bytes(SLICES[3])

    assert folder.everything() == before


def test_known_bytes_are_not_fetched(series: Series) -> None:
    result = series.append([NewFile(NOWHERE, hints=hints(0))])

    assert [note.instance_uid for note in result.same] == UIDS[:1]


def test_known_uid_with_another_checksum_is_a_conflict_without_fetching(folder: Folder) -> None:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        for _ in range(2):
            result = series.append([NewFile(NOWHERE, hints=hints(0, crc32c=checksum(b"other")))])

    assert len(result.conflict) == 1
    assert folder.entries()[UIDS[0]]["diff_hash_dupe_paths"] == [NOWHERE]


def test_conflict_is_noted_under_the_origin_that_is_to_be_kept(folder: Folder) -> None:
    other = NewFile(NOWHERE, hints=hints(0, crc32c=checksum(b"other")), original_path="s3://somewhere/else")
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        series.append([other])

    assert folder.entries()[UIDS[0]]["diff_hash_dupe_paths"] == ["s3://somewhere/else"]


@pytest.fixture
def unproven(folder: Folder) -> Folder:
    """metadata.json without checksums, as old versions wrote it."""
    document = folder.document()
    for entry in document["cod"]["instances"].values():
        del entry["crc32c"]
    folder.metadata.write_bytes(gzip.compress(json.dumps(document).encode()))
    return folder


def test_bytes_tell_same_and_conflict_apart_where_no_checksum_is_stored(unproven: Folder) -> None:
    known = NewFile(CT[0], hints=hints(0))
    with open_series(unproven.root, STUDY, SERIES, mode="a") as series:
        result = series.append([CT[1], known, other_header(SLICES[0])])

    assert [note.instance_uid for note in result.same] == [UIDS[1], UIDS[0]]
    assert [note.instance_uid for note in result.conflict] == [UIDS[0]]


def test_hints_alone_are_no_conflict_where_no_checksum_is_stored(unproven: Folder) -> None:
    with open_series(unproven.root, STUDY, SERIES, mode="a") as series:
        result = series.append([NewFile("s3://", hints=hints(0))])

    assert (result.same, result.conflict, len(result.errors)) == ((), (), 1)


def test_same_pixels_under_another_palette_are_a_conflict(folder: Folder) -> None:
    def colored(level: int) -> bytes:
        return changed(
            SLICES[0],
            PhotometricInterpretation="PALETTE COLOR",
            RedPaletteColorLookupTableData=bytes([level, 0] * 256),
        )

    with open_series(folder.root, STUDY, SERIES, mode="w") as series:
        result = series.append([colored(1), colored(2)], treat_same_pixels_as_same=True)

    assert len(result.conflict) == 1


def test_local_paths_are_not_noted_as_conflicts(folder: Folder, tmp_path: Path) -> None:
    """Nobody else could follow them; the published library does the same."""
    (tmp_path / "other").write_bytes(other_header(SLICES[0]))

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        assert len(series.append([tmp_path / "other"]).conflict) == 1

    assert folder.entries()[UIDS[0]]["diff_hash_dupe_paths"] == []


def test_conflict_with_an_instance_that_is_new_itself_is_noted_too(folder: Folder) -> None:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        series.append([CT[2]])
        series.append([NewFile(NOWHERE, hints=hints(2, crc32c=1))])

    assert folder.entries()[UIDS[2]]["diff_hash_dupe_paths"] == [NOWHERE]


def test_checksum_may_be_a_number(series: Series) -> None:
    assert len(series.append([NewFile(NOWHERE, hints=hints(0, crc32c=google_crc32c.value(SLICES[0])))]).same) == 1


@pytest.mark.parametrize("crc32c", ["", "AAAA", "not base64!", "4jvPnQ", 1 << 32, -1])
def test_checksum_that_is_none_is_refused_when_the_hint_is_made(crc32c: str | int) -> None:
    with pytest.raises(ValueError, match="no CRC-32C"):
        Hints(crc32c=crc32c)


@pytest.mark.parametrize(
    "wrong",
    [{"size": 1}, {"crc32c": 1}, {"instance_uid": "1.2.3"}, {"series_uid": STUDY}, {"study_uid": SERIES}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_hint_refuses_the_file(series: Series, wrong: dict[str, object]) -> None:
    result = series.append([NewFile(CT[2], hints=hints(2, **wrong))])

    assert len(result.errors) == 1
    assert "the hint" in result.errors[0].reason or "belongs to another" in result.errors[0].reason
    assert not (result.new or result.same or result.conflict)


def test_right_hints_of_a_new_file_let_it_in(series: Series) -> None:
    result = series.append([NewFile(CT[2], hints=hints(2, series_uid=SERIES, study_uid=STUDY))])

    assert len(result.new) == 1


def test_hints_are_of_one_file(series: Series) -> None:
    result = series.append([NewFile(P10, hints=Hints(study_uid=STUDY))])

    assert [error.reason for error in result.errors if "more than one file" in error.reason]
    assert not result.new


def test_file_of_a_transcoded_instance_is_same(folder: Folder) -> None:
    """metadata.json remembers what an instance was before it was transcoded."""
    original = other_header(SLICES[0])
    document = folder.document()
    fields = {"size": len(original), "crc32c": checksum(original), "transfer_syntax_uid": "1.2.840.10008.1.2.1"}
    folder.rewrite(document | {"codweb_originals": {UIDS[0]: fields, UIDS[1]: fields}})

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        result = series.append([original, NewFile(NOWHERE, hints=hints(0))])
        series.remove(UIDS[1:2])

    assert [len(part) for part in (result.same, result.conflict, result.errors)] == [2, 0, 0]
    assert folder.document()["codweb_originals"] == {UIDS[0]: fields}


def test_instance_larger_than_allowed_is_an_error(series: Series) -> None:
    size = len(SLICES[2])

    assert "max_instance_bytes" in series.append([CT[2]], max_instance_bytes=size - 1).errors[0].reason
    assert len(series.append([CT[2]], max_instance_bytes=size).new) == 1


def test_instance_that_a_hint_calls_too_large_is_not_fetched(series: Series) -> None:
    result = series.append([NewFile(NOWHERE, hints=Hints(size=20 * 10**9))])

    assert "max_instance_bytes" in result.errors[0].reason


def test_series_larger_than_allowed_takes_nothing_of_the_call(folder: Folder) -> None:
    size = sum(map(len, SLICES))

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[2:3])
        with pytest.raises(ValueError, match="max_series_bytes"):
            series.append(CT[3:], max_series_bytes=size - 1)

    assert folder.is_whole(dict(zip(UIDS[:3], SLICES[:3], strict=True)))


def test_bytes_may_say_where_they_came_from(folder: Folder) -> None:
    file = NewFile(SLICES[2], original_path="scanner 7", dependencies=["gs://raw/a"])

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        series.append([file])

    entry = folder.entries()[UIDS[2]]
    assert (entry["original_path"], entry["dependencies"]) == ("scanner 7", ["gs://raw/a"])


def test_one_path_instead_of_a_list_is_told_apart(series: Series) -> None:
    with pytest.raises(TypeError, match="list"):
        series.append(str(CT[2]))
    with pytest.raises(TypeError, match="list"):
        series.remove(UIDS[0])
    with pytest.raises(TypeError, match="list"):
        NewFile(CT[2], dependencies="gs://raw/a")


def test_metadata_json_is_what_the_format_asks_for(folder: Folder) -> None:
    document = json.loads(gzip.decompress(folder.metadata.read_bytes()))

    assert set(document["cod"]["instances"][UIDS[0]]) == {
        "instance_uid", "series_uid", "study_uid", "has_pixeldata", "metadata", "uri", "headers", "offset_tables",
        "crc32c", "size", "original_path", "dependencies", "diff_hash_dupe_paths", "version", "modified_datetime",
    }  # fmt: skip
