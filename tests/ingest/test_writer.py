"""Writing under the lock: whole series or none, whoever else writes, whatever breaks, and however sources move."""

import asyncio
import gzip
import io
import json
import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.bucket import Bucket, open_bucket
from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.errors import ObjectChanged, StorageUnavailable, TryAgain
from storage.ingest import Outcome, Report, ingest
from storage.ingest.candidate import Candidate, Candidates
from storage.ingest.describe import Description
from storage.keys import SeriesKey
from storage.writing import SeriesWriter
from tests.ingest.reading import (
    CT,
    entries_of,
    everything,
    key_of,
    made,
    read_quietly,
)
from tests.support.buckets import FailingBucket, RecordingBucket, Request, WrappedBucket


async def test_what_is_missing_is_appended_and_what_is_there_stays_where_it_is() -> None:
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:2], bucket))
    before = await everything(bucket)

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.APPENDED]
    assert (len(report.new), len(report.same), report.is_clean) == (4, 2, True)
    old, new = entries_of(before, key), entries_of(await everything(bucket), key)
    assert list(new)[:2] == list(old)
    assert all(new[uid] == entry for uid, entry in old.items())
    with tarfile.open(fileobj=io.BytesIO((await everything(bucket))[key.tar])) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    by_uid = {f"instances/{read_quietly(path).SOPInstanceUID}.dcm": path.read_bytes() for path in CT}
    assert members == by_uid


async def test_finished_run_repeated_writes_nothing_and_takes_no_lock() -> None:
    bucket = RecordingBucket(MemoryBucket())
    await ingest(CT, bucket)
    bucket.reset()

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.UNCHANGED]
    assert (len(report.same), report.new, report.is_clean) == (6, [], True)
    assert {request.verb for request in bucket.requests} == {"read", "head"}


async def test_conflict_keeps_what_is_stored_and_is_noted_once(tmp_path: Path) -> None:
    other = tmp_path / "other.dcm"
    other.write_bytes(CT[0].read_bytes() + b"\0\0")
    bucket = RecordingBucket(MemoryBucket())
    key = key_of(await ingest(CT[:1], bucket))
    tar = (await everything(bucket))[key.tar]

    report = await ingest([other], bucket)
    bucket.reset()
    again = await ingest([other], bucket)

    for each in (report, again):
        assert [note.outcome for note in each.series] == [Outcome.UNCHANGED]
        assert [note.path for note in each.conflict] == [str(other)]
        assert not each.is_clean
    objects = await everything(bucket.inner)
    ((_, entry),) = entries_of(objects, key).items()
    assert entry["diff_hash_dupe_paths"] == ["other.dcm"]
    assert objects[key.tar] == tar
    assert bucket.bytes_sent() == 0


async def test_of_two_new_files_of_one_instance_the_first_is_stored_and_the_other_noted(tmp_path: Path) -> None:
    for name, more in (("a", b""), ("b", b"\0\0"), ("c", b"")):
        (tmp_path / name).write_bytes(CT[0].read_bytes() + more)

    report = await ingest([tmp_path], bucket := MemoryBucket())

    names = [[Path(note.path).name for note in notes] for notes in (report.new, report.conflict, report.same)]
    assert names == [["a"], ["b"], ["c"]]
    ((_, entry),) = entries_of(await everything(bucket), key_of(report)).items()
    assert (entry["original_path"], entry["diff_hash_dupe_paths"]) == ("a", ["b"])


async def test_two_files_whose_names_cannot_be_printed_are_two_files(tmp_path: Path) -> None:
    for name, more in (("slice\1", b""), ("slice\2", b"\0\0")):
        (tmp_path / name).write_bytes(CT[0].read_bytes() + more)

    report = await ingest([tmp_path, tmp_path], MemoryBucket())

    assert (len(report.new), len(report.same), len(report.conflict)) == (1, 0, 1)
    assert not report.is_clean


async def test_many_copies_of_one_instance_are_looked_at_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        (tmp_path / f"{number}").write_bytes(CT[0].read_bytes())
    asked: list[int] = []
    description_of = Candidates.description_of

    def counted(self: Candidates, each: Candidate) -> Description:
        asked.append(each.number)
        return description_of(self, each)

    monkeypatch.setattr(Candidates, "description_of", counted)

    report = await ingest([tmp_path], MemoryBucket())

    assert (len(report.new), len(report.same)) == (1, 59)
    assert len(asked) < 4 * 60


