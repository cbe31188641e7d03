"""A repeated ingest opens no file that it knows, and believes only what metadata.json says today."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.bucket.memory import MemoryBucket
from storage.ingest import Ledger, Outcome, ingest
from tests.ingest.reading import CT, entries_of, everything, key_of
from tests.support.buckets import RecordingBucket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six slices, and a file that is none."""
    (tmp_path / "in").mkdir()
    for path in CT:
        shutil.copy(path, tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    return tmp_path / "in"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ingest.sqlite") as ledger:
        yield ledger


async def test_finished_run_repeated_reads_one_metadata_per_series_and_no_source(
    folder: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints come from `stat`; what is left of reading is finding out which files are archives, 512 bytes of each."""
    bucket = RecordingBucket(MemoryBucket())
    first = await ingest([folder], bucket, ledger=ledger)
    bucket.reset()
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, start: read.append(size) or pread(file, size, start))

    report = await ingest([folder], bucket, ledger=ledger)

    key = key_of(first)
    assert report.bytes_read == 0
    assert sum(read) <= 600 * (len(CT) + 1)
    assert [(request.verb, request.key) for request in bucket.requests if request.verb != "head"] == [
        ("read", key.metadata)
    ]
    assert [note.outcome for note in report.series] == [Outcome.UNCHANGED]
    assert report.series[0].same == len(report.same) == 6
    assert {item.reason for item in report.refused} == {item.reason for item in first.refused}


async def test_changed_file_is_read_again(folder: Path, ledger: Ledger) -> None:
    bucket = MemoryBucket()
    await ingest([folder], bucket, ledger=ledger)
    shutil.copy(CT[0], folder / "notes.txt")
    with (folder / CT[1].name).open("ab") as file:
        file.write(b"\0\0")

    report = await ingest([folder], bucket, ledger=ledger)

    assert report.refused == []
    assert [Path(note.path).name for note in report.conflict] == [CT[1].name]
    assert "notes.txt" in [Path(note.path).name for note in report.same]
    assert report.bytes_read == (folder / "notes.txt").stat().st_size + (folder / CT[1].name).stat().st_size


async def test_conflict_that_is_noted_is_known_without_reading(folder: Path, ledger: Ledger) -> None:
    bucket = RecordingBucket(MemoryBucket())
    with (folder / "other").open("wb") as file:
        file.write(CT[0].read_bytes() + b"\0\0")
    await ingest(CT[:1], bucket)
    await ingest([folder], bucket, ledger=ledger)
    bucket.reset()

    report = await ingest([folder], bucket, ledger=ledger)

    assert [Path(note.path).name for note in report.conflict] == ["other"]
    assert report.series[0].conflict == 1
    assert (report.bytes_read, bucket.bytes_sent()) == (0, 0)


async def test_what_is_no_longer_stored_is_stored_again(folder: Path, ledger: Ledger) -> None:
    """The ledger is a hint: the datastore was emptied behind its back."""
    await ingest([folder], MemoryBucket(), ledger=ledger)

    report = await ingest([folder], bucket := MemoryBucket(), ledger=ledger)

    assert len(report.new) == 6
    assert len(entries_of(await everything(bucket), key_of(report))) == 6


async def test_interrupted_run_goes_on_with_what_is_missing(folder: Path, ledger: Ledger) -> None:
    bucket = MemoryBucket()
    await ingest([folder / path.name for path in CT[:3]], bucket, ledger=ledger)

    report = await ingest([folder / path.name for path in CT], bucket, ledger=ledger)

    assert (len(report.new), len(report.same)) == (3, 3)
    assert report.bytes_read == sum(path.stat().st_size for path in CT[3:])


async def test_ledger_that_is_not_believed_is_filled_and_nothing_more(folder: Path, tmp_path: Path) -> None:
    bucket = MemoryBucket()
    with Ledger(tmp_path / "other.sqlite", is_believed=False) as unbelieved:
        await ingest([folder], bucket, ledger=unbelieved)
        reread = await ingest([folder], bucket, ledger=unbelieved)
    with Ledger(tmp_path / "other.sqlite") as ledger:
        report = await ingest([folder], bucket, ledger=ledger)

    assert reread.bytes_read > 0
    assert report.bytes_read == 0
    assert len(reread.same) == len(report.same) == 6


@pytest.mark.parametrize("damage", [b"no database", b"", None])
async def test_damaged_ledger_costs_time_and_nothing_else(damage: bytes | None, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.sqlite"
    if damage is None:
        path.mkdir()  # cannot be opened nor made anew
    else:
        path.write_bytes(damage)
    bucket = MemoryBucket()

    for _ in range(2):
        with Ledger(path) as ledger:
            report = await ingest([folder], bucket, ledger=ledger)

    assert len(report.same) == 6
    assert (report.bytes_read == 0) == (damage is not None)


async def test_source_that_could_not_be_opened_is_not_remembered(folder: Path, ledger: Ledger) -> None:
    """A failure to read says nothing about the file."""
    target = folder / CT[0].name
    bucket = MemoryBucket()
    os.truncate(target, 0)
    stamp = target.stat()
    target.unlink()
    target.symlink_to(folder / "nowhere")

    first = await ingest([folder], bucket, ledger=ledger)
    target.unlink()
    shutil.copy(CT[0], target)
    os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = await ingest([folder], bucket, ledger=ledger)

    assert len(first.new) == 5
    assert len(second.new) == 1
