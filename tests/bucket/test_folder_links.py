"""Links that lead out, links that lead nowhere, disks that are gone, and directories that change while listed."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.bucket.folder import FolderBucket, held_files
from storage.bucket.folder.file import OpenFile
from storage.bucket.folder.root import Root
from storage.bucket.folder.walk import walk
from storage.errors import ObjectChanged, ObjectNotFound, StorageUnavailable
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, in_pieces, listed, streamed


@pytest.mark.parametrize("where", ["file", "folder", "parent"])
async def test_a_link_never_leads_out_of_the_datastore(
    bucket: FolderBucket, root: Path, tmp_path: Path, where: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "secret").write_bytes(b"secret")
    (tmp_path / "datastore-secret").write_bytes(b"secret")
    match where:
        case "file":
            (root / "link").symlink_to(tmp_path / "datastore-secret")
            key = "link"
        case "folder":
            (root / "link").symlink_to(outside)
            key = "link/deep/secret"
        case _:
            (root / "link").symlink_to("../outside/deep")
            key = "link/secret"

    with pytest.raises(StorageUnavailable, match="out of the datastore"):
        await bucket.read(key)
    with pytest.raises(StorageUnavailable, match="out of the datastore"):
        await bucket.head(key)
    with pytest.raises(StorageUnavailable, match="out of the datastore"):
        await streamed(bucket, key, ByteRange(0, 1), 1)
    assert await listed(bucket) == []
    assert await listed(bucket, "li") == []


async def test_nothing_is_written_or_deleted_through_a_link_that_leads_out(
    bucket: FolderBucket, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (root / "link").symlink_to(outside)
    changes: list[Callable[[str], Awaitable[object]]] = [
        lambda key: bucket.write(key, b"x"),
        lambda key: bucket.create(key, b"x"),
        lambda key: bucket.replace(key, b"x", version="1"),
        lambda key: bucket.upload(key, in_pieces([b"x"])),
        lambda key: bucket.delete(key),
    ]

    for change in changes:
        for key in ("link/kept", "link/new/one"):
            with pytest.raises(StorageUnavailable, match="out of the datastore"):
                await change(key)
    with pytest.raises(StorageUnavailable, match="out of the datastore"):
        await listed(bucket, "link/")

    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_bytes() == b"kept"


async def test_links_inside_the_datastore_are_read_and_a_listing_ends(
    bucket: FolderBucket, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await bucket.write("a/b/object", DATA)
    (root / "a" / "b" / "up").symlink_to("..")
    (root / "a" / "twin").symlink_to("b/object")
    (root / "a" / "self").symlink_to("self")

    with caplog.at_level(logging.WARNING):
        assert await listed(bucket) == ["a/b/object", "a/twin"]

    assert [record.args for record in caplog.records] == [("a/b/up",), ("a/self",)]
    assert bytes((await bucket.read("a/twin")).data) == DATA
    assert bytes((await bucket.read("a/b/up/b/object")).data) == DATA
    assert await listed(bucket, "a/b/up/b/") == ["a/b/up/b/object"]


async def test_a_dangling_link_is_unavailable_and_not_absent(bucket: FolderBucket, root: Path) -> None:
    """`studies` linked to a disk that is not mounted must not look like an archive without studies."""
    (root / "studies").symlink_to("unmounted")

    with pytest.raises(StorageUnavailable, match="leads nowhere"):
        await bucket.read(KEY)
    with pytest.raises(StorageUnavailable):
        await listed(bucket, "studies/")
    with pytest.raises(StorageUnavailable):
        await bucket.write(KEY, DATA)
    with pytest.raises(StorageUnavailable):
        await bucket.delete(KEY)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
async def test_a_lost_disk_is_unavailable_and_nothing_is_written_in_its_place(
    bucket: FolderBucket, root: Path, tmp_path: Path, left: str
) -> None:
    await bucket.write(KEY, DATA)
    root.rename(tmp_path / "unmounted")
    if left == "an empty folder":
        root.mkdir()

    with pytest.raises(StorageUnavailable):
        await bucket.read(KEY)
    with pytest.raises(StorageUnavailable):
        await bucket.head("absent")
    with pytest.raises(StorageUnavailable):
        await listed(bucket)
    with pytest.raises(StorageUnavailable):
        await bucket.write(KEY, DATA)
    with pytest.raises(StorageUnavailable):
        await bucket.delete(KEY)

    assert root.exists() == (left == "an empty folder")
    assert left == "nothing" or list(root.iterdir()) == []


async def test_a_disk_lost_in_the_middle_of_a_listing_does_not_shorten_it(
    bucket: FolderBucket, root: Path, tmp_path: Path
) -> None:
    for number in range(600):
        path = root / f"{number:03}" / "object"
        path.parent.mkdir()
        path.write_bytes(b"")
    seen = 0

    with pytest.raises(StorageUnavailable):
        async for _ in bucket.list(""):
            seen += 1
            if seen == 100:
                root.rename(tmp_path / "unmounted")

    assert 100 <= seen < 600


async def test_a_folder_that_cannot_be_listed_fails_the_listing(
    bucket: FolderBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bucket.write("a/object", DATA)
    await bucket.write("b/object", DATA)
    real = os.scandir

    def scandir(path: str) -> object:
        if path.rstrip("/").endswith("/b"):
            raise PermissionError(13, "refused")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)

    with pytest.raises(StorageUnavailable, match=r"b/: .*errno 13"):
        await listed(bucket)
    assert await listed(bucket, "a/") == ["a/object"]


async def test_a_file_that_vanishes_while_it_is_listed_is_absent(bucket: FolderBucket, root: Path) -> None:
    for name in ("a/1", "a/2", "a/3", "b/1", "c/1"):
        await bucket.write(name, DATA)
    listing = walk(Root.at(root), "", "")
    assert next(listing).key == "a/1"

    (root / "a" / "2").unlink()
    (root / "b" / "1").unlink()
    (root / "b").rmdir()

    assert [info.key for info in listing] == ["a/3", "c/1"]


async def test_names_that_no_key_can_have_are_not_listed(bucket: FolderBucket, root: Path) -> None:
    await bucket.write("object", DATA)
    for name in (b".codweb-tmp-left-by-a-crash", b"back\\slash", b"new\nline"):
        (root / os.fsdecode(name)).write_bytes(b"")
    if sys.platform == "linux":  # macOS makes no such file
        (root / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"")

    assert await listed(bucket) == ["object"]


async def test_a_link_out_in_the_place_of_a_file_that_was_asked_for_a_moment_ago_is_noticed(
    bucket: FolderBucket, root: Path, tmp_path: Path
) -> None:
    info = await bucket.write(KEY, DATA)
    assert await bucket.head(KEY) == info
    assert await bucket.head(KEY) == info
    (tmp_path / "secret").write_bytes(DATA)
    os.utime(tmp_path / "secret", ns=(0, (root / KEY).stat().st_mtime_ns))

    (root / KEY).unlink()
    (root / KEY).symlink_to(tmp_path / "secret")

    with pytest.raises(StorageUnavailable, match="out of the datastore"):
        await bucket.head(KEY)


async def test_a_file_is_opened_again_after_a_second(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counting(root: Root, key: str) -> OpenFile:
        opened.append(key)
        return OpenFile(root, key)

    monkeypatch.setattr(held_files, "OpenFile", counting)
    await bucket.write(KEY, DATA)
    now = 1000.0
    monkeypatch.setattr(held_files, "time", SimpleNamespace(monotonic=lambda: now))

    for seconds in (0.0, 0.5, 1.0, 1.5, 2.0, 2.1):
        now = 1000.0 + seconds
        await bucket.head(KEY)

    assert len(opened) == 2  # at 0 and at 1.5


async def test_a_file_that_is_gone_a_moment_later_is_absent(bucket: FolderBucket, root: Path) -> None:
    await bucket.write(KEY, DATA)
    await bucket.head(KEY)

    (root / KEY).unlink()

    with pytest.raises(ObjectNotFound):
        await bucket.head(KEY)


def descriptors(path: Path) -> int:
    """How many descriptors of this process are open on a file, deleted or not."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(link) and os.readlink(link).startswith(str(path)) for link in links)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