async def test_what_a_late_upload_of_a_dead_writer_takes_away_is_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out when the lock is given back."""
    bucket = MemoryBucket()
    await ingest(CT[:2], bucket)
    before = await everything(bucket)
    leave = SeriesWriter.leave

    async def left_late(self: SeriesWriter) -> None:
        await leave(self)
        monkeypatch.setattr(SeriesWriter, "leave", leave)
        for key, data in before.items():
            await bucket.write(key, data)
        raise ObjectChanged("its tar is another one")

    monkeypatch.setattr(SeriesWriter, "leave", left_late)
    monkeypatch.setattr("storage.ingest.writer.FIRST_PAUSE_SECONDS", 0.0)

    report = await ingest(CT[:3], bucket)

    assert [(note.outcome, note.instances) for note in report.series] == [(Outcome.APPENDED, 1)]
    assert len(entries_of(await everything(bucket), key_of(report))) == 3


async def test_stored_instance_without_a_checksum_is_compared_by_its_bytes() -> None:
    """Version 1.0 of the format states none."""
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:1], bucket))
    document = json.loads(gzip.decompress((await everything(bucket))[key.metadata]))
    for entry in document["cod"]["instances"].values():
        del entry["crc32c"]
    await bucket.write(key.metadata, gzip.compress(json.dumps(document).encode()))

    report = await ingest(CT[:1], bucket)

    assert (len(report.same), len(report.conflict)) == (1, 0)


async def test_series_that_grows_before_the_lock_is_ours_is_compared_again() -> None:
    class Overtaken(WrappedBucket):
        url = "memory://elsewhere"  # to this process, the other writer is another one

        async def before(self, request: Request) -> None:
            if request.verb == "create" and pending:
                pending.clear()
                await ingest(CT[:2], inner)

    pending = ["overtake"]
    inner = MemoryBucket()
    await ingest(CT[:1], inner)
    bucket = Overtaken(inner)

    report = await ingest(CT[:3], bucket)

    assert [note.outcome for note in report.series] == [Outcome.APPENDED]
    assert [note.path for note in report.new] == [str(CT[2])]
    assert len(report.same) == 2
    assert len(entries_of(await everything(inner), key_of(report))) == 3


async def test_tar_without_metadata_is_not_overwritten() -> None:
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:1], MemoryBucket()))
    await bucket.write(key.tar, b"somebody's bytes")

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.REFUSED]
    assert await everything(bucket) == {key.tar: b"somebody's bytes"}


async def test_locked_series_is_refused_and_its_holder_named() -> None:
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:1], MemoryBucket()))
    owner = {"owner": "somebody", "host": "elsewhere", "boot_id": "", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}
    await bucket.create(key.lock, gzip.compress(json.dumps({"codweb": owner}).encode()))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.REFUSED]
    assert "somebody (process 7 on host elsewhere) since 2026-01-01" in str(report.series[0].message)
    assert set(await everything(bucket)) == {key.lock}


async def test_lock_lists_the_instances_to_come_and_is_gone_afterwards() -> None:
    """The published library overrides locks that are old and empty; ours is never empty."""
    bucket = FailingBucket(MemoryBucket())
    seen: list[tuple[str, set[str]]] = []
    inner = bucket.inner
    assert isinstance(inner, MemoryBucket)

    def look(verb: str, key: str) -> None:
        if verb in ("upload", "write") or (key.endswith("metadata.json") and verb == "create"):
            seen.append((key.rsplit("/", 1)[1], {name.rsplit("/", 1)[1] for name in inner._objects}))

    bucket.before_each(look)
    locks: list[bytes] = []

    async def on_series(key: SeriesKey) -> None:
        locks.append(bytes((await bucket.read(key.lock)).data))

    report = await ingest(CT, bucket, on_series=on_series)

    key = key_of(report)
    tar = f"{key.series_uid}.tar"
    assert seen == [
        (tar, {".gradient.lock"}),
        ("index.sqlite", {".gradient.lock", tar}),
        ("metadata.json", {".gradient.lock", tar, "index.sqlite"}),
    ]
    objects = await everything(bucket)
    assert key.lock not in objects
    body = json.loads(gzip.decompress(locks[0]))
    assert body.pop("codweb")["pid"] == os.getpid()
    body.pop("codweb_journal")
    assert body == json.loads(gzip.decompress(objects[key.metadata]))


async def test_failure_before_the_tar_leaves_nothing() -> None:
    bucket = FailingBucket(MemoryBucket())
    bucket.fail("upload", lambda key: True, StorageUnavailable("throttled"))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert "throttled" in str(report.series[0].message)
    assert await everything(bucket) == {}


@pytest.mark.parametrize("step", ["index.sqlite", "metadata.json"])
async def test_failure_behind_the_tar_leaves_the_lock_and_the_next_run_completes_it(step: str) -> None:
    bucket = FailingBucket(MemoryBucket())
    for verb in ("write", "create"):
        bucket.fail(verb, lambda key: key.endswith(step), StorageUnavailable("gone"))

    report = await ingest(CT, bucket)
    between = await everything(bucket.inner)
    bucket.heal()
    again = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert "Its lock stays" in str(report.series[0].message)
    key = key_of(report)
    assert {key.lock, key.tar} <= set(between)
    assert key.metadata not in between
    assert again.is_clean
    assert len(again.same) + len(again.new) == 6
    objects = await everything(bucket)
    assert set(objects) == {key.tar, key.metadata, key.stem + "/index.sqlite"}
    assert len(entries_of(objects, key)) == 6


@pytest.mark.parametrize("step", [".tar", "index.sqlite", "metadata.json", ".gradient.lock"])
async def test_failure_that_passes_is_tried_again_and_everything_counts_once(step: str) -> None:
    bucket = FailingBucket(MemoryBucket())
    for verb in ("upload", "write", "create"):
        bucket.fail(verb, lambda key: key.endswith(step), TryAgain("throttled"), times=1)
    heard = Heard()

    report = await ingest(CT, bucket, progress=heard)

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    assert (len(report.new), report.same, report.is_clean) == (6, [], True)
    assert heard.files == heard.expected_files == 6
    assert heard.size == heard.expected_size == sum(path.stat().st_size for path in CT)
    assert key_of(report).lock not in await everything(bucket)


class Heard:
    """What the last stretch of work told of itself."""

    def begin(self, task: str, *, files: int, size: int | None) -> None:
        self.files = self.size = 0
        self.expected_files, self.expected_size = files, size or 0

    def expect(self, *, files: int = 0, size: int = 0) -> None:
        self.expected_files += files
        self.expected_size += size

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        self.files += files
        self.size += size


@pytest.mark.parametrize("step", [".tar", "index.sqlite", "metadata.json"])
async def test_crash_between_two_steps_leaves_no_visible_series(step: str) -> None:
    """A process that dies does nothing more: what counts is what lay there at that moment."""
    bucket = FailingBucket(MemoryBucket())
    inner = bucket.inner
    assert isinstance(inner, MemoryBucket)
    at_crash: list[set[str]] = []

    class Crash(BaseException):
        pass

    def crash(verb: str, key: str) -> None:
        if verb in ("upload", "write", "create") and key.endswith(step):
            at_crash.append(set(inner._objects))
            raise Crash

    bucket.before_each(crash)

    with pytest.raises(Crash):
        await ingest(CT, bucket)

    (keys,) = at_crash
    assert any(key.endswith(".gradient.lock") for key in keys)
    assert not any(key.endswith("metadata.json") for key in keys)


async def test_lock_taken_away_while_writing_stops_the_writer() -> None:
    bucket = FailingBucket(MemoryBucket())
    inner = bucket.inner
    assert isinstance(inner, MemoryBucket)

    def steal(verb: str, key: str) -> None:
        if verb == "upload":
            del inner._objects[next(name for name in inner._objects if name.endswith(".gradient.lock"))]

    bucket.before_each(steal)

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert not any(key.endswith(("metadata.json", "index.sqlite")) for key in await everything(bucket))


async def test_complete_series_whose_lock_cannot_be_released_is_stored_and_says_so() -> None:
    bucket = FailingBucket(MemoryBucket())
    bucket.fail("delete", lambda key: True, StorageUnavailable("gone"))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    assert "its lock could not be released" in str(report.series[0].message)


async def test_failed_hook_neither_loses_the_series_nor_keeps_the_lock() -> None:
    async def on_series(key: SeriesKey) -> None:
        raise StorageUnavailable("no room for the index")

    bucket = MemoryBucket()
    report = await ingest(CT, bucket, on_series=on_series)

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    assert "no room for the index" in str(report.series[0].message)
    assert key_of(report).lock not in await everything(bucket)


@pytest.mark.parametrize("make", [MemoryBucket, FolderBucket])
async def test_one_of_sixteen_ingests_of_a_series_wins(make: Callable[..., Bucket], tmp_path: Path) -> None:
    bucket = make() if make is MemoryBucket else make(tmp_path)

    reports = await asyncio.gather(*(ingest(CT, bucket) for _ in range(16)))

    outcomes = [report.series[0].outcome for report in reports]
    assert outcomes.count(Outcome.STORED) == 1
    assert set(outcomes) <= {Outcome.STORED, Outcome.REFUSED, Outcome.UNCHANGED}  # who comes late finds it all there
    objects = await everything(bucket)
    key = key_of(reports[0])
    assert set(objects) == {key.tar, key.metadata, key.stem + "/index.sqlite"}
    assert len(entries_of(objects, key)) == 6


def rewrite_in_place(path: Path) -> None:
    """Other bytes, same size and times: only the checksum tells."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    path.with_name("other").rename(path)


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [rewrite_in_place, replace, cut, grow, remove])
@pytest.mark.parametrize("verb", ["read", "create", "upload"])
async def test_source_that_changes_is_refused_alone_and_the_rest_is_stored(
    change: Callable[[Path], None], verb: str, tmp_path: Path
) -> None:
    """Changed after it was described (read), before the lock (create), or under it (upload)."""
    (tmp_path / "in").mkdir()
    paths = [Path(shutil.copy(path, tmp_path / "in")) for path in CT]
    bucket = FailingBucket(open_bucket(tmp_path / "out", create=True))
    pending = [paths[3]]

    def move(seen: str, key: str) -> None:
        if seen == verb and pending:
            change(pending.pop())

    bucket.before_each(move)

    report = await ingest(paths, bucket)

    assert [note.outcome for note in report.series] == [Outcome.STORED]
    assert [item.path for item in report.refused] == [str(paths[3])]
    assert "changed" in report.refused[0].reason or "can no longer be read" in report.refused[0].reason
    assert sorted(note.path for note in report.new) == sorted(str(path) for path in paths if path != paths[3])
    key = key_of(report)
    objects = await everything(bucket)
    assert set(objects) == {key.tar, key.metadata, key.stem + "/index.sqlite"}
    entries = entries_of(objects, key)
    stored = {objects[key.tar][at["headers"]["start_byte"] :][: at["size"]] for at in entries.values()}
    assert stored == {path.read_bytes() for path in CT if path.name != paths[3].name}


