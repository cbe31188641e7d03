"""Recognises that a reader reads in order: forwards, backwards, or from a middle outwards.

A viewer's six connections deliver neighbouring requests in any order, and OHIF begins with the shown slice and the
middle one (12, 7, 11, 10, 9, 8 … in its log). So order is not "the next one": it is a read a few items beside the
stretch that this reader has read lately. Pure: no bytes, no clock.
"""

from collections import deque
from collections.abc import Iterator

from storage.ranges import ByteRange

REACH_ITEMS = 8
"""A read this many items beside a stretch still belongs to it: six connections at once, and slices left out."""
_REMEMBERED_ITEMS = 16
_REMEMBERED_STEPS = 8
_REMEMBERED_RUNS = 4
"""Stretches of one tar that one reader is in: the shown slice, the thumbnail in the middle, and where else it jumped."""
_STEPS_AFTER_A_FAILURE = 8
"""Read alone before a run is trusted again: a store that throttles is not asked twice for everything."""
_STEPS_OF_A_DIRECTION = 2
"""Of the last few: one alone may be the jitter of several connections."""


class Run:
    """A stretch of neighbouring items that one reader has read lately, and how the stretch moves."""

    __slots__ = ("_items", "_moves", "asked_bytes", "fetched_bytes", "high", "low", "steps")

    def __init__(self, item: ByteRange) -> None:
        self._items = deque([item], _REMEMBERED_ITEMS)
        self._moves: deque[int] = deque(maxlen=_REMEMBERED_STEPS)
        self.low = item.start
        self.high = item.stop
        self.steps = 0
        """How often a read lay beyond the stretch and beside it: above 0 it is an order; below, after a failure."""
        self.asked_bytes = 0
        self.fetched_bytes = 0
        """Asked of the bucket because of this run; what was never used of it is among them."""

    def gap_to(self, item: ByteRange) -> int:
        """Units between the stretch and an item; 0 if they touch or overlap."""
        return max(item.start - self.high, self.low - item.stop, 0)

    def reaches(self, item: ByteRange) -> bool:
        longest = max(item.length, max(each.length for each in self._items))
        return self.gap_to(item) <= REACH_ITEMS * longest

    def join(self, item: ByteRange) -> None:
        """Take in an item that the run reaches."""
        if item in self._items:
            return
        if item.stop > self.high or item.start < self.low:
            self._moves.append(1 if item.stop > self.high else -1)
            self.steps += 1
        self._items.append(item)
        self.low = min(each.start for each in self._items)
        self.high = max(each.stop for each in self._items)

    def forget_order(self) -> None:
        """Begin to learn anew: what was fetched for this order failed."""
        self._moves.clear()
        self.steps = -_STEPS_AFTER_A_FAILURE

    @property
    def directions(self) -> tuple[int, ...]:
        """Where it goes on: 1 towards the end of the tar, -1 towards its start; both from a middle outwards.

        The one it went last comes first.
        """
        ways = [way for way in (1, -1) if self._moves.count(way) >= _STEPS_OF_A_DIRECTION]
        return tuple(sorted(ways, key=lambda way: way != self._moves[-1]))

    def straight_steps(self) -> int:
        """How many of the last steps went one way."""
        count = 0
        for move in reversed(self._moves):
            if move != self._moves[-1]:
                break
            count += 1
        return count

    @property
    def last_way(self) -> int:
        return self._moves[-1] if self._moves else 1


class AccessOrder:
    """The runs of one reader in one tar, the one of its last read first."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def observe(self, item: ByteRange) -> tuple[Run, list[Run]]:
        """Say that an item is read.

        Args:
            item: bytes of the tar, or a place in another order: [n, n + 1).

        Returns:
            The run it belongs to, which is new if it lies beside no other; and the runs that are forgotten for it.
        """
        near = [run for run in self._runs if run.reaches(item)]
        if near:
            run = min(near, key=lambda each: each.gap_to(item))  # of equals the latest
            run.join(item)
            self._runs.remove(run)
        else:
            run = Run(item)
        self._runs.insert(0, run)
        forgotten = self._runs[_REMEMBERED_RUNS:]
        del self._runs[_REMEMBERED_RUNS:]
        return run, forgotten
