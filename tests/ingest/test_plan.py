"""What an ingest takes, what it refuses, and in which order it stores."""

import math
import os
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pytest

from storage.bucket.memory import MemoryBucket
from storage.ingest import Outcome, ingest
from storage.ingest.pool import MIN_POOL_FILES
from tests.ingest.reading import CT, NAMES, P10, REFUSED, entries_of, everything, key_of, made
from tests.support.buckets import RecordingBucket


async def test_whole_fixture_folder_is_sorted_into_same_conflict_and_refused(
    tmp_path: Path, manifest: dict[str, Any]
) -> None:
    shutil.copy(P10 / "syn_ct_1.dcm", tmp_path / "again")
    bucket = MemoryBucket()

    report = await ingest([P10, tmp_path], bucket)

    first: dict[tuple[str, str, str], str] = {}
    conflicts = []
    for name in NAMES:
        oracle = manifest["p10"][name]
        if name in REFUSED:
            continue
        if first.setdefault((oracle["study"], oracle["series"], oracle["sop"]), name) != name:
            conflicts.append(name)
    assert sorted(Path(note.path).name for note in report.conflict) == sorted(conflicts)
    assert [Path(note.path).name for note in report.same] == ["again"]
    assert {Path(note.path).name for note in report.new} == set(first.values())
    assert {Path(item.path).name for item in report.refused} == set(REFUSED)
    assert all(REFUSED[Path(item.path).name] in item.reason for item in report.refused)
    assert all(note.outcome is Outcome.STORED for note in report.series)
    assert not report.is_clean


async def test_odd_files_are_refused_and_never_fatal(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty").touch()
    (tmp_path / "only-a-prefix").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "cut").write_bytes(CT[0].read_bytes()[:400])
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "deep" / "circle").symlink_to(tmp_path)
    shutil.copy(CT[1], tmp_path / "deep" / ".hidden" / ".slice")

    report = await ingest([tmp_path, tmp_path / "absent"], bucket := MemoryBucket())

    assert [Path(note.path).name for note in report.new] == [".slice"]
    assert {Path(item.path).name for item in report.refused} == {
        "notes.txt", "empty", "only-a-prefix", "cut", "fifo", "dangling", "absent",
    }  # fmt: skip
    ((_, entry),) = entries_of(await everything(bucket), key_of(report)).items()
    assert entry["original_path"] == "deep/.hidden/.slice"


async def stored_order(folder: Path) -> list[str]:
    bucket = MemoryBucket()
    report = await ingest([folder], bucket)
    return [uid.rsplit(".", 1)[1] for uid in entries_of(await everything(bucket), key_of(report))]


async def test_series_is_stored_along_its_slice_normal(tmp_path: Path) -> None:
    tilt = math.radians(30)
    orientation = [1, 0, 0, 0, round(math.cos(tilt), 6), round(math.sin(tilt), 6)]
    for number, height in enumerate([5.0, -2.5, 40.0, 0.0]):
        made(
            tmp_path / str(number), f"1.2.3.{number}", InstanceNumber=number,
            ImageOrientationPatient=orientation, ImagePositionPatient=[7, 3, height],
        )  # fmt: skip

    assert await stored_order(tmp_path) == ["1", "3", "0", "2"]


async def test_series_without_one_stack_is_stored_by_instance_number_then_uid(tmp_path: Path) -> None:
    made(tmp_path / "a", "1.2.3.1", InstanceNumber=10, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
         ImagePositionPatient=[0, 0, 0])  # fmt: skip
    made(tmp_path / "b", "1.2.3.2", InstanceNumber=9)
    made(tmp_path / "c", "1.2.3.4")
    made(tmp_path / "d", "1.2.3.3", InstanceNumber=None)

    assert await stored_order(tmp_path) == ["2", "1", "3", "4"]


@pytest.mark.parametrize("position", ["1e400\\0\\0", "x\\y\\z", "1\\2", "nan\\0\\0", "9" * 300])
async def test_hostile_position_does_not_disturb_the_order(tmp_path: Path, position: str) -> None:
    for number in (2, 1):
        path = made(tmp_path / str(number), f"1.2.3.{number}", InstanceNumber=number,
                    ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[number, 0, 0])  # fmt: skip
        data = path.read_bytes()
        value = position.encode() + b" " * (len(position) % 2)
        at = data.index(b"\x20\x00\x32\x00DS")
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        path.write_bytes(data[: at + 6] + len(value).to_bytes(2, "little") + value + data[at + 8 + length :])

    assert await stored_order(tmp_path) == ["1", "2"]


