"""Read-ahead at work: shared, bounded, cancelled, failing, and always the object's own bytes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.archive.read_ahead import Access, ReadAhead, ReadAheadOptions
from storage.archive.read_ahead.access_order import Run
from storage.archive.read_ahead.block import Block
from storage.archive.read_ahead.held import HeldBlocks
from storage.bucket.base import ObjectBytes
from storage.bucket.memory import MemoryBucket
from storage.errors import ObjectChanged, StorageUnavailable
from storage.ranges import ByteRange
from tests.archive.virtual_time import run_virtually
from tests.support.buckets import FailingBucket, RecordingBucket, SlowBucket, WrappedBucket

KEY = "studies/1/series/2.tar"
ITEM_BYTES = 100
ITEMS = 96
DATA = random.Random(1).randbytes(ITEM_BYTES * ITEMS)
SMALL = ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=4000)

Work = Callable[[], Coroutine[Any, Any, None]]


class Dribbling(WrappedBucket):
    """Streams in chunks of 64 bytes, so that a block of these tests comes in pieces."""

    async def stream(
        self, key: str, range: ByteRange, *, version: str | None = None, chunk_bytes: int = 64
    ) -> AsyncIterator[memoryview]:
        async for chunk in self.inner.stream(key, range, version=version, chunk_bytes=64):
            yield chunk


async def far(data: bytes = DATA, *, rate: float = 64_000) -> tuple[FailingBucket, RecordingBucket]:
    """An object 30 ms away, whose bytes come slowly; the first face may be told to fail, the second counts."""
    inner = MemoryBucket()
    await inner.write(KEY, data)
    failing = FailingBucket(Dribbling(inner) if len(data) <= len(DATA) else inner)
    return failing, RecordingBucket(SlowBucket(failing, 0.03, rate))


def place(number: int) -> ByteRange:
    return ByteRange(ITEM_BYTES * number, ITEM_BYTES * (number + 1))


def slice_access(number: int, reader: str = "viewer") -> Access:
    return Access(reader, ByteRange(0, len(DATA)), item=place(number))


async def read_slice(ahead: ReadAhead, number: int, reader: str = "viewer", version: str = "1") -> ObjectBytes:
    answer = await ahead.read(KEY, place(number), version=version, access=slice_access(number, reader))
    assert bytes(answer.data) == DATA[place(number).start : place(number).stop]
    return answer


def virtually(work: Work) -> Callable[[], None]:
    """A test on a clock that jumps."""

    def test() -> None:
        run_virtually(work())

    test.__name__, test.__doc__ = work.__name__, work.__doc__
    return test


def streams(bucket: RecordingBucket) -> list[tuple[int | None, int | None]]:
    return [(request.start, request.stop) for request in bucket.requests if request.verb == "stream"]


@virtually
async def test_a_frame_is_answered_when_its_bytes_have_come_and_not_when_the_block_has() -> None:
    _, bucket = await far(rate=1000)  # a block takes a second
    ahead = ReadAhead(bucket, SMALL)
    await read_slice(ahead, 0)
    clock = asyncio.get_running_loop().time
    began = clock()

    await read_slice(ahead, 1)

    assert clock() - began < 0.03 + 0.3
    began = clock()
    await read_slice(ahead, 0)  # its bytes came first
    assert clock() == began
    await ahead.close()


@virtually
async def test_two_readers_of_one_block_cost_one_request() -> None:
    _, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    await asyncio.gather(*(read_slice(ahead, number, reader) for number in (0, 1) for reader in ("a", "b")))

    assert streams(bucket) == [(0, 1000)]
    assert bucket.count("read") == 1  # slice 0, of both
    await ahead.close()


@virtually
async def test_a_reader_who_jumps_into_a_block_of_another_costs_nothing() -> None:
    _, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    await read_slice(ahead, 0, "a")
    await read_slice(ahead, 1, "a")
    before = len(bucket.requests)

    await read_slice(ahead, 5, "b")

    assert len(bucket.requests) == before
    await ahead.close()


@virtually
async def test_cancelling_one_waiter_harms_no_other() -> None:
    _, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    alone = [asyncio.create_task(read_slice(ahead, 0, reader)) for reader in "ab"]
    await asyncio.sleep(0.01)
    alone[0].cancel()
    await alone[1]
    waiting = [asyncio.create_task(read_slice(ahead, 1, reader)) for reader in "ab"]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    await waiting[1]

    assert alone[0].cancelled() and waiting[0].cancelled()
    assert len(bucket.requests) == 2
    await ahead.close()


@virtually
async def test_a_single_read_that_nobody_waits_for_any_more_is_broken_off() -> None:
    _, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    reading = asyncio.create_task(read_slice(ahead, 0))
    await asyncio.sleep(0.01)

    reading.cancel()
    await asyncio.sleep(1)

    assert bucket.bytes_read == 0


@virtually
async def test_a_failing_block_fails_no_reader_who_can_read_by_himself() -> None:
    failing, bucket = await far()
    failing.fail("stream", lambda key: True, StorageUnavailable("throttled"))
    ahead = ReadAhead(bucket, SMALL)

    await asyncio.gather(*(read_slice(ahead, number) for number in range(20)))

    assert bucket.count("read") == 20
    assert ahead.held_bytes == 0


@virtually
async def test_after_a_failed_block_some_slices_are_read_alone_before_the_next_attempt() -> None:
    failing, bucket = await far()
    failing.fail("stream", lambda key: True, StorageUnavailable("throttled"))
    ahead = ReadAhead(bucket, SMALL)

    for number in range(27):
        await read_slice(ahead, number)

    # at the slices 1, 10 and 19; then with the next block, for the direction is known
    assert [start for start, _ in streams(bucket)] == [0, 1000, 2000, 1000, 2000]


@virtually
async def test_a_block_that_breaks_off_serves_what_came_and_the_rest_is_read_alone() -> None:
    failing, bucket = await far()
    failing.break_off(lambda key: True, 500, StorageUnavailable("reset"))
    ahead = ReadAhead(bucket, SMALL)
    await read_slice(ahead, 0)

    await asyncio.gather(*(read_slice(ahead, number) for number in range(1, 10)))

    assert streams(bucket)[0] == (0, 1000)
    assert 0 < bucket.count("read") < 10
    await ahead.close()


@virtually
async def test_the_error_is_that_of_the_readers_own_request() -> None:
    failing, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    await read_slice(ahead, 0)
    failing.fail("stream", lambda key: True, StorageUnavailable("of the block"))
    failing.fail("read", lambda key: True, StorageUnavailable("of the read"), times=1)

    answers = await asyncio.gather(*(read_slice(ahead, number) for number in (1, 2, 3)), return_exceptions=True)

    assert sorted(str(answer) for answer in answers if isinstance(answer, Exception)) == ["of the read"]
    failing.heal()
    await read_slice(ahead, 1)
    await ahead.close()


@virtually
async def test_blocks_belong_to_one_version_of_a_tar() -> None:
    failing, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    for number in range(3):
        await read_slice(ahead, number)
    await asyncio.sleep(1)  # nothing is on its way
    await failing.inner.write(KEY, DATA[::-1])

    with pytest.raises(ObjectChanged):
        await ahead.read(KEY, place(90), version="1", access=slice_access(90))

    assert ahead.held_bytes == 0
    answer = await ahead.read(KEY, place(1), version="2", access=slice_access(1))
    assert bytes(answer.data) == DATA[::-1][100:200]
    await ahead.close()


@virtually
async def test_a_block_on_its_way_that_meets_another_version_takes_all_of_the_old_one_along() -> None:
    failing, bucket = await far(rate=2000)
    ahead = ReadAhead(bucket, SMALL)
    for number in range(10):
        await read_slice(ahead, number)
    assert ahead.held_bytes > 1000
    await failing.inner.write(KEY, DATA[::-1])

    await asyncio.sleep(10)  # nobody reads

    assert ahead.held_bytes == 0


@virtually
async def test_a_tar_that_ends_before_its_index_says_is_read_as_it_is_asked() -> None:
    """A torn entry points behind the end: the slices in front of it are whole."""
    _, bucket = await far(DATA[:2500])
    ahead = ReadAhead(bucket, SMALL)

    for number in range(25):
        await read_slice(ahead, number)

    assert len([stop for _, stop in streams(bucket) if stop is not None and stop > 2500]) == 1
    await ahead.close()


@virtually
async def test_no_more_than_the_budget_is_held_and_what_is_being_read_stays() -> None:
    """Four blocks fit: of eight who scroll at once, some read alone, and nobody's block is taken away from him."""
    _, bucket = await far()
    ahead = ReadAhead(bucket, SMALL)
    most = 0

    async def scroll(reader: int) -> None:
        nonlocal most
        for number in range(12 * reader, 12 * reader + 10):
            await read_slice(ahead, number, str(reader))
            most = max(most, ahead.held_bytes)

    await asyncio.gather(*(scroll(reader) for reader in range(8)))

    assert most <= SMALL.budget_bytes
    assert len(streams(bucket)) == len(set(streams(bucket)))  # no block was pushed out and fetched again
    await ahead.close()


