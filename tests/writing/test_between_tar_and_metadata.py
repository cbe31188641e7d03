"""A writer that stopped where the new tar is in place and metadata.json still the old one: nothing new is in sight.

All files are equally long, so that they fall into each other's places, and each differs from its old one by its pixels.
"""

import asyncio
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storage.bucket.memory import MemoryBucket
from storage.errors import SeriesUnfinished, StorageUnavailable
from tests.support.buckets import FailingBucket, Request, WrappedBucket
from tests.writing.builders import KEY
from tests.writing.commands import COMMANDS, Command, carry_out
from tests.writing.watcher import Seen, Watcher

pytestmark = pytest.mark.long

STATES = st.dictionaries(st.integers(1, 5), st.integers(1, 3), min_size=1, max_size=5)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(before={1: 1, 2: 2, 3: 3}, after={1: 51, 2: 52, 3: 53}, is_rewrite=True)
@example(before={1: 1, 2: 2, 3: 3}, after={3: 1, 2: 1, 1: 2}, is_rewrite=True)
@example(before={1: 1, 2: 2, 3: 3}, after={1: 1, 2: 2, 3: 53}, is_rewrite=False)
@example(before={1: 1}, after={1: 2}, is_rewrite=False)
@given(before=STATES, after=STATES, is_rewrite=st.booleans())
def test_no_reader_sees_new_bytes_under_old_metadata(
    before: dict[int, int], after: dict[int, int], is_rewrite: bool
) -> None:
    """Readers with a quick index of before, a deep one of before, and none; then with one made in the middle."""
    if before == after:
        return
    command = Command(before, after, is_rewrite=is_rewrite)

    async def run(state: Path) -> None:
        store = MemoryBucket("between", cheap_head=True)
        await carry_out(store, KEY, Command({}, before))
        names = (state / str(number) for number in itertools.count(1))
        quick, deep = (Watcher(store, next(names), KEY, command) for _ in range(2))
        await quick.look()
        await deep.deepen()
        await deep.look()

        await break_off(store, command)
        fresh, fresh_and_deep = (Watcher(store, next(names), KEY, command) for _ in range(2))
        await fresh_and_deep.deepen()
        readers = (quick, deep, fresh, fresh_and_deep)
        for reader in readers:
            for _ in range(2):
                seen = await reader.look()
                assert seen[Seen.AFTER] == 0, seen

        await carry_out(store, KEY, command)
        for reader in readers:
            seen = await reader.look()
            assert seen[Seen.BEFORE] == seen[Seen.BUSY] == 0, seen
            assert reader.wrong == []
            await reader.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def break_off(store: MemoryBucket, command: Command) -> None:
    """Carry a command out as far as the tar."""
    broken = FailingBucket(store)
    broken.fail("write", lambda key: key.endswith("index.sqlite"), StorageUnavailable("gone"))
    with pytest.raises(SeriesUnfinished):
        await carry_out(broken, KEY, command)


class _EndsBeforeTheLockIsLookedAt(WrappedBucket):
    """The writer is done just when a reader, in doubt, asks whether there is one."""

    is_armed = False

    async def before(self, request: Request) -> None:
        if self.is_armed and (request.verb, request.key) == ("head", KEY.lock):
            self.is_armed = False
            await carry_out(self.inner, KEY, COMMANDS["rewrite"])


async def test_a_reader_in_doubt_that_finds_the_lock_gone_reads_what_was_written(tmp_path: Path) -> None:
    """And does not call a sound series damaged."""
    store = MemoryBucket("between", cheap_head=True)
    await carry_out(store, KEY, Command({}, COMMANDS["rewrite"].before))
    await break_off(store, COMMANDS["rewrite"])
    bucket = _EndsBeforeTheLockIsLookedAt(store)
    reader = Watcher(bucket, tmp_path, KEY, COMMANDS["rewrite"])
    assert (await reader.look())[Seen.BUSY] > 0

    bucket.is_armed = True
    await reader.look()

    assert not bucket.is_armed
    assert reader.wrong == []
    await reader.close()
