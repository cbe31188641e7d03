"""A store that fails within a change, at every step of it, once or for good; and a caller that is cancelled there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from storage.bucket import Bucket
from storage.bucket.base import ObjectInfo, Piece, StoredRange
from storage.bucket.memory import MemoryBucket
from storage.errors import SeriesLocked, SeriesUnfinished, StorageError, StorageUnavailable, TryAgain
from storage.writing import writer as writer_module
from tests.support.buckets import Request, WrappedBucket
from tests.writing.builders import KEY, assert_holds, objects_of
from tests.writing.commands import COMMANDS, Command, carry_out, files_of

pytestmark = pytest.mark.long


class StepwiseBucket(WrappedBucket):
    """Does something at one of its steps: before a call, before a piece of an upload, or when a change is made.

    A failure after a change is an answer that was lost on its way.
    """

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self.steps: list[str] = []
        self.first = self.last = 0
        """Steps, counted from 1, at which something happens; 0: at none."""
        self.cancels: asyncio.Task[None] | None = None
        """Who is cancelled then; None: the step fails."""

    async def reach(self, name: str) -> None:
        self.steps.append(name)
        if self.first <= len(self.steps) <= self.last:
            if self.cancels is None:
                raise TryAgain(f"step {len(self.steps)} fails: {name}")
            self.cancels.cancel()
            await asyncio.sleep(0)

    async def before(self, request: Request) -> None:
        await self.reach(f"{request.verb} {request.key}")

    async def given(self, request: Request, piece: Piece) -> None:
        if request.verb == "upload":
            await self.reach("piece")

    async def write(self, key: str, data: bytes) -> ObjectInfo:
        return await self._done(await super().write(key, data))

    async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
        try:
            return await self._done(await super().upload(key, pieces))
        except TryAgain as error:
            raise StorageUnavailable(str(error)) from error

    async def create(self, key: str, data: bytes) -> ObjectInfo:
        return await self._done(await super().create(key, data))

    async def replace(self, key: str, data: bytes, *, version: str) -> ObjectInfo:
        return await self._done(await super().replace(key, data, version=version))

    async def delete(self, key: str) -> None:
        await super().delete(key)
        await self.reach(f"after {key}")

    async def _done(self, info: ObjectInfo) -> ObjectInfo:
        await self.reach(f"after {info.key}")
        return info


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload is begun again after a second, which nobody needs to wait for here."""
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_SECONDS", 0.001)


async def begun(command: Command) -> StepwiseBucket:
    inner = MemoryBucket("faults")
    if command.before:
        await carry_out(inner, KEY, Command({}, command.before))
    return StepwiseBucket(inner)


async def steps_of(command: Command) -> Sequence[str]:
    bucket = await begun(command)
    await carry_out(bucket, KEY, command)
    return bucket.steps


async def side_of(bucket: Bucket, command: Command) -> str:
    """Which state the series is in, when no lock is left: one of the two, whole."""
    objects = await objects_of(bucket)
    if KEY.lock in objects:
        return "locked"
    for name, state in (("after", command.after), ("before", command.before)):
        with suppress(AssertionError, KeyError):
            if not state:
                assert objects == {}
            else:
                series = assert_holds(objects, files_of(state, KEY))
                assert [series.value_of(uid) for uid in series.entries] == list(state.values())
            return name
    return "neither"


async def assert_completed(bucket: StepwiseBucket, command: Command) -> None:
    """The store is well again: the same command, repeated, does what is left of it."""
    bucket.first = bucket.last = 0
    await carry_out(bucket, KEY, command)
    assert await side_of(bucket.inner, command) == "after"


@pytest.mark.parametrize("times", [1, 2, 10_000])
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_store_that_fails_at_any_step_leaves_one_side_or_a_lock_that_is_taken_over(
    name: str, times: int
) -> None:
    command = COMMANDS[name]
    told = {"completed": 0, "before": 0, "after": 0, "locked": 0}
    for step in range(1, len(await steps_of(command)) + 1):
        bucket = await begun(command)
        bucket.first, bucket.last = step, step + times - 1
        try:
            await carry_out(bucket, KEY, command)
        except (StorageUnavailable, SeriesUnfinished, SeriesLocked):
            side = await side_of(bucket.inner, command)
            assert side in ("before", "after", "locked"), bucket.steps
        else:
            side = "completed"
            assert await side_of(bucket.inner, command) == "after", bucket.steps
        told[side] += 1

        await assert_completed(bucket, command)
    print(f"{name}, {times} times: {told}")
    assert sum(told.values()) >= 20