async def test_a_file_that_was_read_is_closed_when_its_moment_is_over(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_files, "OPEN_SECONDS", 0.05)
    await bucket.write(KEY, DATA)
    for _ in range(3):
        assert bytes((await bucket.read(KEY, ByteRange(0, 10))).data) == DATA[:10]
    assert descriptors(root / KEY) == 1

    await asyncio.sleep(0.2)

    assert descriptors(root / KEY) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
async def test_files_are_held_in_a_number_that_does_not_grow(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_files, "MOST_FILES", 3)
    for number in range(10):
        await bucket.write(f"a/{number}", DATA)
        await bucket.read(f"a/{number}")

    assert descriptors(root / "a") == 3
    await bucket.close()
    assert descriptors(root / "a") == 0


async def test_a_file_that_is_replaced_is_read_anew_at_once_and_the_old_one_to_its_end(
    bucket: FolderBucket, root: Path
) -> None:
    first = await bucket.write(KEY, DATA)
    stream = bucket.stream(KEY, ByteRange(0, len(DATA)), version=first.version, chunk_bytes=10)
    assert bytes(await anext(stream)) == DATA[:10]
    assert bytes((await bucket.read(KEY)).data) == DATA

    await bucket.write(KEY, b"another")

    assert bytes((await bucket.read(KEY)).data) == b"another"
    with pytest.raises(ObjectChanged):
        await bucket.read(KEY, version=first.version)
    assert b"".join([bytes(chunk) async for chunk in stream]) == DATA[10:]


async def test_readers_in_threads_keep_their_file_while_it_is_replaced(
    bucket: FolderBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_files, "MOST_FILES", 1)
    monkeypatch.setattr(bucket, "_no_wait", 0)  # every read goes through a thread
    first = await bucket.write(KEY, DATA)
    reads = [asyncio.create_task(bucket.read(KEY, version=first.version)) for _ in range(20)]
    await asyncio.sleep(0)
    for number in range(20):
        await bucket.write(f"other/{number}", b"x" * number)
        await bucket.read(f"other/{number}")

    assert [bytes(read.data) for read in await asyncio.gather(*reads)] == [DATA] * 20