@virtually
async def test_a_block_that_somebody_waits_in_is_not_pushed_out() -> None:
    """One block fits; who scrolls elsewhere meanwhile reads alone."""
    _, bucket = await far(rate=100)
    ahead = ReadAhead(bucket, ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=1000))
    for number in (0, 1):
        await read_slice(ahead, number, "a")
    waiting = asyncio.create_task(read_slice(ahead, 9, "b"))
    for elsewhere in (20, 35, 50, 65):  # the run of the one who began the block is forgotten
        await read_slice(ahead, elsewhere, "a")
    assert not waiting.done()

    for number in (80, 81, 82):
        await read_slice(ahead, number, "c")

    await waiting
    assert streams(bucket) == [(0, 1000)]
    await ahead.close()


@virtually
async def test_who_waits_for_a_block_that_does_not_begin_reads_alone() -> None:
    """Streams may have to wait for a place, behind downloads that nobody takes up."""
    failing, bucket = await far()
    never = asyncio.Event()

    async def stuck(*_: object, **__: object) -> AsyncIterator[memoryview]:
        await never.wait()
        yield memoryview(b"")

    failing.stream = stuck  # type: ignore[method-assign]  # a stream without a place
    ahead = ReadAhead(bucket, SMALL)
    begun = asyncio.get_running_loop().time()
    for number in range(4):
        await read_slice(ahead, number)

    assert asyncio.get_running_loop().time() - begun < 10
    await ahead.close()