async def test_unusable_uids_are_refused_with_their_reason(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made(tmp_path / "slash", "../../etc/passwd")
        made(tmp_path / "dots", "1.2.3.4", StudyInstanceUID="..")
        made(tmp_path / "short", "1.2.3.5", SeriesInstanceUID="1.2")

    report = await ingest([tmp_path], bucket := MemoryBucket())

    assert {Path(item.path).name: item.reason.split(":")[0] for item in report.refused} == {
        "slash": "SOP Instance UID cannot be part of an object's name",
        "dots": "Study Instance UID cannot be part of an object's name",
        "short": "study or series UID shorter than the 10 characters COD asks for",
    }
    assert await everything(bucket) == {}


async def test_a_dicomdir_is_told_by_its_file_meta_information(tmp_path: Path) -> None:
    """It has no SOP Class UID in its data set (PS3.3 section F.3.2.2), only in group 0002, and no study either."""
    data = made(tmp_path / "DICOMDIR", "1.2.3.1", SOPClassUID="1.2.840.10008.1.3.10").read_bytes()
    head, _, _ = data.partition(b"\x08\x00\x16\x00UI")
    (tmp_path / "DICOMDIR").write_bytes(head + b"\x04\x00\x30\x11CS\x04\x00DISC")

    report = await ingest([tmp_path], MemoryBucket())

    assert [item.reason.split(":")[0] for item in (*report.skipped, *report.refused)] == ["a DICOMDIR"]


async def test_many_files_are_read_by_processes_with_the_same_result(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    template = made(tmp_path / "template", "1.2.3.4444", InstanceNumber=7777).read_bytes()
    for number in range(1000, 1000 + MIN_POOL_FILES):
        data = template.replace(b"1.2.3.4444", b"1.2.3.%d" % number).replace(b"7777", b"%d" % (9000 - number))
        (tmp_path / "in" / str(number)).write_bytes(data)

    assert await stored_order(tmp_path / "in") == [
        str(number) for number in reversed(range(1000, 1000 + MIN_POOL_FILES))
    ]


async def test_a_file_that_is_named_twice_is_one_file() -> None:
    report = await ingest([CT[0].parent, *CT, CT[0]], MemoryBucket(), dry_run=True)

    found = [note.path for note in (*report.new, *report.same, *report.conflict)]
    assert len(found) == len(set(found)) == len(NAMES) - len(REFUSED)


async def test_dry_run_says_what_would_be_stored_and_writes_nothing() -> None:
    bucket = RecordingBucket(MemoryBucket())

    report = await ingest(CT, bucket, dry_run=True)

    assert [note.outcome for note in report.series] == [Outcome.PLANNED]
    assert len(report.new) == 6
    assert {request.verb for request in bucket.requests} <= {"head", "read"}


async def test_dry_run_tells_new_same_and_conflict_as_the_ingest_then_does(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(CT[1].read_bytes() + b"\0\0")
    bucket = MemoryBucket()
    await ingest(CT[:2], bucket)

    planned = await ingest([*CT[:3], other], bucket, dry_run=True)
    done = await ingest([*CT[:3], other], bucket)

    assert [note.outcome for note in planned.series] == [Outcome.PLANNED]
    assert [note.outcome for note in done.series] == [Outcome.APPENDED]
    for report in (planned, done):
        assert [note.path for note in report.new] == [str(CT[2])]
        assert sorted(note.path for note in report.same) == [str(path) for path in CT[:2]]
        assert [note.path for note in report.conflict] == [str(other)]


async def test_files_of_one_series_are_gathered_wherever_they_lie(tmp_path: Path) -> None:
    """Two folders and an archive."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    shutil.copy(CT[0], tmp_path / "a")
    shutil.copy(CT[1], tmp_path / "b")
    with tarfile.open(tmp_path / "rest.tar", "w") as archive:
        for path in CT[2:]:
            archive.add(path, path.name)

    report = await ingest([tmp_path / "a", tmp_path / "b", str(tmp_path / "rest.tar")], bucket := MemoryBucket())

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    entries = entries_of(await everything(bucket), key_of(report))
    assert {entry["original_path"] for entry in entries.values()} == {
        "syn_ct_1.dcm", "syn_ct_2.dcm", *(f"rest.tar/{path.name}" for path in CT[2:]),
    }  # fmt: skip
