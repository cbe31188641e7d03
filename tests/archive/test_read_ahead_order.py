"""The planning half of read-ahead, without bytes: what is taken for an order, and what is fetched for it."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from storage.archive.read_ahead.access import Access
from storage.archive.read_ahead.access_order import AccessOrder, Run
from storage.archive.read_ahead.options import ReadAheadOptions
from storage.archive.read_ahead.plan import blocks_after, blocks_for, gaps
from storage.ranges import ByteRange

OPTIONS = ReadAheadOptions(block_bytes=1000, budget_bytes=8000)
STACK = ByteRange(50, 9_730)

stretches = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda ends: ByteRange(min(ends), max(ends)))


def item(number: int) -> ByteRange:
    return ByteRange(100 * number, 100 * number + 90)


def after(numbers: list[int]) -> Run:
    """The run of the last of some items."""
    order = AccessOrder()
    for number in numbers:
        run, _ = order.observe(item(number))
    return run


def disjoint(parts: list[ByteRange]) -> list[ByteRange]:
    """Some of the parts, ascending and without overlap, as blocks are held."""
    kept: list[ByteRange] = []
    for part in sorted(parts, key=lambda part: part.start):
        if part.length and (not kept or part.start >= kept[-1].stop):
            kept.append(part)
    return kept


def test_one_read_is_no_order_and_a_neighbour_of_it_is() -> None:
    assert after([40]).steps == 0
    assert after([40, 41]).steps == 1
    assert after([40, 39]).steps == 1


def test_reading_one_item_again_is_no_order() -> None:
    assert after([40, 40, 40]).steps == 0


def test_directions_are_those_of_the_last_steps() -> None:
    assert after([10, 11, 12]).directions == (1,)
    assert after([12, 11, 10]).directions == (-1,)
    assert after([10, 11, 9, 12, 8]).directions == (-1, 1)
    assert after([10, 11]).directions == ()


def test_a_scroll_that_turns_round_is_followed_once_it_leaves_what_it_read_lately() -> None:
    there = list(range(0, 60))
    back = list(range(58, 20, -1))

    assert after(there + back).directions == (-1,)


def test_six_connections_may_deliver_neighbours_in_any_order() -> None:
    dice = random.Random(3)
    numbers = [n + dice.randrange(6) / 10 for n in range(0, 200)]  # each overtaken by a few at most
    shuffled = [int(n) for n in sorted(range(200), key=lambda n: numbers[n] + 5 * dice.random())]

    run = after(shuffled)

    assert run.directions == (1,)
    assert run.steps > 50


def test_what_lies_elsewhere_begins_a_run_of_its_own_and_does_not_end_the_first() -> None:
    """OHIF fetches the thumbnail of the middle slice between the first two slices of its scroll."""
    order = AccessOrder()
    runs = [order.observe(item(number))[0] for number in (450, 225, 449, 448)]

    assert runs[0] is runs[2] is runs[3]
    assert runs[1] is not runs[0]


def test_a_read_between_two_runs_belongs_to_the_nearer_one() -> None:
    order = AccessOrder()
    order.observe(item(10))
    right, _ = order.observe(item(25))

    assert order.observe(item(18))[0] is right


def test_a_run_that_was_left_for_many_others_is_forgotten_once() -> None:
    order = AccessOrder()
    first, _ = order.observe(item(0))

    forgotten = [run for number in (100, 200, 300, 400, 500) for run in order.observe(item(number))[1]]

    assert forgotten[0] is first
    assert len(forgotten) == 2


def test_blocks_of_a_stack_lie_on_one_grid_inside_its_extent() -> None:
    access = Access("r", STACK, item=item(20), position=20)

    assert blocks_for(item(20), access, after([19, 20]), None, [], OPTIONS) == [
        ByteRange(1050, 2050),
        ByteRange(2050, 3050),
    ]
    assert blocks_for(item(96), access, after([95, 96]), None, [], OPTIONS) == [ByteRange(9050, 9730)]


def test_the_block_that_is_held_is_not_fetched_again() -> None:
    access = Access("r", STACK, item=item(20), position=20)
    held = [ByteRange(1050, 2050)]

    assert blocks_for(item(20), access, after([19, 20]), None, held, OPTIONS) == [ByteRange(2050, 3050)]


def test_blocks_after_lie_in_the_direction_of_the_scroll() -> None:
    access = Access("r", STACK, item=item(50), position=50)

    assert blocks_after(access, after([48, 49, 50]), [], OPTIONS, most=2) == [
        ByteRange(6050, 7050),
        ByteRange(7050, 8050),
    ]
    assert blocks_after(access, after([52, 51, 50]), [], OPTIONS, most=2) == [
        ByteRange(3050, 4050),
        ByteRange(2050, 3050),
    ]
    assert blocks_after(access, after([96, 97]), [], OPTIONS, most=2) == []


def test_outside_its_extent_a_read_is_alone() -> None:
    access = Access("r", ByteRange(0, 2000), item=item(20))

    assert blocks_for(item(20), access, after([19, 20]), None, [], OPTIONS) == []


def test_slices_listed_in_order_are_an_order_although_the_tar_has_another() -> None:
    access = Access("r", ByteRange(0, 8000), item=item(20), position=3)
    listed = AccessOrder()
    for position in (1, 2, 3):
        run, _ = listed.observe(ByteRange(position, position + 1))

    assert blocks_for(item(20), access, after([20]), run, [], OPTIONS) == [ByteRange(2000, 3000)]
    run.fetched_bytes = 8000
    assert blocks_for(item(20), access, after([20]), run, [], OPTIONS) == []  # it was paid once, and pushed out


@given(stretches, st.lists(stretches))
def test_gaps_and_held_parts_make_up_the_range(wanted: ByteRange, parts: list[ByteRange]) -> None:
    held = disjoint(parts)

    missing = gaps(wanted, held)

    units = {unit for gap in missing for unit in range(gap.start, gap.stop)}
    known = {unit for part in held for unit in range(part.start, part.stop)}
    assert units == set(range(wanted.start, wanted.stop)) - known
    assert sum(gap.length for gap in missing) == len(units)


@given(
    st.lists(st.integers(0, 96), min_size=1, max_size=60),
    st.booleans(),
    st.lists(st.integers(0, 10), max_size=6),
    st.integers(0, 9000),
)
def test_plans_cover_the_read_overlap_nothing_and_stay_inside_the_extent(
    numbers: list[int], is_stack: bool, blocks: list[int], fetched: int
) -> None:
    run, wanted = after(numbers), item(numbers[-1])
    run.asked_bytes, run.fetched_bytes = 90 * len(numbers), fetched
    access = Access("r", STACK, item=wanted if is_stack else None)
    held = disjoint([ByteRange(50 + 1000 * n, min(1050 + 1000 * n, STACK.stop)) for n in blocks if n < 10])

    demanded = blocks_for(wanted, access, run, None, held, OPTIONS)
    later = blocks_after(access, run, sorted([*held, *demanded], key=lambda part: part.start), OPTIONS, most=3)

    everything = sorted([*held, *demanded, *later], key=lambda part: part.start)
    assert all(one.stop <= other.start for one, other in pairwise(everything))
    assert all(STACK.start <= part.start < part.stop <= STACK.stop for part in [*demanded, *later])
    assert all(part.length <= OPTIONS.block_bytes for part in [*demanded, *later])
    if demanded:
        assert gaps(wanted, sorted([*held, *demanded], key=lambda part: part.start)) == []


def test_a_block_that_would_be_hardly_more_than_the_read_is_left_alone() -> None:
    run = after([1, 2, 3, 4, 5, 6])
    access = Access("r", STACK)

    run.asked_bytes, run.fetched_bytes = 540, 450
    assert blocks_for(item(6), access, run, None, [], OPTIONS) == [ByteRange(600, 960)]
    run.fetched_bytes = 540 + 100
    assert blocks_for(item(6), access, run, None, [], OPTIONS) == []


@given(st.lists(st.integers(0, 96), max_size=200))
def test_parts_of_an_instance_never_cost_more_than_one_and_a_half_times_what_was_asked(numbers: list[int]) -> None:
    """Whatever the reader does: the bound is kept at each step, so that it holds wherever he stops."""
    order, held, asked, fetched = AccessOrder(), list[ByteRange](), 0, 0
    for number in numbers:
        wanted = item(number)
        run, _ = order.observe(wanted)
        run.asked_bytes += wanted.length
        asked += wanted.length
        access = Access("r", STACK)
        for planned in (
            *blocks_for(wanted, access, run, None, held, OPTIONS),
            *blocks_after(access, run, held, OPTIONS, most=1),
        ):
            if gaps(planned, held) == [planned]:
                run.fetched_bytes += planned.length
                fetched += planned.length
                held = sorted([*held, planned], key=lambda part: part.start)
        if gaps(wanted, held):
            run.fetched_bytes += wanted.length
            fetched += wanted.length

        assert fetched <= 1.5 * asked
