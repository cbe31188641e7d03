"""Whose lock it is, whether its writer can still be alive, and who may take it over."""

import asyncio
import contextlib
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from storage.bucket.base import ObjectBytes
from storage.bucket.memory import MemoryBucket
from storage.cod.lock import Journal, LockOwner
from storage.errors import ObjectChanged, SeriesLocked, SeriesUnfinished
from storage.writing import Change, Side, look_at_lock, read_stored, unlock, writing
from storage.writing.document import pack_present
from storage.writing.prepared import prepare
from tests.writing.builders import KEY, assert_holds, file_of, made, model_of, objects_of, uid_of

ME = LockOwner.this_process("me")


def ended_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@contextmanager
def zombie() -> Iterator[int]:
    """A process that has ended and for which nobody has asked, as in a container without an init."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid
    finally:
        process.wait()


def dead(**changes: str) -> LockOwner:
    return replace(ME, owner="somebody gone", pid=ended_pid(), **changes)


@pytest.mark.parametrize(
    ("owner", "is_dead"),
    [
        (ME, False),
        (dead(), True),
        (dead(started=""), True),
        (dead(host="elsewhere"), False),
        (dead(host="elsewhere", boot_id="another"), False),
        (dead(pid_namespace="pid:[1]"), False),
        (replace(ME, boot_id="another start of this host"), True),
        (replace(ME, boot_id=""), False),
        (replace(ME, boot_id="another", pid_namespace="pid:[1]"), True),
        (replace(ME, started="1"), True),
        (replace(ME, started=""), False),
        (replace(ME, pid=1, started=""), False),
        (replace(ME, pid=1, started="1"), True),
        (replace(ME, pid=1 << 80), False),
        (replace(ME, pid=0), False),
        (replace(ME, pid=-1), False),
    ],
)
def test_only_a_process_that_certainly_runs_no_more_is_dead(owner: LockOwner, is_dead: bool) -> None:
    """Another host or container is never judged; a number that was given anew is told by when its process began."""
    assert owner.is_dead == is_dead


def test_a_process_of_which_only_the_number_is_left_is_dead() -> None:
    with zombie() as pid:
        assert replace(ME, pid=pid, started="").is_dead
        assert not replace(ME, pid=pid, started="", host="elsewhere").is_dead


async def lock_of(bucket: MemoryBucket, owner: LockOwner, journal: Journal | None = None) -> None:
    stored = await read_stored(bucket, KEY)
    await bucket.create(KEY.lock, pack_present(KEY, stored.document).lock(owner, journal))


async def stored(*numbers: int) -> MemoryBucket:
    bucket = MemoryBucket("locks")
    async with writing(bucket, KEY) as series:
        await series.commit(Change(add=tuple(map(made, numbers))))
    return bucket


@pytest.mark.parametrize(
    "owner",
    [
        dead(host="elsewhere"),
        dead(pid_namespace="pid:[1]"),
        replace(ME, owner="the parent", pid=os.getppid(), started=""),
    ],
)
async def test_a_lock_that_may_be_held_is_left_and_says_by_whom_and_since_when(owner: LockOwner) -> None:
    bucket = await stored(1)
    await lock_of(bucket, replace(owner, since="2026-02-03T04:05:06+00:00"))
    before = await objects_of(bucket)

    with pytest.raises(SeriesLocked) as caught:
        async with writing(bucket, KEY):
            pass

    for words in (owner.owner, str(owner.pid), owner.host, "2026-02-03T04:05:06", str(KEY)):
        assert words in str(caught.value)
    assert await objects_of(bucket) == before


@pytest.mark.parametrize("text", [b"", b"no gzip", b"[1]", b'{"codweb": 7}'])
async def test_a_lock_that_says_nothing_counts_all_the_same(text: bytes) -> None:
    bucket = await stored(1)
    body = gzip.compress(text) if text.startswith((b"[", b"{")) else text
    await bucket.create(KEY.lock, body)

    with pytest.raises(SeriesLocked, match="does not say by whom"):
        async with writing(bucket, KEY):
            pass

    assert (await objects_of(bucket))[KEY.lock] == body


@pytest.mark.parametrize("owner", [dead(), replace(ME, boot_id="another start of this host"), replace(ME, owner="x")])
async def test_a_lock_that_was_left_behind_is_taken_over(owner: LockOwner) -> None:
    """One of this very process too, if no task of it holds the series."""
    bucket = await stored(1)
    await lock_of(bucket, owner)

    async with writing(bucket, KEY, owner="the next") as series:
        await series.commit(Change(add=(made(2),)))

    assert_holds(await objects_of(bucket), model_of([1, 2]))


async def test_of_many_tasks_that_find_a_lock_left_behind_one_takes_it_over() -> None:
    bucket = await stored(1)
    await lock_of(bucket, dead())
    inside = 0

    async def contend(number: int) -> str:
        nonlocal inside
        try:
            async with writing(bucket, KEY) as series:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                await series.commit(Change(add=(made(number),)))
                inside -= 1
        except SeriesLocked as error:
            return str(error)
        return ""

    told = await asyncio.gather(*map(contend, range(2, 10)))

    assert told.count("") == 1
    assert_holds(await objects_of(bucket), model_of([1, 2 + told.index("")]))


async def test_sixteen_tasks_of_one_process_write_one_after_the_other_if_they_wait() -> None:
    bucket = MemoryBucket("tasks")

    async def add(number: int) -> None:
        async with writing(bucket, KEY, wait_seconds=60) as series:
            await series.commit(Change(add=(made(number),)))

    await asyncio.gather(*map(add, range(1, 17)))

    objects = await objects_of(bucket)
    assert objects.keys() == {KEY.tar, KEY.metadata, f"{KEY.stem}/index.sqlite"}
    order = list(json.loads(gzip.decompress(objects[KEY.metadata]))["cod"]["instances"])
    assert_holds(objects, {uid: model_of(range(1, 17))[uid] for uid in order})


async def test_without_waiting_the_others_are_told_who_holds_it() -> None:
    bucket = MemoryBucket("tasks")
    told = []
    async with writing(bucket, KEY, owner="the first"):
        for _ in range(15):
            with pytest.raises(SeriesLocked) as caught:
                async with writing(bucket, KEY, owner="another"):
                    pass
            told.append(str(caught.value))

    assert all("the first" in words and f"process {os.getpid()}" in words for words in told)


async def left_in_the_middle(owner: LockOwner, tar: bytes | None) -> MemoryBucket:
    """A rewrite whose lock announces it, and this tar; None: the new one."""
    bucket, aside = await stored(1, 2), await stored(1, 2)
    change = Change(add=(made(1, 51), made(2, 52)), is_rewrite=True)
    async with writing(aside, KEY) as series:
        await series.commit(change)
    prepared = await prepare(bucket, await read_stored(bucket, KEY), change)
    await bucket.create(KEY.lock, prepared.packed.lock(owner, prepared.journal))
    await bucket.write(KEY.tar, (await objects_of(aside))[KEY.tar] if tar is None else tar)
    return bucket


async def test_a_change_whose_tar_is_there_is_completed_by_whoever_takes_over() -> None:
    bucket = await left_in_the_middle(dead(), None)

    async with writing(bucket, KEY) as series:
        assert list(series.stored.entries) == [uid_of(1), uid_of(2)]

    objects = await objects_of(bucket)
    document = json.loads(gzip.decompress(objects[KEY.metadata]))
    assert document.keys() == {"study_uid", "series_uid", "cod"}  # nothing of the lock
    assert_holds(objects, {uid_of(1): file_of(1, 51), uid_of(2): file_of(2, 52)})


@pytest.mark.parametrize("cut", [-10240, 10240])
async def test_a_tar_that_is_on_no_side_keeps_its_lock_until_somebody_decides(cut: int) -> None:
    whole = await left_in_the_middle(dead(), None)
    tar = (await objects_of(whole))[KEY.tar]
    bucket = await left_in_the_middle(dead(), tar[:cut] if cut < 0 else tar + bytes(cut))
    before = await objects_of(bucket)

    for _ in range(2):
        with pytest.raises(SeriesUnfinished, match="neither"):
            async with writing(bucket, KEY):
                pass

    after = await objects_of(bucket)
    assert after.keys() == before.keys()
    assert {name: data for name, data in after.items() if name != KEY.lock} == {
        name: data for name, data in before.items() if name != KEY.lock
    }
    report = await look_at_lock(bucket, KEY)
    assert report is not None
    assert report.has_journal
    with pytest.raises(SeriesUnfinished):
        await unlock(bucket, report, owner="test")
    report = await look_at_lock(bucket, KEY)
    assert report is not None
    assert await unlock(bucket, report, owner="test", is_forced=True) is None
    assert KEY.lock not in await objects_of(bucket)


@pytest.mark.parametrize("commits", [False, True])
async def test_an_upload_of_a_dead_writer_that_ends_late_is_completed_too(commits: bool) -> None:
    """A store on the network may go on with a request whose sender is gone."""
    after = await left_in_the_middle(dead(), None)
    tar = (await objects_of(after))[KEY.tar]
    bucket = await left_in_the_middle(dead(), (await objects_of(await stored(1, 2)))[KEY.tar])
    journal_of_before = replace_tar_before(await bucket.read(KEY.lock), (await bucket.head(KEY.tar)).version)
    await bucket.write(KEY.lock, journal_of_before)

    with contextlib.suppress(SeriesLocked, ObjectChanged):
        async with writing(bucket, KEY) as series:
            assert (series.stored.entries[uid_of(1)].crc32c) == made(1).crc32c
            await bucket.write(KEY.tar, tar)
            if commits:
                await series.commit(Change(add=(made(3),)))
                raise AssertionError("it was made from a tar that is gone")

    assert_holds(await objects_of(bucket), {uid_of(1): file_of(1, 51), uid_of(2): file_of(2, 52)})


def replace_tar_before(lock: ObjectBytes, version: str) -> bytes:
    document = json.loads(gzip.decompress(bytes(lock.data)))
    document["codweb_journal"]["tar_before"] = version
    return gzip.compress(json.dumps(document).encode())


async def test_unlock_settles_a_change_of_another_host_first() -> None:
    bucket = await left_in_the_middle(dead(host="elsewhere"), None)
    report = await look_at_lock(bucket, KEY)
    assert report is not None
    assert (report.has_journal, report.is_alive) == (True, None)

    assert await unlock(bucket, report, owner="test") is Side.AFTER

    assert_holds(await objects_of(bucket), {uid_of(1): file_of(1, 51), uid_of(2): file_of(2, 52)})


async def test_unlock_takes_no_lock_but_the_one_that_was_looked_at() -> None:
    bucket = await stored(1)
    await lock_of(bucket, dead(host="elsewhere"))
    report = await look_at_lock(bucket, KEY)
    assert report is not None
    await bucket.delete(KEY.lock)
    await lock_of(bucket, dead(host="a third"))

    with pytest.raises(SeriesLocked):
        await unlock(bucket, report, owner="test")

    assert KEY.lock in await objects_of(bucket)


async def test_an_upload_of_a_dead_writer_that_takes_away_what_was_committed_is_told() -> None:
    """Not even the order of two uploads can be relied on, on a network: what is lost is at least not called stored."""
    after = await left_in_the_middle(dead(), None)
    tar = (await objects_of(after))[KEY.tar]
    bucket = await left_in_the_middle(dead(), (await objects_of(await stored(1, 2)))[KEY.tar])
    journal_of_before = replace_tar_before(await bucket.read(KEY.lock), (await bucket.head(KEY.tar)).version)
    await bucket.write(KEY.lock, journal_of_before)

    with pytest.raises(ObjectChanged, match="took the place of our tar"):
        async with writing(bucket, KEY) as series:
            await series.commit(Change(add=(made(3),)))
            await bucket.write(KEY.tar, tar)

    assert_holds(await objects_of(bucket), {uid_of(1): file_of(1, 51), uid_of(2): file_of(2, 52)})


@pytest.mark.parametrize("is_ours", [False, True])
async def test_unlock_leaves_a_lock_that_says_nothing_of_a_series_that_does_not_agree(is_ours: bool) -> None:
    """The published library writes metadata first; and a lock of ours may be cut."""
    bucket = await left_in_the_middle(dead(), None)
    lock = bytes((await bucket.read(KEY.lock)).data)
    if is_ours:
        text = lock[:-40]
    else:
        document = json.loads(gzip.decompress(lock))
        text = gzip.compress(json.dumps({name: document[name] for name in ("study_uid", "series_uid", "cod")}).encode())
    await bucket.write(KEY.lock, text)
    await bucket.delete(KEY.metadata)
    report = await look_at_lock(bucket, KEY)
    assert report is not None
    assert report.owner is None

    with pytest.raises(SeriesUnfinished, match="does not say what was under way"):
        await unlock(bucket, report, owner="test")

    assert (await objects_of(bucket))[KEY.lock] == text
    assert await unlock(bucket, report, owner="test", is_forced=True) is None
    assert KEY.lock not in await objects_of(bucket)


async def test_unlock_removes_a_lock_that_says_nothing_of_a_series_that_is_whole() -> None:
    bucket = await stored(1, 2)
    await bucket.create(KEY.lock, b"of another program")
    report = await look_at_lock(bucket, KEY)
    assert report is not None

    assert await unlock(bucket, report, owner="test") is Side.BEFORE

    assert_holds(await objects_of(bucket), model_of((1, 2)))


async def test_entries_without_checksums_do_not_prove_a_tar_that_is_another_one() -> None:
    """A file of a disk that was mounted again has another version; the padding of a tar may hide that a member went."""
    bucket = await stored(1, 2)
    document = json.loads(gzip.decompress(bytes((await bucket.read(KEY.metadata)).data)))
    for entry in document["cod"]["instances"].values():
        entry["crc32c"] = None
    await bucket.write(KEY.metadata, gzip.compress(json.dumps(document).encode()))
    prepared = await prepare(bucket, await read_stored(bucket, KEY), Change(remove=frozenset({uid_of(1)})))
    assert prepared.journal.tar_size == (await bucket.head(KEY.tar)).size
    journal = replace(prepared.journal, tar_before="of another device number")
    await bucket.create(KEY.lock, prepared.packed.lock(dead(), journal))

    async with writing(bucket, KEY):
        pass

    assert_holds(await objects_of(bucket), model_of((1, 2)))


FORK = """
import asyncio, os, sys, threading
from pathlib import Path
from storage.bucket.folder import FolderBucket
from storage.writing import writing
from tests.writing.builders import KEY

async def hold():
    async with writing(FolderBucket(Path(sys.argv[1])), KEY):
        print("the child holds it", flush=True)

async def main():
    read, write = os.pipe()
    async with writing(FolderBucket(Path(sys.argv[1])), KEY):
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until its parent has left
            thread = threading.Thread(target=lambda: asyncio.run(hold()))
            thread.start()
            thread.join()
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)

asyncio.run(main())
"""


def test_a_forked_process_can_write_what_its_parent_wrote_at_the_fork(tmp_path: Path) -> None:
    """Only the lock in the bucket keeps both apart; what tasks of one process claim is not inherited."""
    done = subprocess.run([sys.executable, "-c", FORK, tmp_path], capture_output=True, text=True, timeout=30)

    assert done.stdout == "the child holds it\n", done.stderr
