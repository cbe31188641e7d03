"""`codweb index --watch`: a round reads what changed, and one that fails is not the last."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.commands import index as command
from app.main import open_archive
from app.settings import Settings
from storage.catalogue.base import KnownSeries
from storage.errors import StorageUnavailable
from tests.support.buckets import FailingBucket, RecordingBucket
from tests.support.stores import loaded


async def test_a_second_round_over_an_unchanged_datastore_only_lists_it(tmp_path: Path) -> None:
    bucket = RecordingBucket(await loaded("append"))
    archive = open_archive(Settings(state_dir=tmp_path, share_indexes=True), bucket)
    done: set[KnownSeries] = set()
    console = Console(quiet=True)
    try:
        for _ in range(2):  # the first builds, the second sees that all is deep
            assert await command._once(archive, console, done, build=True) == 0
        bucket.reset()
        assert await command._once(archive, console, done, build=True) == 0
    finally:
        await archive.close()

    assert {request.verb for request in bucket.requests} == {"list"}


async def test_a_watch_goes_on_after_a_round_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = FailingBucket(await loaded("append"))
    bucket.fail("list", lambda key: True, StorageUnavailable("the cable is out"), times=1)
    rounds: list[float] = []

    async def pause(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    class Pausing:
        sleep = staticmethod(pause)

    opened: Any = open_archive(Settings(state_dir=tmp_path), bucket)
    monkeypatch.setattr(command, "open_archive", lambda settings: opened)
    monkeypatch.setattr(command, "asyncio", Pausing)
    with pytest.raises(KeyboardInterrupt):
        await command._run(Settings(state_dir=tmp_path), Console(), watch=True, build=True)

    said = capsys.readouterr().out
    assert "will look again: the cable is out" in said
    assert "1 series: 1 new" in said
