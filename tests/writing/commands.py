"""What writers in tests do to a series: commands that can be repeated, as those of an ingest can.

Each has a state before and one after, as values by number of the slice; `change_of` tells what is still to be done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from storage.bucket import Bucket
from storage.keys import SeriesKey
from storage.writing import Change, NewInstance, StoredSeries, read_stored, writing
from tests.writing.builders import made, slice_file, uid_of

Values = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Command:
    """A change of one series, and the states that it leads from and to."""

    before: Values
    """By number of the slice; in the order in which they lie. Nothing: there is no series."""
    after: Values
    is_rewrite: bool = False

    def change_of(self, stored: StoredSeries, key: SeriesKey) -> Change | None:
        """What is still to be done; None: nothing."""
        present = {uid: entry.crc32c for uid, entry in stored.entries.items()}
        wanted = {uid_of(number): made(number, value, key=key) for number, value in self.after.items()}
        if present == {uid: new.crc32c for uid, new in wanted.items()}:
            return None
        if self.is_rewrite:
            return Change(add=tuple(wanted.values()), is_rewrite=True)
        missing = tuple(new for uid, new in wanted.items() if present.get(uid) != new.crc32c)
        gone = present.keys() - wanted.keys() | (present.keys() & {new.instance_uid for new in missing})
        return Change(add=missing, remove=frozenset(gone))


def _values(*numbers: int, plus: int = 0) -> Values:
    return {number: number + plus for number in numbers}


COMMANDS = {
    "new": Command({}, _values(1, 2, 3)),
    "append": Command(_values(1, 2, 3), _values(1, 2, 3, 4, 5)),
    "rewrite": Command(_values(1, 2, 3), _values(1, 2, 3, plus=50), is_rewrite=True),
    "replace": Command(_values(1, 2, 3), {1: 1, 2: 2, 3: 53}),
    "remove": Command(_values(1, 2, 3, 4, 5), _values(2, 4, 5)),
    "remove all": Command(_values(1, 2, 3), {}),
}


def files_of(values: Values, key: SeriesKey) -> dict[str, bytes]:
    """P10s by UID."""
    return {uid_of(number): slice_file(uid_of(number), value, key=key) for number, value in values.items()}


async def carry_out(bucket: Bucket, key: SeriesKey, command: Command, *, wait_seconds: float = 0.0) -> None:
    """Do what is still to be done of a command. Raises as `writing` and `SeriesWriter.commit`."""
    announced = command.change_of(await read_stored(bucket, key), key)
    async with writing(bucket, key, owner="a test", announce=announced, wait_seconds=wait_seconds) as series:
        change = command.change_of(series.stored, key)
        if change is not None and announced is not None and _are_alike(change, announced):
            change = announced
        if change is not None:
            await series.commit(change)


async def add_one(bucket: Bucket, key: SeriesKey, number: int, *, wait_seconds: float = 0.0) -> None:
    """Store one slice, if it is not there."""
    new = made(number, key=key)
    change = Change(add=(new,))
    async with writing(bucket, key, owner=f"writer {number}", announce=change, wait_seconds=wait_seconds) as series:
        if uid_of(number) not in series.stored.entries:
            await series.commit(change)


def _are_alike(one: Change, other: Change) -> bool:
    def identity(change: Change) -> tuple[object, ...]:
        return [_identity(new) for new in change.add], change.remove, change.is_rewrite

    return identity(one) == identity(other)


def _identity(new: NewInstance) -> tuple[str, int]:
    return new.instance_uid, new.crc32c