@virtually
async def test_a_reader_who_pauses_has_few_blocks_fetched_ahead() -> None:
    _, bucket = await far()
    ahead = ReadAhead(bucket, ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=50_000))
    for number in range(5):
        await read_slice(ahead, number)

    await asyncio.sleep(60)

    assert streams(bucket) == [(0, 1000), (1000, 2000), (2000, 3000), (3000, 4000)]
    await ahead.close()


@virtually
async def test_what_was_fetched_for_a_scroll_that_its_reader_left_is_dropped_and_broken_off() -> None:
    _, bucket = await far(rate=500)
    ahead = ReadAhead(bucket, ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=50_000))
    for number in range(3):
        await read_slice(ahead, number)
    assert ahead.held_bytes == 2000  # the block that is read, and the next one on its way
    held = ahead.held_bytes

    for elsewhere in (30, 45, 60, 75):  # four more places: the first one is forgotten
        await read_slice(ahead, elsewhere)

    assert ahead.held_bytes == held - 1000
    await ahead.close()


@virtually
async def test_who_paused_for_long_keeps_nothing_that_he_never_read() -> None:
    _, bucket = await far()
    ahead = ReadAhead(bucket, ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=50_000))
    for number in range(3):
        await read_slice(ahead, number)
    await asyncio.sleep(60)
    assert ahead.held_bytes == 4000

    for number in (80, 81):
        await read_slice(ahead, number, "another")

    assert ahead.held_bytes == 1000 + 1000  # the block that he read, and the other's
    await ahead.close()


