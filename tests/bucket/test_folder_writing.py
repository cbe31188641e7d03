"""Writing files: whole or not at all, for readers in other processes and on file systems that lack something."""

import asyncio
import errno
import fcntl
import multiprocessing
import os
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from storage.bucket.folder import FolderBucket
from storage.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    StorageUnavailable,
)
from tests.bucket.contract import DATA, KEY, in_pieces, listed


@pytest.mark.long
async def test_a_reader_in_another_process_never_sees_half_an_object(bucket: FolderBucket, root: Path) -> None:
    await bucket.write(KEY, b"a" * 100_000)
    spawning = multiprocessing.get_context("spawn")
    stop = spawning.Event()
    verdict: SimpleQueue[str] = spawning.SimpleQueue()
    reader = spawning.Process(target=_read_until, args=(root / KEY, stop, verdict))
    reader.start()
    try:
        await asyncio.to_thread(verdict.get)  # it is running
        for letter in b"bcdefgh" * 5:
            await bucket.write(KEY, bytes([letter]) * 100_000)
    finally:
        stop.set()
    outcome = await asyncio.to_thread(verdict.get)
    await asyncio.to_thread(reader.join)

    assert outcome == "whole"


def _read_until(path: Path, stop: Event, verdict: "SimpleQueue[str]") -> None:
    verdict.put("running")
    outcome = "whole"
    while not stop.is_set():
        data = path.read_bytes()
        if len(data) != 100_000 or len(set(data)) != 1:
            outcome = f"{len(data)} bytes of {len(set(data))} kinds"
            break
    verdict.put(outcome)


async def test_sixteen_processes_worth_of_buckets_have_one_creator(root: Path) -> None:
    """Buckets of their own, as separate processes have them: no lock in memory helps."""
    buckets = [FolderBucket(root) for _ in range(16)]

    outcomes = await asyncio.gather(
        *(each.create(KEY, b"%d" % number) for number, each in enumerate(buckets)), return_exceptions=True
    )

    assert sum(isinstance(outcome, ObjectExists) for outcome in outcomes) == 15
    for each in buckets:
        await each.close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
async def test_create_has_one_winner_where_files_cannot_be_linked(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*arguments: object, **keywords: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(os, "link", link)

    outcomes = await asyncio.gather(*(bucket.create(KEY, b"%d" % index) for index in range(16)), return_exceptions=True)

    assert sum(isinstance(outcome, ObjectExists) for outcome in outcomes) == 15
    winner = next(index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Exception))
    assert (root / KEY).read_bytes() == b"%d" % winner
    assert [path.name for path in (root / KEY).parent.iterdir()] == ["4.5.6.tar"]


async def test_a_create_that_went_through_is_won_although_the_answer_was_lost(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """link(2) over NFS: the server made the link, its answer was lost, the repeat says "exists"."""
    real = os.link

    def link(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        raise FileExistsError(17, "exists")

    monkeypatch.setattr(os, "link", link)

    await bucket.create(KEY, DATA)

    assert (root / KEY).read_bytes() == DATA


async def test_a_new_file_is_stamped_by_a_clock_that_counts_nanoseconds(bucket: FolderBucket, root: Path) -> None:
    """The kernel's own stamps lag by up to a tick: within one, an inode used again could repeat a version."""
    for number in range(20):
        before = time.time_ns()
        await bucket.write("object", b"%d" % number)
        after = time.time_ns()

        assert before <= (root / "object").stat().st_mtime_ns <= after


async def test_a_replace_waits_for_the_lock_and_then_compares(bucket: FolderBucket, root: Path) -> None:
    first = await bucket.write(KEY, DATA)
    directory = os.open((root / KEY).parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    replacing = asyncio.create_task(bucket.replace(KEY, b"late", version=first.version))
    await asyncio.sleep(0.05)
    assert not replacing.done()

    (root / KEY).write_bytes(b"by the holder of the lock")
    os.close(directory)

    with pytest.raises(ObjectChanged):
        await replacing
    assert (root / KEY).read_bytes() == b"by the holder of the lock"


async def test_without_locks_a_write_goes_on_and_a_replace_is_refused(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.EBADF, "NFS does not lock directories")

    monkeypatch.setattr(fcntl, "flock", flock)
    written = await bucket.write(KEY, DATA)

    with pytest.raises(StorageUnavailable, match="no locks"):
        await bucket.replace(KEY, b"new", version=written.version)
    await bucket.write(KEY, b"newer")
    assert (root / KEY).read_bytes() == b"newer"
    await bucket.delete(KEY)
    assert await listed(bucket) == []


async def test_a_disk_that_takes_a_write_in_pieces_gets_all_of_them(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3000]))

    await bucket.write("written", DATA)
    await bucket.upload("uploaded", in_pieces([DATA, DATA]))

    assert (root / "written").read_bytes() == DATA
    assert (root / "uploaded").read_bytes() == DATA * 2


async def test_a_replace_of_an_absent_object_makes_no_folder(bucket: FolderBucket, root: Path) -> None:
    with pytest.raises(ObjectNotFound):
        await bucket.replace(KEY, DATA, version="1")

    assert list(root.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
async def test_a_full_disk_leaves_the_object_and_no_litter(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await bucket.write(KEY, DATA)

    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "disk full")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageUnavailable, match="errno 28"):
            await bucket.write(KEY, b"new")
        with pytest.raises(StorageUnavailable, match="errno 28"):
            await bucket.upload(KEY, in_pieces([b"new"]))

    assert (root / KEY).read_bytes() == DATA
    assert [path.name for path in (root / KEY).parent.iterdir()] == ["4.5.6.tar"]


async def test_a_key_below_a_file_or_at_a_folder_cannot_be_written(bucket: FolderBucket, root: Path) -> None:
    await bucket.write("a/file", DATA)

    for key in ("a/file/below", "a/file/below/it", "a"):
        with pytest.raises(StorageError):
            await bucket.write(key, b"x")
        with pytest.raises(StorageError):
            await bucket.create(key, b"x")

    assert await listed(bucket) == ["a/file"]
    assert [path.name for path in root.rglob("*")] == ["a", "file"]


async def test_new_files_have_the_permissions_that_the_umask_leaves(bucket: FolderBucket, root: Path) -> None:
    plain = root / "plain"
    plain.write_bytes(b"")

    await bucket.write("written", DATA)
    await bucket.create("created", DATA)

    for name in ("written", "created"):
        assert (root / name).stat().st_mode == plain.stat().st_mode
