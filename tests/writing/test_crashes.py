"""Writers that are killed at every step of every change, while others read: as before or as after, and never mixed.

After each kill the same command is repeated by a new process of the same host: it takes over, and completes.
"""

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage.checking import check_datastore
from storage.keys import study_prefix
from tests.support.moto_server import moto, s3_credentials
from tests.writing.builders import assert_holds
from tests.writing.commands import COMMANDS, Command, carry_out, files_of
from tests.writing.places import Place, place, zygote
from tests.writing.watcher import Seen, Watcher
from tests.writing.zygote import Job, Outcome, Zygote

pytestmark = pytest.mark.long

__all__ = ["moto", "place", "s3_credentials", "zygote"]

EVERY_STEP = os.environ.get("WRITERS_KILLED_AT_EVERY_STEP") == "1"
"""Else, in S3, steps that only read are left out, and in a folder those behind which nothing is different."""


@dataclass
class Row:
    """A line of the table: one command in one store, killed at one kind of steps."""

    name: str
    kills: int = 0
    frozen: "Counter[Seen]" = field(default_factory=Counter)
    """What readers saw of the state that the dead writer left."""
    sides: "Counter[Seen]" = field(default_factory=Counter)
    """What the whole of it was, kill by kill."""
    repeated: int = 0
    looks: int = 0

    def __str__(self) -> str:
        sides = "  ".join(f"{side} {self.sides[side]:3}" for side in (Seen.BEFORE, Seen.AFTER, Seen.BUSY))
        seen = "  ".join(f"{each} {self.frozen[each]:5}" for each in Seen)
        kills = f"kills {self.kills:3}, completed {self.repeated:3}, {self.looks:3} looks meanwhile"
        return f"{self.name:34} {kills} | left {sides} | answers {seen}"


class Crash:
    """One kill and what follows."""

    def __init__(self, place: Place, zygote: Zygote, command_name: str, state: Path, row: Row) -> None:
        self._place = place
        self._zygote = zygote
        self._name = command_name
        self._command = COMMANDS[command_name]
        self._key = place.new_key()
        self._state = state
        self._row = row

    async def run(self, *, reader: str, **kill: object) -> Outcome:
        """Kill a writer, look, and let another one complete.

        Args:
            reader: what its state folder holds before: a `quick` or a `deep` index, or nothing (`cold`).
        """
        await self._begin()
        watcher, fresh = (
            Watcher(
                self._place.bucket,
                self._state / name,
                self._key,
                self._command,
                most_instances=self._place.most_instances,
            )
            for name in ("warm", "fresh")
        )
        try:
            if reader != "cold" and self._command.before:
                if reader == "deep":
                    await watcher.deepen()
                await watcher.look()
            outcome = await self._watched(watcher, self._place.job(self._key, self._name, **kill))
            if outcome.is_killed:
                self._row.kills += 1
                await self._look_at_what_is_left(watcher, fresh)
            [again] = [await self._watched(watcher, self._place.job(self._key, self._name))]
            assert outcome.error + again.error == ""
            self._row.repeated += outcome.is_killed
            await watcher.look()
            assert await watcher.look() <= Counter({Seen.AFTER: 99, Seen.BOTH: 99})
            assert watcher.wrong + fresh.wrong == []
        finally:
            await watcher.close()
            await fresh.close()
        await self._is_complete()
        return outcome

    async def _begin(self) -> None:
        if self._command.before:
            await carry_out(self._place.bucket, self._key, Command({}, self._command.before))

    async def _watched(self, watcher: Watcher, job: Job) -> Outcome:
        """Let a writer run, and look as often as there is time for it."""
        running = asyncio.ensure_future(self._zygote.run(job))
        while not running.done():
            await watcher.look()
            self._row.looks += 1
            await asyncio.sleep(self._place.pause_seconds)
        [outcome] = await running
        return outcome

    async def _look_at_what_is_left(self, watcher: Watcher, fresh: Watcher) -> None:
        for each in (watcher, fresh):
            seen = await each.look()
            self._row.frozen += seen
            assert not (seen[Seen.BEFORE] and seen[Seen.AFTER]), seen
        side = Seen.BEFORE if seen[Seen.BEFORE] else Seen.AFTER if seen[Seen.AFTER] else Seen.BUSY
        self._row.sides[side] += 1

    async def _is_complete(self) -> None:
        prefix = study_prefix(self._key.study_uid)
        bucket = self._place.bucket
        objects = {info.key: bytes((await bucket.read(info.key)).data) async for info in bucket.list(prefix)}
        if not self._command.after:
            assert objects == {}
            return
        series = assert_holds(objects, files_of(self._command.after, self._key), self._key)
        assert [series.value_of(uid) for uid in series.entries] == list(self._command.after.values())
        assert [finding async for finding in check_datastore(bucket, prefix=prefix, all_bytes=True)] == []


def _chosen(names: Sequence[str], store: str) -> list[int]:
    """The steps, from 1, at which a writer is killed: all of them, or those that leave something else behind."""
    if EVERY_STEP:
        return list(range(1, len(names) + 1))
    if store == "s3":
        return [number for number, name in enumerate(names, 1) if name.startswith("after")]
    return [number for number, name in enumerate(names, 1) if name not in ("utime", "mkdir", "open", "fsync")]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_writer_that_is_killed_leaves_the_state_before_or_the_one_after(
    place: Place, zygote: Zygote, tmp_path: Path, command: str
) -> None:
    """Killed before and after every call to the bucket and between the pieces; in a folder, at every change of a file."""
    rows = []
    readers = itertools.cycle(["quick", "deep", "cold"])
    states = (tmp_path / f"state-{number}" for number in itertools.count(1))
    for level in ["bucket", "system"] if place.name == "folder" else ["bucket"]:
        row = Row(f"{command}, {place.name}, {level}")
        whole = await Crash(place, zygote, command, next(states), Row("")).run(reader="quick", level=level)
        assert not whole.is_killed
        steps = _chosen(whole.steps, place.name)
        for step in steps:
            crash = Crash(place, zygote, command, next(states), row)
            outcome = await crash.run(reader=next(readers), level=level, kill_at=step)
            assert outcome.is_killed, (step, outcome)
        assert len(steps) >= (5 if place.name == "s3" else 10)
        assert row.kills == row.repeated == sum(row.sides.values()) == len(steps)
        rows.append(row)
    row = Row(f"{command}, {place.name}, at any moment")
    moments = random.Random(7)
    for _ in range(place.random_kills):
        crash = Crash(place, zygote, command, next(states), row)
        await crash.run(reader=next(readers), kill_after_seconds=moments.uniform(0.005, place.longest_seconds))
    rows.append(row)
    print("", *rows, sep="\n")