async def test_series_of_which_no_file_can_be_read_any_more_fails_and_leaves_nothing(tmp_path: Path) -> None:
    path = Path(shutil.copy(CT[0], tmp_path / "gone.dcm"))
    bucket = FailingBucket(MemoryBucket())
    bucket.before_each(lambda verb, key: path.unlink(missing_ok=True))

    report = await ingest([path], bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert [item.path for item in report.refused] == [str(path)]
    assert await everything(bucket.inner) == {}


async def test_cancelled_ingest_leaves_whole_series_and_goes_on_the_next_time() -> None:
    bucket = FailingBucket(MemoryBucket())
    task: asyncio.Task[Report] | None = None

    def interrupt(verb: str, key: str) -> None:
        if verb == "upload" and task is not None:
            task.cancel()

    bucket.before_each(interrupt)
    report = Report()

    task = asyncio.create_task(ingest(CT, bucket, report=report))
    with pytest.raises(asyncio.CancelledError):
        await task
    between = await everything(bucket.inner)
    bucket.heal()
    again = await ingest(CT, bucket)

    assert not any(key.endswith(".gradient.lock") for key in between)
    assert again.is_clean
    assert len(again.new) + len(again.same) == 6
    assert len(entries_of(await everything(bucket), key_of(again))) == 6


async def test_another_writer_is_waited_for() -> None:
    bucket = MemoryBucket()
    key = key_of(await ingest(CT[:1], MemoryBucket()))
    owner = {"owner": "somebody", "host": "elsewhere", "boot_id": "", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}
    await bucket.create(key.lock, gzip.compress(json.dumps({"codweb": owner}).encode()))
    asyncio.get_running_loop().call_later(0.3, bucket._objects.pop, key.lock)

    report = await ingest(CT, bucket, wait_seconds=20)

    assert [note.outcome for note in report.series] == [Outcome.STORED]


async def test_large_file_streams_in_bounded_memory(tmp_path: Path) -> None:
    path = made(tmp_path / "large.dcm", "1.2.3.4")
    with path.open("ab") as file:  # Pixel Data, OW, 64 MiB
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + (64 << 20).to_bytes(4, "little"))
        file.truncate(file.tell() + (64 << 20))
    bucket = open_bucket(tmp_path / "out", create=True)

    tracemalloc.start()
    try:
        report = await ingest([path], bucket)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert report.is_clean
    assert report.bytes == path.stat().st_size
    assert peak < 24 << 20
