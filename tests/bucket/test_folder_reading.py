"""Reading files: every failure is told from an absence, and no byte comes from two states of a file."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from storage.bucket.folder import FolderBucket
from storage.errors import (
    ObjectChanged,
    ObjectTruncated,
    StorageUnavailable,
)
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, LARGE, listed, streamed


async def test_a_file_written_into_while_it_is_read_is_changed(bucket: FolderBucket, root: Path) -> None:
    path = root / "object"
    path.write_bytes(LARGE)
    stream = bucket.stream("object", ByteRange(0, len(LARGE)), chunk_bytes=64 * 1024)
    assert bytes(await anext(stream)) == LARGE[: 64 * 1024]

    await asyncio.sleep(0.02)  # more than one tick of the clock that stamps files
    with path.open("r+b") as opened:
        opened.write(b"torn")

    with pytest.raises(ObjectChanged):
        await anext(stream)


async def test_a_file_cut_while_it_is_read_is_changed(bucket: FolderBucket, root: Path) -> None:
    (root / "object").write_bytes(LARGE)
    stream = bucket.stream("object", ByteRange(0, len(LARGE)), chunk_bytes=64 * 1024)
    await anext(stream)

    os.truncate(root / "object", 1000)

    with pytest.raises(ObjectChanged):
        async for _ in stream:
            pass


async def test_a_stream_goes_on_with_the_file_it_began_with(bucket: FolderBucket, root: Path) -> None:
    await bucket.write(KEY, LARGE)
    stream = bucket.stream(KEY, ByteRange(0, len(LARGE)), chunk_bytes=1_000_000)
    received = bytearray(await anext(stream))

    await bucket.write(KEY, bytes(len(LARGE)))
    async for chunk in stream:
        received += chunk

    assert received == LARGE


async def test_chunks_of_a_stream_do_not_share_a_buffer(bucket: FolderBucket) -> None:
    await bucket.write(KEY, DATA)

    chunks = [chunk async for chunk in bucket.stream(KEY, ByteRange(0, len(DATA)), chunk_bytes=1000)]

    assert b"".join(chunks) == DATA


@pytest.mark.parametrize("failure", [BlockingIOError(), OSError(errno.EOPNOTSUPP, "not supported"), 100, 0])
async def test_a_read_that_the_page_cache_cannot_answer_goes_through_a_thread(
    bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch, failure: OSError | int
) -> None:
    """Not cached, no such flag on this file system, partly cached: the same bytes in every case."""
    await bucket.write(KEY, DATA)
    threads: set[str] = set()
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        threads.add(threading.current_thread().name)
        if flags == 0:
            return real(descriptor, [buffers[0][:3000]], offset)  # the kernel may always give less than asked
        if isinstance(failure, OSError):
            raise failure
        return real(descriptor, [buffers[0][:failure]], offset) if failure else 0

    monkeypatch.setattr(os, "preadv", preadv)
    bucket._no_wait = 8  # RWF_NOWAIT of Linux, here only a number that is not 0

    for _ in range(2):
        assert bytes((await bucket.read(KEY, ByteRange(11, 9_999))).data) == DATA[11:9_999]
        assert await streamed(bucket, KEY, ByteRange(11, 9_999), 4000) == DATA[11:9_999]

    assert any(name.startswith("folder") for name in threads)


async def test_a_file_system_that_cannot_tell_what_is_cached_is_asked_once(
    bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bucket.write(KEY, DATA)
    asked: list[int] = []
    real = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            asked.append(flags)
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    bucket._no_wait = 8

    for _ in range(3):
        await bucket.read(KEY, ByteRange(0, 10))

    assert asked == [8]


@pytest.mark.parametrize("number", [5, 116, 12])
@pytest.mark.parametrize("inline", [True, False])
async def test_a_failing_disk_is_unavailable(
    bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch, number: int, inline: bool
) -> None:
    await bucket.write(KEY, DATA)

    def preadv(*arguments: object) -> int:
        raise OSError(number, "broken")

    monkeypatch.setattr(os, "preadv", preadv)
    bucket._no_wait = 8 if inline else 0

    with pytest.raises(StorageUnavailable, match=f"errno {number}"):
        await bucket.read(KEY, ByteRange(0, 10))


@pytest.mark.parametrize("number", [13, 24, 23, 116, 40, 5])
async def test_a_file_that_cannot_be_opened_is_unavailable(
    bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """EACCES, EMFILE, ENFILE, ESTALE, ELOOP, EIO."""
    await bucket.write(KEY, DATA)

    def refuse(*arguments: object, **keywords: object) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(StorageUnavailable, match=f"errno {number}"):
        await bucket.read(KEY)
    with pytest.raises(StorageUnavailable, match=f"errno {number}"):
        await bucket.head(KEY)


async def test_a_file_that_ends_too_soon_is_truncated(bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that claims a size and has no bytes for it."""
    await bucket.write(KEY, DATA)
    monkeypatch.setattr(os, "preadv", lambda *arguments: 0)

    with pytest.raises(ObjectTruncated):
        await bucket.read(KEY, ByteRange(0, 10))


async def test_a_pipe_or_socket_in_the_place_of_a_file_is_unavailable(bucket: FolderBucket, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(root):
        listener.bind("socket")

        for key in ("pipe", "socket"):
            with pytest.raises(StorageUnavailable):
                await bucket.read(key)
            with pytest.raises(StorageUnavailable):
                await bucket.head(key)

        assert await listed(bucket) == []
