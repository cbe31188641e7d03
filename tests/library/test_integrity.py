"""`check` finds every way in which tar and metadata.json can disagree."""

import asyncio
import base64
import io
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest

from storage import open_series
from storage.bucket import open_bucket
from storage.checking.findings import Kind
from storage.errors import InstanceUnreadable
from storage.keys import SeriesKey
from storage.library import integrity
from storage.writing import read_stored
from tests.conftest import DATA, STORE_NAMES
from tests.ingest.reading import CT
from tests.library.reading import SERIES, STUDY, Folder, checksum


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A series of three slices."""
    folder = Folder(tmp_path / "store")
    with open_series(folder.root, STUDY, SERIES, mode="w") as series:
        series.append(CT[:3])
    return folder


def kinds(folder: Folder) -> list[tuple[Kind, str | None]]:
    with open_series(folder.root, STUDY, SERIES) as series:
        return [(finding.kind, finding.instance_uid) for finding in series.check()]


def order(folder: Folder) -> list[str]:
    """Instance UIDs as they follow in the tar."""
    entries = folder.entries()
    return sorted(entries, key=lambda uid: entries[uid]["headers"]["start_byte"])


def start(folder: Folder, uid: str) -> int:
    found: int = folder.entries()[uid]["headers"]["start_byte"]
    return found


def patch(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def test_whole_series_has_no_findings(folder: Folder) -> None:
    assert kinds(folder) == []


def test_flipped_byte_is_a_wrong_checksum_and_is_never_returned(folder: Folder) -> None:
    uid = order(folder)[1]
    patch(folder.tar, start(folder, uid) + 2000, b"\xff\x00\xff")

    assert kinds(folder) == [(Kind.WRONG_CHECKSUM, uid)]
    with open_series(folder.root, STUDY, SERIES) as series, pytest.raises(InstanceUnreadable):
        series.read(uid)


def test_member_that_metadata_does_not_know_is_an_orphan(folder: Folder) -> None:
    with tarfile.open(folder.tar, "a") as tar:
        info = tarfile.TarInfo("instances/1.2.3.dcm")
        info.size = 10
        tar.addfile(info, io.BytesIO(b"0123456789"))

    assert kinds(folder) == [(Kind.ORPHAN_MEMBER, None)]


def test_instance_behind_a_gap_is_hidden_and_its_checksum_is_proven_all_the_same(folder: Folder) -> None:
    uid = order(folder)[-1]
    member = start(folder, uid) - 1536
    tar = folder.tar.read_bytes()
    folder.tar.write_bytes(tar[:member] + bytes(10240) + tar[member:])
    document = folder.document()
    headers = document["cod"]["instances"][uid]["headers"]
    headers |= {"start_byte": headers["start_byte"] + 10240, "end_byte": headers["end_byte"] + 10240}
    folder.rewrite(document)

    assert kinds(folder) == [(Kind.HIDDEN_MEMBER, uid)]


def test_entry_that_points_at_its_neighbour_is_torn(folder: Folder) -> None:
    first, second, _ = order(folder)
    document = folder.document()
    entries = document["cod"]["instances"]
    entries[first]["headers"], entries[second]["headers"] = entries[second]["headers"], entries[first]["headers"]
    folder.rewrite(document)

    found = kinds(folder)

    assert {(Kind.TORN, first), (Kind.TORN, second), (Kind.WRONG_CHECKSUM, first)} <= set(found)


def test_tar_that_is_cut_off_is_noticed(folder: Folder) -> None:
    uid = order(folder)[-1]
    with folder.tar.open("r+b") as file:
        file.truncate(start(folder, uid) + 100)

    assert (Kind.UNREADABLE_INSTANCE, uid) in kinds(folder)


async def test_failure_of_the_look_at_a_tar_is_told_and_waits_for_nobody(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> NoReturn:
        raise ValueError("unforeseen")

    monkeypatch.setattr(integrity, "CHUNK_BYTES", 512)
    monkeypatch.setattr(integrity, "read_members", fails)
    bucket = open_bucket(folder.root)
    stored = await read_stored(bucket, SeriesKey(STUDY, SERIES))

    with pytest.raises(ValueError, match="unforeseen"):
        await asyncio.wait_for(integrity.check_integrity(bucket, stored), 5)


def test_missing_tar_is_noticed(folder: Folder) -> None:
    folder.tar.unlink()

    assert kinds(folder) == [(Kind.MISSING_TAR, None)]


def test_overlapping_entries_are_noticed(folder: Folder) -> None:
    first, second, _ = order(folder)
    document = folder.document()
    entry = document["cod"]["instances"][second]
    entry["headers"]["start_byte"] = start(folder, first) + 8
    entry["crc32c"] = checksum(b"")
    folder.rewrite(document)

    assert (Kind.WRONG_CHECKSUM, second) in kinds(folder)


@pytest.mark.parametrize("store", STORE_NAMES)
def test_fixture_stores_are_judged_as_tarfile_and_their_checksums_judge_them(store: str) -> None:
    """Every store that the published library wrote, damaged ones among them."""
    root = DATA / "cod" / store / "dicomweb"
    for tar in sorted(root.glob("studies/*/series/*.tar")):
        study, series_uid = tar.parts[-3], tar.stem
        folder = Folder(root, study, series_uid)
        if not folder.metadata.exists():
            continue

        with open_series(root, study, series_uid, hashed_uids=store == "deid") as series:
            is_sound = series.check() == ()
            instances = {instance.uid: instance.crc32c for instance in series.instances}
            for instance in series.instances if is_sound else ():
                assert instance.transfer_syntax_uid == series.dataset(instance.uid).file_meta.TransferSyntaxUID

        with tarfile.open(tar) as archive:
            listed = {
                member.name.removeprefix("instances/").removesuffix(".dcm"): archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
            }
        sums = {uid: int.from_bytes(base64.b64decode(checksum(data))) for uid, data in listed.items()}
        assert is_sound == (sums == instances), tar
