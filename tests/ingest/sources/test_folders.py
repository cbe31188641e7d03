"""Files and folders as sources: everything is found once, in one order, and nothing keeps the rest from being found."""

import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from storage.ingest.sources import Scratch, SourceChanged, find_places
from tests.conftest import DATA
from tests.ingest.sources.conftest import p10
from tests.ingest.sources.finding import find

STORE = DATA / "cod" / "v2_raw" / "dicomweb"


def laid(folder: Path, files: list[tuple[str, bytes]]) -> Path:
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


async def test_every_file_is_found_with_its_bytes_and_a_name_relative_to_its_source(
    tmp_path: Path, files: list[tuple[str, bytes]]
) -> None:
    found = await find(laid(tmp_path, files))

    assert sorted(found.contents) == sorted(files)
    assert (found.refused, found.skipped) == ([], [])
    assert found.shown == (await find(tmp_path)).shown


async def test_a_file_is_a_source_shown_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(p10(b"x"))

    found = await find(tmp_path / "slice", f"file://{tmp_path}/slice", str(tmp_path / "slice"))

    assert found.shown == ["slice"] * 3
    assert len({place.stamp for place in found.places}) == 1


async def test_what_cannot_be_read_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "slice").write_bytes(p10(b"x"))

    found = await find(tmp_path, tmp_path / "absent", "/dev/null")

    assert found.shown == ["slice"]
    assert found.reasons == {
        "fifo": "cannot be read: not a regular file",
        "dangling": "cannot be read: No such file or directory",
        "loop": "cannot be read: Too many levels of symbolic links",
        "absent": "cannot be read: No such file or directory",
        "null": "cannot be read: not a regular file",
    }


async def test_a_source_that_can_be_no_file_is_refused() -> None:
    found = await find("file:///a%00b")

    assert [item.reason for item in found.refused] == ["cannot be read: no name of a file: embedded null byte"]


async def test_links_are_followed_and_a_folder_is_entered_once(tmp_path: Path) -> None:
    laid(tmp_path / "a", [("x", p10(b"x"))])
    laid(tmp_path / "elsewhere", [("y", p10(b"y"))])
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "file").symlink_to(tmp_path / "elsewhere" / "y")

    found = await find(tmp_path / "a")

    assert found.contents == [("file", p10(b"y")), ("x", p10(b"x")), ("far/y", p10(b"y"))]


async def test_folders_may_lie_deeper_than_a_function_may_call_itself(tmp_path: Path) -> None:
    deep = tmp_path / "/".join("d" * 1500)
    folders = [deep, *deep.parents[:1499]]
    for folder in reversed(folders):
        folder.mkdir()
    (deep / "x").write_bytes(p10(b"x"))

    try:
        found = await find(tmp_path)
    finally:  # shutil.rmtree, by which pytest would do it, calls itself too
        (deep / "x").unlink()
        for folder in folders:
            folder.rmdir()

    assert (found.contents, found.refused) == ([("d/" * 1500 + "x", p10(b"x"))], [])


async def test_names_that_are_no_text_are_opened_and_shown_as_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[2J")).write_bytes(p10(b"x"))

    found = await find(tmp_path)

    assert found.contents == [("\N{REPLACEMENT CHARACTER}" * 2 + "[2J", p10(b"x"))]
    assert found.places[0].name.encode()


async def test_a_file_that_changed_since_it_was_found_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "slice"
    path.write_bytes(p10(b"x"))
    (place,) = (await find(path)).places
    path.write_bytes(p10(b"y"))

    with pytest.raises(SourceChanged), place.open():
        pass
    assert (await find(path)).places[0].stamp != place.stamp


async def test_a_file_that_changes_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "slice"
    path.write_bytes(p10(b"x" * 1000))
    (place,) = (await find(path)).places

    with place.open() as source:
        os.truncate(path, 500)
        with pytest.raises(SourceChanged):
            source.read(0, source.size)
        with pytest.raises(SourceChanged):
            source.check()


async def test_a_datastore_as_a_source_gives_its_instances_and_skips_what_is_beside_them(
    manifest: dict[str, Any],
) -> None:
    found = await find(STORE)

    stored = [(DATA / "p10" / name).read_bytes() for name in manifest["stores"]["v2_raw"]["log"]["new"]]
    assert sorted(data for _, data in found.contents) == sorted(stored)
    assert all(shown.startswith("studies/") and ".tar/instances/" in shown for shown in found.shown)
    assert found.refused == []
    assert set(found.skips) == {"metadata.json", "index.sqlite"}


async def test_many_files_are_found_as_they_come(tmp_path: Path) -> None:
    """Memory holds the names of one folder, not the places of all."""
    template = tmp_path / "template"
    template.write_bytes(p10(b"x"))
    for folder in range(10):
        (tmp_path / "many" / str(folder)).mkdir(parents=True)
        for number in range(300):
            os.link(template, tmp_path / "many" / str(folder) / str(number))
    count = 0
    tracemalloc.start()
    try:
        with Scratch() as scratch:
            async for _ in find_places([tmp_path / "many"], [], [], scratch=scratch):
                count += 1
                if count == 300:
                    tracemalloc.reset_peak()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 3000
    assert peak < 1 << 20
    shutil.rmtree(tmp_path / "many")
