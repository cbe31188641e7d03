"""Dependencies go only when it is proven that nothing is lost with them."""

from pathlib import Path

import pytest

from storage import Fate, NewFile, open_series
from storage.library import DependencyReport
from tests.ingest.reading import CT
from tests.library.reading import SERIES, SLICES, STUDY, UIDS, Folder, checksum, other_header


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of raw files."""
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def stored(tmp_path: Path, *files: NewFile) -> Folder:
    folder = Folder(tmp_path / "store")
    with open_series(folder.root, STUDY, SERIES, mode="w") as series:
        assert len(series.append(files).new) == len(files)
    return folder


def deleted(folder: Folder) -> DependencyReport:
    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        return series.delete_dependencies(dry_run=False)


def test_dry_run_is_the_default_and_deletes_nothing(tmp_path: Path, raw: Path) -> None:
    path = raw / "one.dcm"
    path.write_bytes(SLICES[0])
    folder = stored(tmp_path, NewFile(path, dependencies=[str(path)]))

    with open_series(folder.root, STUDY, SERIES) as series:
        assert series.dependencies == [str(path)]
        report = series.delete_dependencies()

    assert report.is_dry_run
    assert report.of(Fate.DELETABLE) == (str(path),)
    assert path.read_bytes() == SLICES[0]


def test_file_whose_bytes_are_stored_is_deleted(tmp_path: Path, raw: Path) -> None:
    path = raw / "one.dcm"
    path.write_bytes(SLICES[0])
    folder = stored(tmp_path, NewFile(path, dependencies=[str(path)]))

    first, again = deleted(folder), deleted(folder)

    assert (first.of(Fate.DELETED), again.of(Fate.ABSENT)) == ((str(path),), (str(path),))
    assert not path.exists()
    assert folder.is_whole({UIDS[0]: SLICES[0]})


def test_file_with_other_bytes_stays(tmp_path: Path, raw: Path) -> None:
    path = raw / "one.dcm"
    path.write_bytes(other_header(SLICES[0]))
    folder = stored(tmp_path, NewFile(SLICES[0], dependencies=[path.as_uri()]))

    [dependency] = deleted(folder).dependencies

    assert (dependency.fate, dependency.instance_uids) == (Fate.KEPT, (UIDS[0],))
    assert "other bytes" in dependency.reason
    assert path.exists()


def test_file_that_two_instances_need_stays_unless_it_is_both(tmp_path: Path, raw: Path) -> None:
    path = raw / "one.dcm"
    path.write_bytes(SLICES[0])
    files = [NewFile(data, dependencies=[str(path)]) for data in SLICES[:2]]

    [dependency] = deleted(stored(tmp_path, *files)).dependencies

    assert (dependency.fate, len(dependency.instance_uids)) == (Fate.KEPT, 2)
    assert path.exists()


def test_original_of_a_transcoded_instance_is_deleted(tmp_path: Path, raw: Path) -> None:
    path = raw / "original.dcm"
    original = other_header(SLICES[0])
    path.write_bytes(original)
    folder = stored(tmp_path, NewFile(SLICES[0], dependencies=[str(path)]))
    fields = {"size": len(original), "crc32c": checksum(original), "transfer_syntax_uid": "1.2.840.10008.1.2.1"}
    folder.rewrite(folder.document() | {"codweb_originals": {UIDS[0]: fields}})

    assert deleted(folder).of(Fate.DELETED) == (str(path),)
    assert not path.exists()


def test_nothing_is_deleted_from_beside_a_damaged_series(tmp_path: Path, raw: Path) -> None:
    path = raw / "one.dcm"
    path.write_bytes(SLICES[0])
    folder = stored(tmp_path, NewFile(path, dependencies=[str(path)]), NewFile(CT[1]))
    damaged = folder.entries()[UIDS[1]]["headers"]["start_byte"] + 500
    data = bytearray(folder.tar.read_bytes())
    data[damaged] ^= 0xFF
    folder.tar.write_bytes(data)

    report = deleted(folder)

    assert report.findings
    assert report.of(Fate.KEPT) == (str(path),)
    assert path.exists()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("gs://raw/scans.zip://one.dcm", "archive"),
        ("/raw/scans.tar://one.dcm", "archive"),
        ("https://host/one.dcm", "no address"),
        ("one.dcm", "relative"),
        ("gs://raw", "names no object"),
    ],
)
def test_what_cannot_be_deleted_safely_is_only_reported(tmp_path: Path, uri: str, reason: str) -> None:
    [dependency] = deleted(stored(tmp_path, NewFile(SLICES[0], dependencies=[uri]))).dependencies

    assert dependency.fate is Fate.KEPT
    assert reason in dependency.reason


def test_link_stays_for_only_the_link_would_go(tmp_path: Path, raw: Path) -> None:
    (raw / "one.dcm").write_bytes(SLICES[0])
    (raw / "link.dcm").symlink_to(raw / "one.dcm")

    [dependency] = deleted(stored(tmp_path, NewFile(SLICES[0], dependencies=[str(raw / "link.dcm")]))).dependencies

    assert dependency.fate is Fate.KEPT
    assert (raw / "link.dcm").exists()


def test_changes_that_wait_for_a_commit_come_first(tmp_path: Path) -> None:
    folder = stored(tmp_path, NewFile(SLICES[0]))

    with open_series(folder.root, STUDY, SERIES, mode="a") as series:
        series.append(CT[1:2])
        with pytest.raises(ValueError, match="commit first"):
            series.delete_dependencies(dry_run=False)
