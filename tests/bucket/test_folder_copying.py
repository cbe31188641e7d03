"""Copying inside a folder: the system moves the bytes, and where it does not, what is copied is the same."""

import asyncio
import errno
import os
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.bucket import Piece
from storage.bucket.folder import FolderBucket
from storage.errors import ObjectChanged, ObjectTruncated, StorageUnavailable
from tests.bucket.contract import DATA, KEY, LARGE, in_pieces, stored

MIB = 1024 * 1024

needs_copy_file_range = pytest.mark.skipif(sys.platform != "linux", reason="copy_file_range is Linux's")


@needs_copy_file_range
async def test_two_hundred_megabytes_are_copied_without_a_byte_in_memory(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 200 * MIB
    with (root / "source").open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    whole = await stored(bucket, "source", 0, size)
    moved: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "preadv", lambda *arguments: pytest.fail("a byte was read"))
    monkeypatch.setattr(os, "write", lambda descriptor, data: moved.append(len(data)) or write(descriptor, data))

    tracemalloc.start()
    info = await bucket.upload("source", in_pieces([whole, b"new"]))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert info.size == (root / "source").stat().st_size == size + 3
    with (root / "source").open("rb") as file:
        file.seek(size - 4)
        assert file.read() == b"\0endnew"
    assert sum(moved) == 3
    assert most < MIB


@needs_copy_file_range
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, 0])
@pytest.mark.parametrize("before", [0, 1_000_000])
async def test_where_the_system_does_not_copy_the_bytes_are_read_and_written(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, before: int
) -> None:
    """It says so, at once or after some bytes; or it copies nothing and says nothing (0)."""
    real, calls = os.copy_file_range, 0

    def copy(source: int, target: int, count: int, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 1 and before > 0:
            return real(source, target, before, offset)
        if number == 0:
            return 0
        raise OSError(number, "not between these")

    await bucket.write(KEY, LARGE)
    part = await stored(bucket, KEY, 3, len(LARGE) - 5)
    with monkeypatch.context() as patched:
        patched.setattr(os, "copy_file_range", copy)
        await bucket.upload(KEY, in_pieces([b"first", part, b"last"]))

    assert (root / KEY).read_bytes() == b"first" + LARGE[3:-5] + b"last"
    assert calls >= 1


@needs_copy_file_range
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_while_copying_leaves_the_object_and_no_litter(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(number, "a disk")

    await bucket.write(KEY, DATA)
    part = await stored(bucket, KEY, 0, 100)
    with monkeypatch.context() as patched:
        patched.setattr(os, "copy_file_range", fail)
        with pytest.raises(StorageUnavailable, match=f"errno {number}"):
            await bucket.upload(KEY, in_pieces([part, b"new"]))

    assert (root / KEY).read_bytes() == DATA
    assert [path.name for path in (root / KEY).parent.iterdir()] == ["4.5.6.tar"]


@needs_copy_file_range
@pytest.mark.parametrize("change", [b"x", None])
async def test_a_file_that_is_written_to_while_it_is_copied_is_changed(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch, change: bytes | None
) -> None:
    """By a program that does not replace files whole: it grows, or is cut off."""
    real = os.copy_file_range

    def copy(source: int, target: int, count: int, offset: int) -> int:
        copied = real(source, target, 1000, offset)
        with (root / "source").open("r+b") as file:
            file.truncate(2000)
            if change is not None:
                file.seek(0)
                file.write(change * len(DATA))
        return copied

    await bucket.write(KEY, b"old")
    await bucket.write("source", DATA)
    part = await stored(bucket, "source", 0, len(DATA))
    with monkeypatch.context() as patched:
        patched.setattr(os, "copy_file_range", copy)
        with pytest.raises(ObjectChanged):
            await bucket.upload(KEY, in_pieces([part]))

    assert (root / KEY).read_bytes() == b"old"


async def test_an_upload_that_is_cancelled_while_it_copies_leaves_nothing_behind(
    bucket: FolderBucket, root: Path, no_descriptor_is_lost: None
) -> None:
    await bucket.write(KEY, DATA)
    part = await stored(bucket, KEY, 0, len(DATA))
    reached = asyncio.Event()

    async def pieces() -> AsyncIterator[Piece]:
        yield part
        yield b"between"
        yield part
        reached.set()
        await asyncio.sleep(3600)

    upload = asyncio.create_task(bucket.upload(KEY, pieces()))
    await reached.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert (root / KEY).read_bytes() == DATA
    assert [path.name for path in (root / KEY).parent.iterdir()] == ["4.5.6.tar"]
    await bucket.close()


async def test_refused_ranges_lose_no_descriptor(bucket: FolderBucket, root: Path, no_descriptor_is_lost: None) -> None:
    await bucket.write(KEY, DATA)
    past = await stored(bucket, KEY, 0, 10)
    await bucket.write(KEY, DATA[::-1])

    with pytest.raises(ObjectChanged):
        await bucket.upload(KEY, in_pieces([past]))
    with pytest.raises(ObjectTruncated):
        await bucket.upload(KEY, in_pieces([await stored(bucket, KEY, 0, len(DATA) + 1)]))

    await bucket.close()
