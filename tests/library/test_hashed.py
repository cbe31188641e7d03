"""Stores of hashed UIDs: everything is named by the hashes, and the bytes stay as they are."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from pydicom.uid import UID, generate_uid

from storage import Hints, NewFile, open_series
from tests.ingest.reading import CT, P10, read_quietly
from tests.library.reading import SERIES, SLICES, STUDY, UIDS, Folder, checksum


def hashed(uid: str) -> str:
    """As stores with 64 hexadecimal digits have it."""
    return hashlib.sha256(uid.encode()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A hashed series of two slices."""
    folder = Folder(tmp_path / "store", hashed(STUDY), hashed(SERIES))
    append(folder, CT[:2])
    return folder


def append(folder: Folder, files: list[Path], uid_hash_func: Callable[[str], str] = hashed) -> list[str]:
    with open_series(
        folder.root, hashed(STUDY), hashed(SERIES), mode="a", hashed_uids=True, uid_hash_func=uid_hash_func
    ) as series:
        return [error.reason for error in series.append(files).errors]


def test_keys_are_hashes_and_bytes_are_as_they_were(folder: Folder) -> None:
    append(folder, CT)

    assert folder.is_whole({hashed(uid): data for uid, data in zip(UIDS, SLICES, strict=True)})
    document = folder.document()
    assert (document["deid_study_uid"], document["deid_series_uid"]) == (hashed(STUDY), hashed(SERIES))
    assert "study_uid" not in document


def test_entries_state_the_uids_of_the_bytes_and_a_hashed_address(folder: Folder) -> None:
    entry = folder.entries()[hashed(UIDS[0])]

    assert (entry["study_uid"], entry["series_uid"], entry["instance_uid"]) == (STUDY, SERIES, UIDS[0])
    assert entry["uri"].endswith(
        f"/studies/{hashed(STUDY)}/series/{hashed(SERIES)}.tar://instances/{hashed(UIDS[0])}.dcm"
    )


def test_bulk_data_names_the_hashed_address(tmp_path: Path) -> None:
    path = P10 / "syn_bulk_elements.dcm"
    dataset = read_quietly(path)
    study, series = hashed(dataset.StudyInstanceUID), hashed(dataset.SeriesInstanceUID)
    folder = Folder(tmp_path / "store", study, series)

    with open_series(folder.root, study, series, mode="w", hashed_uids=True, uid_hash_func=hashed) as opened:
        opened.append([path])

    [entry] = folder.entries().values()
    attributes = zstandard.decompress(base64.b64decode(entry["metadata"]))
    links = {element["BulkDataURI"]["uri"] for element in json.loads(attributes).values() if "BulkDataURI" in element}
    assert links == {entry["uri"]}
    assert dataset.SOPInstanceUID.encode() not in attributes.replace(b'["' + dataset.SOPInstanceUID.encode(), b"")


def test_hints_state_the_uids_of_the_file(folder: Folder) -> None:
    hints = Hints(crc32c=checksum(SLICES[0]), instance_uid=UIDS[0], series_uid=SERIES, study_uid=STUDY)

    with open_series(
        folder.root, hashed(STUDY), hashed(SERIES), mode="a", hashed_uids=True, uid_hash_func=hashed
    ) as series:
        result = series.append([NewFile("s3://no-such-bucket-anywhere/a", hints=hints)])

    assert [note.instance_uid for note in result.same] == [hashed(UIDS[0])]


def test_file_of_another_series_does_not_belong_by_its_hash(folder: Folder) -> None:
    assert "belongs to another" in append(folder, [P10 / "MR_small.dcm"])[0]


def test_other_hash_function_is_noticed(folder: Folder) -> None:
    reasons = append(folder, CT[2:3], uid_hash_func=lambda uid: hashlib.md5(uid.encode()).hexdigest())

    assert "belongs to another study" in reasons[0]


def test_hash_that_can_name_nothing_is_an_error(folder: Folder) -> None:
    reasons = append(folder, CT[2:3], uid_hash_func=lambda uid: "/" if uid == UIDS[2] else hashed(uid))

    assert "object's name" in reasons[0]


@pytest.mark.parametrize("mode", ["r", "w", "a"])
def test_opening_it_as_an_ordinary_store_is_refused(folder: Folder, mode: str) -> None:
    before = folder.everything()

    with pytest.raises(ValueError, match="hashed_uids=True"):
        with open_series(folder.root, hashed(STUDY), hashed(SERIES), mode=mode):  # type: ignore[arg-type]
            pass

    assert folder.everything() == before


def test_opening_an_ordinary_store_as_hashed_is_refused(tmp_path: Path) -> None:
    with open_series(tmp_path, STUDY, SERIES, mode="w") as series:
        series.append(CT[:1])

    with pytest.raises(ValueError, match="hashed_uids=False"), open_series(tmp_path, STUDY, SERIES, hashed_uids=True):
        pass


def test_reading_and_removing_need_no_hash_function(folder: Folder) -> None:
    with open_series(folder.root, hashed(STUDY), hashed(SERIES), mode="a", hashed_uids=True) as series:
        assert series.read(hashed(UIDS[0])) == SLICES[0]
        series.remove([hashed(UIDS[0])])
        with pytest.raises(ValueError, match="uid_hash_func"):
            series.append(CT)

    assert folder.is_whole({hashed(UIDS[1]): SLICES[1]})


def test_hash_function_without_hashed_uids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hashed_uids"):
        with open_series(tmp_path, STUDY, SERIES, mode="a", uid_hash_func=hashed):
            pass


def test_uids_of_pydicom_are_uids(tmp_path: Path) -> None:
    """`generate_uid` and attributes of data sets answer a class of their own."""
    study, series, first = (generate_uid(entropy_srcs=[uid]) for uid in (STUDY, SERIES, UIDS[0]))
    folder = Folder(tmp_path, study, series)

    with open_series(
        tmp_path, study, series, mode="a", hashed_uids=True, uid_hash_func=lambda uid: generate_uid(entropy_srcs=[uid])
    ) as opened:
        opened.append([NewFile(CT[0], hints=Hints(instance_uid=UID(UIDS[0]))), CT[1]])
        opened.commit()
        opened.remove([generate_uid(entropy_srcs=[UIDS[1]])])

    assert folder.is_whole({first: SLICES[0]})