@virtually
async def test_the_two_blocks_of_one_read_do_not_push_out_each_other() -> None:
    """Room is left for one; the slice lies in both, and its order is that of the answers alone."""
    _, bucket = await far()
    options = ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=3500)
    ahead = ReadAhead(bucket, options)
    extent = ByteRange(50, 3050)

    async def listed(number: int, position: int) -> None:
        access = Access("b", extent, item=place(number), position=position)
        answer = await ahead.read(KEY, place(number), version="1", access=access)
        assert bytes(answer.data) == DATA[place(number).start : place(number).stop]

    for number in (60, 61, 75, 76):  # two blocks of one who goes on scrolling
        await read_slice(ahead, number, "a")
    await listed(25, 0)
    await listed(0, 1)

    await listed(10, 2)

    assert ahead.held_bytes <= options.budget_bytes
    await ahead.close()


@virtually
async def test_closing_breaks_off_what_is_on_its_way() -> None:
    _, bucket = await far(rate=10)
    ahead = ReadAhead(bucket, SMALL)
    reading = [asyncio.create_task(read_slice(ahead, number)) for number in range(3)]
    await asyncio.sleep(0.1)

    await ahead.close()

    assert ahead.held_bytes == 0
    for task in reading:
        task.cancel()
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(st.lists(st.integers(0, 19), unique=True), st.integers(0, 200), st.integers(1, 30))
def test_blocks_are_found_by_any_byte_of_theirs(numbers: list[int], start: int, length: int) -> None:
    held = HeldBlocks(1000)
    for number in numbers:  # with bytes between them that nobody holds
        held.add((KEY, "1"), Block(ByteRange(10 * number, 10 * number + 7), Run(place(0))))
    for number in numbers[::3]:
        held.remove(held.within((KEY, "1"), ByteRange(10 * number, 10 * number + 1))[0])
    left = sorted(set(numbers) - set(numbers[::3]))

    found = held.within((KEY, "1"), ByteRange(start, start + length))

    wanted = range(start, start + length)
    assert [block.range.start for block in found] == [
        10 * number for number in left if any(byte in wanted for byte in range(10 * number, 10 * number + 7))
    ]
    assert held.within((KEY, "2"), ByteRange(0, 200)) == []
    assert held.held_bytes == 7 * len(left)


# Parts of one large instance: tiles, frames of a cine

