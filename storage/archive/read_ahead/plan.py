"""Which ranges to fetch for a read in order, and which ones after it. Pure: what is held goes in, ranges come out.

A stack (slices that are instances of their own) is trusted at the first sign of order: its series is cut into blocks,
and whole blocks are fetched. Parts of one large instance are not, for a viewer that pans over a slide reads many short
rows: there, whatever the reader does, a run costs at most `_MOST_FETCHED` times the bytes that were asked for, so that
blocks grow with the stretch that was read straight on.
"""

from collections.abc import Sequence

from storage.archive.read_ahead.access import Access
from storage.archive.read_ahead.access_order import Run
from storage.archive.read_ahead.options import ReadAheadOptions
from storage.ranges import ByteRange

_STRAIGHT_STEPS = 4
"""Frames of a large instance that must follow one another before more than they are fetched."""
_MOST_FETCHED = 1.5
_STEPS_OF_A_LIST = 2
"""Slices in the order of the answers, in a tar that holds them in another one."""


def gaps(wanted: ByteRange, held: Sequence[ByteRange]) -> list[ByteRange]:
    """The parts of a range that are not held; `held` ascending and without overlap."""
    missing: list[ByteRange] = []
    position = wanted.start
    for part in held:
        if part.stop <= position:
            continue
        if part.start >= wanted.stop:
            break
        if part.start > position:
            missing.append(ByteRange(position, part.start))
        position = part.stop
    if position < wanted.stop:
        missing.append(ByteRange(position, wanted.stop))
    return missing


def blocks_for(
    wanted: ByteRange,
    access: Access,
    run: Run,
    listed: Run | None,
    held: Sequence[ByteRange],
    options: ReadAheadOptions,
) -> list[ByteRange]:
    """What to fetch so that all of `wanted` is held; nothing if it is better read alone.

    Args:
        run: the run in the tar that the read belongs to, the read included.
        listed: its run in the order of the answers.
    """
    missing = gaps(wanted, held)
    if not missing or not _lies_in(wanted, access.extent):
        return []
    if access.item is None:
        return _grown(missing, access, run, held, options)
    if run.steps <= 0 and not _is_list_read(access, listed, options):
        return []
    blocks: list[ByteRange] = []
    for gap in missing:
        first, last = _number(gap.start, access, options), _number(gap.stop - 1, access, options)
        for number in range(first, last + 1):
            parts = gaps(_block(number, access, options), held)
            blocks.extend(part for part in parts if part.start < gap.stop and part.stop > gap.start)
    return sorted(set(blocks), key=lambda block: block.start)


def blocks_after(
    access: Access, run: Run, held: Sequence[ByteRange], options: ReadAheadOptions, *, most: int
) -> list[ByteRange]:
    """What a reader in order will need next, nearest first.

    Args:
        most: blocks in each direction.
    """
    if access.item is None:
        return _further(access, run, held, options, most=most)
    blocks: list[ByteRange] = []
    for distance in range(1, most + 1):
        for way in run.directions:
            edge = min(max(run.high - 1 if way > 0 else run.low, access.extent.start), access.extent.stop - 1)
            number = _number(edge, access, options) + way * distance
            if 0 <= number <= _number(access.extent.stop - 1, access, options):
                blocks.extend(gaps(_block(number, access, options), held))
    return blocks


def window(run: Run, options: ReadAheadOptions, *, most: int) -> ByteRange:
    """The bytes that a run is in or comes to next: nobody else's blocks push them out."""
    around = options.block_bytes
    below = around * (most if -1 in run.directions else 0)
    above = around * (most if 1 in run.directions else 0)
    return ByteRange(max(run.low - below, 0), run.high + above)


def _is_list_read(access: Access, listed: Run | None, options: ReadAheadOptions) -> bool:
    """In order, and scattered over the tar: every block will be needed, and stays until then if there is room.

    A scroll pays for its series once: where others push out the blocks before they are used up, it goes on alone.
    """
    return (
        listed is not None
        and listed.steps >= _STEPS_OF_A_LIST
        and access.extent.length <= options.budget_bytes
        and listed.fetched_bytes < access.extent.length
    )


def _grown(
    missing: list[ByteRange], access: Access, run: Run, held: Sequence[ByteRange], options: ReadAheadOptions
) -> list[ByteRange]:
    """One block as long as the run has earned, from the read on in its direction."""
    if len(missing) != 1 or run.straight_steps() < _STRAIGHT_STEPS:
        return []
    [gap] = missing
    length = min(_earned(run), options.block_bytes)
    if length < 2 * gap.length:
        return []
    if run.last_way > 0:
        grown = ByteRange(gap.start, min(gap.start + length, access.extent.stop))
        return gaps(grown, held)[:1]
    grown = ByteRange(max(gap.stop - length, access.extent.start), gap.stop)
    return gaps(grown, held)[-1:]


def _further(
    access: Access, run: Run, held: Sequence[ByteRange], options: ReadAheadOptions, *, most: int
) -> list[ByteRange]:
    """The block behind those that are held, once a run has earned a whole one."""
    if run.straight_steps() < _STRAIGHT_STEPS or _earned(run) < options.block_bytes:
        return []
    reach = most * options.block_bytes
    if run.last_way > 0:
        ahead = ByteRange(run.high, max(min(run.high + reach, access.extent.stop), run.high))
        return [ByteRange(gap.start, min(gap.stop, gap.start + options.block_bytes)) for gap in gaps(ahead, held)[:1]]
    ahead = ByteRange(min(max(run.low - reach, access.extent.start), run.low), run.low)
    return [ByteRange(max(gap.start, gap.stop - options.block_bytes), gap.stop) for gap in gaps(ahead, held)[-1:]]


def _earned(run: Run) -> int:
    """Bytes that may be fetched now without leaving the bound, whatever the reader does next."""
    return int(_MOST_FETCHED * run.asked_bytes) - run.fetched_bytes


def _lies_in(part: ByteRange, whole: ByteRange) -> bool:
    return whole.start <= part.start and part.stop <= whole.stop


def _number(position: int, access: Access, options: ReadAheadOptions) -> int:
    return (position - access.extent.start) // options.block_bytes


def _block(number: int, access: Access, options: ReadAheadOptions) -> ByteRange:
    start = access.extent.start + number * options.block_bytes
    return ByteRange(start, min(start + options.block_bytes, access.extent.stop))
