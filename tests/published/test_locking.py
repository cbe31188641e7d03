"""One writer at a time, whichever of the two it is; the others are told, and nothing is lost."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from storage.checking.findings import Kind
from storage.ingest import ingest
from storage.writing import writing
from tests.conftest import REPOSITORY
from tests.ingest.reading import CT, made
from tests.published.library import Library, LibraryRefused
from tests.published.place import Place, by_uid, complaints, flaws, key_of_file, stored_by_codweb
from tests.support.gcs_fake import GcsFake

pytestmark = pytest.mark.long

FILES_EACH = 4

MET_A_LOCK = re.compile(r"LockAcquisitionError: |NotFound: 404 GET .*\.gradient\.lock")
"""The library asks whether there is a lock and then looks at it, and stumbles if it went in between; nothing is done then."""


async def test_codweb_leaves_a_series_alone_that_the_library_holds(place: Place, library: Library) -> None:
    key = await stored_by_codweb(place.bucket, *CT[:2])
    library.hold(place.url, key)
    before = place.versions()

    report = await ingest([CT[2]], place.bucket)

    (complaint,) = complaints(report)
    assert "is locked by another writer since 20" in complaint
    assert "does not say by whom" in complaint
    assert report.new == []
    assert place.versions() == before
    library.release()
    assert await stored_by_codweb(place.bucket, CT[2]) == key


async def test_the_library_leaves_a_series_alone_that_codweb_holds(
    place: Place, library: Library, tmp_path: Path
) -> None:
    key = await stored_by_codweb(place.bucket, *CT[:2])
    async with writing(place.bucket, key):
        before = place.versions()

        for mode in ("a", "w"):
            with pytest.raises(LibraryRefused, match=r"LockAcquisitionError: .*DIFF_GEN_LOCK_ALREADY_EXISTS"):
                library.append(place.url, key, [CT[2]], mode=mode)

        assert place.versions() == before
    assert library.append(place.url, key, [CT[2]]).errors == []
    assert await place.read(key, tmp_path) == by_uid(*CT[:3])


async def test_the_library_does_not_take_an_old_lock_of_codweb_for_an_empty_one(place: Place, library: Library) -> None:
    """It may be told to take away locks that are old and list no instances; ours lists them."""
    key = await stored_by_codweb(place.bucket, *CT[:2])
    async with writing(place.bucket, key):
        left_behind = bytes((await place.bucket.read(key.lock)).data)
    place.put(key.lock, left_behind, age_seconds=7200)

    with pytest.raises(LibraryRefused, match="CANNOT_OVERRIDE_NON_EMPTY_LOCK"):
        library.hold(place.url, key, override_age=1)


async def test_what_the_library_forgets_when_it_reads_before_it_locks_is_found_and_stored_again(
    place: Place, library: Library, tmp_path: Path
) -> None:
    """The library reads metadata.json, then takes the lock, and never looks again: a session of another writer in between
    falls out of its metadata. No writer can keep it from that; its own copy of the tar has the bytes."""
    key = await stored_by_codweb(place.bucket, *CT[:2])
    library.begin_append(place.url, key, [CT[2]])
    await stored_by_codweb(place.bucket, CT[3])

    assert library.end_append().errors == []

    assert (await place.read(key, tmp_path / "1")).keys() == by_uid(*CT[:3]).keys()
    (finding,) = await flaws(place.bucket)
    assert finding.kind is Kind.ORPHAN_MEMBER
    await stored_by_codweb(place.bucket, CT[3])
    assert await place.read(key, tmp_path / "2") == by_uid(*CT[:4])


class CodwebWriter:
    """A process of codweb that stores files one by one in one series; see `codweb_writer.py`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls, place: Place, endpoint: str, files: list[Path]) -> Iterator["CodwebWriter"]:
        """Started, and waiting for the word."""
        command = [sys.executable, "-m", "tests.published.codweb_writer", place.url, endpoint, *map(str, files)]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def wait_until_ready(self) -> None:
        assert self._out.readline() == "ready\n"

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("begin\n")
        self._process.stdin.flush()

    def complaints(self) -> list[str]:
        """What it was told each time it had to try again; waits until it has stored everything."""
        told: list[str] = []
        for line in self._out:
            if line == "done\n":
                return told
            told.append(json.loads(line))
        raise AssertionError("a writer ended before it had stored everything")

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout


def stored_by_library(library: Library, place: Place, files: list[Path]) -> None:
    """Append file by file, each as often as it takes, from when somebody else holds the lock."""
    lock = key_of_file(files[0]).lock
    while lock not in place.versions():
        time.sleep(0.005)
    for path in files:
        while True:
            try:
                appended = library.append(place.url, key_of_file(path), [path])
            except LibraryRefused as refused:
                if not MET_A_LOCK.match(str(refused)):
                    raise
            else:
                assert (len(appended.new), appended.errors) == (1, [])
                break


async def test_two_processes_of_codweb_beside_the_library_lose_nothing(
    place: Place, library: Library, fake: GcsFake, tmp_path: Path
) -> None:
    """The requests of codweb are slow here, so that no session of it falls into the moment that the library sleeps through."""
    files = [made(tmp_path / f"{number}.dcm", f"1.2.826.0.1.3680043.9.{number}") for number in range(3 * FILES_EACH)]
    key = key_of_file(files[0])
    with ExitStack() as stack:
        writers = [
            stack.enter_context(CodwebWriter.started(place, fake.endpoint, files[number::3])) for number in (0, 1)
        ]
        for writer in writers:
            writer.wait_until_ready()
        for writer in writers:
            writer.begin()
        await asyncio.to_thread(stored_by_library, library, place, files[2::3])
        told = [each for writer in writers for each in await asyncio.to_thread(writer.complaints)]

    assert await place.read(key, tmp_path / "state") == by_uid(*files)
    series = library.read(place.url, key)
    assert series.unsound == ""
    assert {uid: instance.data for uid, instance in series.instances.items()} == by_uid(*files)
    assert await flaws(place.bucket) == []
    assert {each for each in told if "is locked by" not in each and "held the lock a moment ago" not in each} == set()
    assert any("(process " in each and " since 20" in each for each in told)