COLUMNS = ROWS = 81
_DICE = random.Random(2)
_STARTS = [0, *accumulate(_DICE.randrange(4_000, 12_000) for _ in range(COLUMNS * ROWS))]
SLIDE = _DICE.randbytes(1 << 16) * (_STARTS[-1] // (1 << 16) + 1)
VIEW_COLUMNS, VIEW_ROWS = 8, 6


def tile(number: int) -> ByteRange:
    return ByteRange(_STARTS[number], _STARTS[number + 1])


async def view(tiles: list[int]) -> tuple[int, float]:
    """Read tiles by six connections; returns the requests, and the bytes read for each byte that was asked."""
    _, bucket = await far(SLIDE, rate=100e6)
    ahead = ReadAhead(bucket, ReadAheadOptions(mode="on"))
    left = iter(tiles)

    async def connection() -> None:
        for number in left:
            access = Access("viewer", ByteRange(0, _STARTS[-1]))
            answer = await ahead.read(KEY, tile(number), version="1", access=access)
            assert answer.data == SLIDE[tile(number).start : tile(number).stop]

    await asyncio.gather(*(connection() for _ in range(6)))
    await ahead.close()
    return len(bucket.requests), bucket.bytes_read / sum(tile(number).length for number in tiles)


def test_random_tiles_cost_a_request_each_and_their_own_bytes() -> None:
    tiles = random.Random(5).sample(range(COLUMNS * ROWS), 500)

    requests, ratio = run_virtually(view(tiles))

    assert requests == 500
    assert ratio <= 1.02


@pytest.mark.parametrize("step", [(3, 0), (0, 2), (1, 1), (-2, 1)], ids=["right", "down", "aslant", "back"])
def test_panning_over_a_slide_stays_near_its_own_bytes(step: tuple[int, int]) -> None:
    seen: dict[int, None] = {}
    column, row = (40, 20)
    for _ in range(12):
        for y in range(row, row + VIEW_ROWS):
            seen |= dict.fromkeys(y * COLUMNS + x for x in range(column, column + VIEW_COLUMNS))
        column, row = column + step[0], row + step[1]

    requests, ratio = run_virtually(view([number for number in seen if 0 <= number < COLUMNS * ROWS]))

    assert requests <= len(seen)
    assert ratio <= 1.5


def test_frames_of_one_instance_read_one_after_the_other_come_in_blocks_that_grow() -> None:
    requests, ratio = run_virtually(view(list(range(COLUMNS * ROWS))))

    assert requests <= _STARTS[-1] / (8 << 20) + 30
    assert ratio <= 1.05


# Whatever readers do


def steps() -> st.SearchStrategy[list[tuple[str, int, int, bool, bool]]]:
    """Reader, first item, number of items read in order from it, whether they are slices, whether he gives up."""
    return st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(0, ITEMS - 1), st.integers(-25, 25), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=8,
    )


@settings(max_examples=60, deadline=None)
@given(steps(), st.sampled_from([1, 2, 4, 20]), st.sampled_from([None, 0, 300]), st.integers(1, 3))
def test_every_read_is_answered_once_with_the_bytes_of_the_object_and_within_the_budget(
    scrolls: list[tuple[str, int, int, bool, bool]], blocks: int, breaks_after: int | None, streams: int
) -> None:
    """The model is the object itself; streams may fail at once, or on their way."""
    options = ReadAheadOptions(mode="on", block_bytes=1000, budget_bytes=1000 * blocks, streams=streams)

    async def read_all() -> None:
        failing, bucket = await far()
        if breaks_after is not None:
            failing.break_off(lambda key: True, breaks_after, StorageUnavailable("reset"))
        ahead = ReadAhead(bucket, options)
        asked = 0

        def within_budget(verb: str, key: str) -> None:
            assert ahead.held_bytes <= options.budget_bytes

        failing.before_each(within_budget)

        async def scroll(reader: str, first: int, count: int, are_slices: bool) -> None:
            nonlocal asked
            for number in range(first, first + count, 1 if count > 0 else -1):
                if 0 <= number < ITEMS:
                    asked += 1
                    part = ByteRange(place(number).start + 7, place(number).stop + 20 * (not are_slices))
                    part = ByteRange(part.start, min(part.stop, len(DATA)))
                    item = place(number) if are_slices else None
                    access = Access(reader, ByteRange(0, len(DATA)), item=item, position=number if are_slices else None)
                    answer = await ahead.read(KEY, part, version="1", access=access)
                    assert bytes(answer.data) == DATA[part.start : part.stop]

        tasks = [asyncio.create_task(scroll(*each[:4])) for each in scrolls]
        await asyncio.sleep(0.05)
        for task, each in zip(tasks, scrolls, strict=True):
            if each[4]:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        assert all(answer is None or isinstance(answer, asyncio.CancelledError) for answer in answers), answers
        assert bucket.count("read") <= asked
        assert bucket.count("stream") <= asked * (2 + options.blocks_ahead)
        await ahead.close()
        await asyncio.sleep(1)  # the generators of the buckets around buckets close behind a cancellation
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(read_all())
