"""`codweb unlock`: whose locks there are, and which of them go."""

import asyncio
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli import commands
from storage.bucket.folder import FolderBucket
from storage.cod.lock import LockOwner
from storage.ingest import ingest
from storage.keys import SeriesKey
from tests.ingest.reading import CT, key_of

ELSEWHERE = {"owner": "codweb", "host": "elsewhere", "boot_id": "x", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, ["unlock", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, SeriesKey]:
    """A folder with one series."""

    async def make() -> SeriesKey:
        bucket = FolderBucket(tmp_path)
        report = await ingest(CT[:2], bucket)
        await bucket.close()
        return key_of(report)

    return tmp_path, asyncio.run(make())


def dead() -> dict[str, Any]:
    """The owner object of a process that has ended, written as it would have been."""
    program = (
        "import msgspec, storage.cod.lock as lock; print(msgspec.json.encode(lock.LockOwner.this_process()).decode())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    owner: dict[str, Any] = json.loads(answer.stdout)
    return owner


def alive() -> dict[str, Any]:
    owner = LockOwner.this_process()
    return {name: getattr(owner, name) for name in LockOwner.__slots__}


def lock(store: tuple[Path, SeriesKey], owner: dict[str, Any] | None) -> Path:
    folder, key = store
    path = folder / key.lock
    body = json.loads(gzip.decompress((folder / key.metadata).read_bytes()))
    path.write_bytes(gzip.compress(json.dumps(body | ({} if owner is None else {"codweb": owner})).encode()))
    return path


def test_store_without_locks_says_so(store: tuple[Path, SeriesKey]) -> None:
    result = run(store[0])

    assert (result.exit_code, result.stdout.strip()) == (0, "no series is locked")


def test_help_teaches_by_examples() -> None:
    assert "codweb unlock ./datastore --yes" in run("--help").stdout


@pytest.mark.parametrize(("life", "word"), [("dead", "dead"), ("alive", "runs"), ("elsewhere", "unknown")])
def test_list_says_who_since_when_and_whether_that_process_runs(
    life: str, word: str, store: tuple[Path, SeriesKey]
) -> None:
    owner = {"dead": dead, "alive": alive, "elsewhere": lambda: ELSEWHERE}[life]()
    path = lock(store, owner)

    result = run(store[0])

    assert result.exit_code == 1
    assert word in result.stdout
    assert f"process {owner['pid']}" in result.stdout
    assert str(owner["since"]) in result.stdout
    assert path.exists()


def test_lock_of_a_dead_process_is_removed_and_logged(
    store: tuple[Path, SeriesKey], caplog: pytest.LogCaptureFixture
) -> None:
    path = lock(store, dead())

    result = run(store[0], "--yes")

    assert result.exit_code == 0
    assert "removed; the series is as before" in result.stdout
    assert not path.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert store[1].series_uid in caplog.text


def test_lock_of_an_unknown_holder_is_removed_only_if_its_study_is_named(store: tuple[Path, SeriesKey]) -> None:
    """Nobody here can tell whether a process of another host runs, or who holds a lock of the published library."""
    for owner in (ELSEWHERE, None):
        path = lock(store, owner)

        unnamed = run(store[0], "--yes")
        assert (unnamed.exit_code, path.exists()) == (1, True)
        assert f"repeat with --study {store[1].study_uid}" in unnamed.stdout

        named = run(store[0], "--yes", "--study", store[1].study_uid)
        assert (named.exit_code, path.exists()) == (0, False)


def test_lock_of_a_running_process_is_removed_only_by_force(store: tuple[Path, SeriesKey]) -> None:
    path = lock(store, alive())
    named = ("--study", store[1].study_uid, "--series", store[1].series_uid, "--yes")

    refused = run(store[0], *named)
    forced = run(store[0], *named, "--force")

    assert refused.exit_code == 1
    assert "its process runs" in refused.stdout
    assert forced.exit_code == 0
    assert not path.exists()


def test_only_what_is_named_is_touched(store: tuple[Path, SeriesKey]) -> None:
    path = lock(store, dead())

    result = run(store[0], "--yes", "--study", "1.2.3.4")

    assert result.exit_code == 0
    assert path.exists()


@pytest.mark.parametrize("arguments", [("--series", "1.2"), ("--study", "../x"), ("--force",)])
def test_contradictions_are_refused(arguments: tuple[str, ...], store: tuple[Path, SeriesKey]) -> None:
    assert run(store[0], *arguments).exit_code == 2


def test_what_a_lock_says_does_nothing_to_a_terminal(store: tuple[Path, SeriesKey]) -> None:
    lock(store, ELSEWHERE | {"owner": "\x1b[31mevil[bold]", "host": "h" * 1000, "since": "\x07"})

    result = run(store[0])

    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "evil(bold]" in result.stdout.replace("\n", "")
