"""Sixteen processes and one series: one at a time, nothing lost, and the others know who holds it."""

import re

import pytest

from storage.keys import SeriesKey
from tests.support.moto_server import moto, s3_credentials
from tests.writing.builders import assert_holds, objects_of, slice_file, told, uid_of
from tests.writing.commands import COMMANDS, Command, carry_out, files_of
from tests.writing.places import Place, place, zygote
from tests.writing.zygote import Zygote

pytestmark = pytest.mark.long

__all__ = ["moto", "place", "s3_credentials", "zygote"]

WRITERS = 16
LOCKED = re.compile(
    r"SeriesLocked: series .* (is locked by writer (\d+) \(process \d+ on host \S+\) since 20\d\d-.*"
    r"|another writer held the lock a moment ago; try again"
    r"|another process of this host has just taken over a lock that was left behind; try again)"
)


@pytest.mark.parametrize("wait_seconds", [0, 60])
async def test_of_many_writers_one_at_a_time_wins_and_nothing_is_lost(
    place: Place, zygote: Zygote, wait_seconds: float
) -> None:
    key = place.new_key()
    numbers = range(1, WRITERS + 1)

    outcomes = await zygote.run(
        *(place.job(key, str(number), level="none", wait_seconds=wait_seconds) for number in numbers)
    )

    won = {number for number, outcome in zip(numbers, outcomes, strict=True) if outcome.error == ""}
    for outcome in outcomes:
        said = LOCKED.fullmatch(outcome.error)
        assert outcome.error == "" or (said is not None and wait_seconds == 0), outcome.error
    print(f"{place.name}, waiting {wait_seconds} s: {len(won)} of {WRITERS} stored their instance")
    assert won
    assert wait_seconds == 0 or len(won) == WRITERS
    objects = await objects_of(place.bucket)
    order = list(told(objects, key).stated)
    assert_holds(objects, {uid: slice_file(uid, _number(uid), key=key) for uid in order}, key)
    assert set(order) == {uid_of(number) for number in won}


def _number(uid: str) -> int:
    return int(uid.rpartition(".")[2]) - 1000


@pytest.mark.parametrize("step", ["after create .gradient.lock", "after replace .gradient.lock", "after upload tar"])
async def test_of_many_that_find_the_lock_of_a_dead_writer_one_takes_it_over(
    place: Place, zygote: Zygote, step: str
) -> None:
    command = COMMANDS["append"]
    key = place.new_key()
    await left_behind(place, zygote, key, step)

    outcomes = await zygote.run(*(place.job(key, "append", level="none") for _ in range(6)))

    assert any(outcome.error == "" for outcome in outcomes)
    for outcome in outcomes:
        assert outcome.error.startswith(("SeriesLocked: ", "")), outcome
        assert outcome.error == "" or "SeriesLocked" in outcome.error
    objects = await objects_of(place.bucket)
    assert_holds(objects, files_of(command.after, key), key)


async def left_behind(place: Place, zygote: Zygote, key: SeriesKey, step: str) -> None:
    """A series whose writer was killed at a step."""
    rehearsal = place.new_key()
    for each in (rehearsal, key):
        await carry_out(place.bucket, each, Command({}, COMMANDS["append"].before))
    [whole] = await zygote.run(place.job(rehearsal, "append"))
    [outcome] = await zygote.run(place.job(key, "append", kill_at=whole.steps.index(step) + 1))
    assert outcome.is_killed
    assert key.lock in await objects_of(place.bucket)