@pytest.mark.parametrize("name", COMMANDS)
async def test_who_is_cancelled_at_any_step_leaves_one_side_or_a_lock_that_is_taken_over(name: str) -> None:
    command = COMMANDS[name]
    told = {"not cancelled": 0, "before": 0, "after": 0, "locked": 0}
    for step in range(1, len(await steps_of(command)) + 1):
        bucket = await begun(command)
        task = bucket.cancels = asyncio.ensure_future(carry_out(bucket, KEY, command))
        bucket.first = bucket.last = step
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        side = await side_of(bucket.inner, command)
        if outcome is None:
            side = "not cancelled"
            assert await side_of(bucket.inner, command) == "after", bucket.steps
        else:
            assert isinstance(outcome, asyncio.CancelledError), outcome
            assert side in ("before", "after"), (step, bucket.steps)  # a task has the time to bring it to an end
        told[side] += 1

        await assert_completed(bucket, command)
    print(f"{name}: {told}")


async def test_an_upload_that_breaks_off_is_begun_again_and_progress_taken_back() -> None:
    command = COMMANDS["append"]
    steps = await steps_of(command)
    bucket = await begun(command)
    bucket.first = bucket.last = steps.index("piece") + 2

    await carry_out(bucket, KEY, command)

    assert bucket.steps.count(f"upload {KEY.tar}") == 2
    assert await side_of(bucket.inner, command) == "after"


async def test_a_tar_that_is_written_although_the_store_says_otherwise_is_gone_on_with() -> None:
    """The answer to the last request of an upload is lost: nobody needs to send it all again."""
    command = COMMANDS["append"]
    steps = await steps_of(command)
    bucket = await begun(command)
    bucket.first = bucket.last = steps.index(f"after {KEY.tar}") + 1

    await carry_out(bucket, KEY, command)

    assert bucket.steps.count(f"upload {KEY.tar}") == 1
    assert await side_of(bucket.inner, command) == "after"


async def test_an_upload_whose_end_comes_late_is_not_taken_for_the_work_of_a_stranger() -> None:
    """The store gives an upload up, and finishes it all the same while it is begun again."""
    command = COMMANDS["replace"]

    class Late(WrappedBucket):
        kept: bytes = b""

        async def upload(self, key: str, pieces: AsyncIterator[Piece]) -> ObjectInfo:
            if not self.kept:
                aside = MemoryBucket("aside")
                await aside.write(key, bytes((await self.inner.read(key)).data))
                version = (await self.inner.head(key)).version
                aside_version = (await aside.head(key)).version

                async def moved() -> AsyncIterator[Piece]:
                    async for piece in pieces:
                        if isinstance(piece, StoredRange):
                            assert piece.version == version
                            piece = replace(piece, version=aside_version)
                        yield piece

                await aside.upload(key, moved())
                self.kept = bytes((await aside.read(key)).data)
                raise StorageUnavailable("gave up")
            await self.inner.write(key, self.kept)
            return await self.inner.upload(key, pieces)

    bucket = Late((await begun(command)).inner)

    await carry_out(bucket, KEY, command)

    assert await side_of(bucket.inner, command) == "after"


async def test_what_fails_for_good_is_told_with_the_series_and_what_to_do() -> None:
    command = COMMANDS["rewrite"]
    steps = await steps_of(command)
    bucket = await begun(command)
    bucket.first, bucket.last = steps.index(f"write {KEY.stem}/index.sqlite") + 1, 10_000

    with pytest.raises(SeriesUnfinished, match="repeat the command on this host") as caught:
        await carry_out(bucket, KEY, command)

    assert str(KEY) in str(caught.value)
    assert isinstance(caught.value.__cause__, StorageError)
