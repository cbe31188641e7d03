"""The blocks of a process: found by place, never more than a budget of bytes, the least recently read dropped first."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator

from storage.archive.read_ahead.block import Block
from storage.ranges import ByteRange

Tar = tuple[str, str]
"""Key and version: bytes of two versions are never found together."""


class HeldBlocks:
    """Blocks that are here or on their way; a block counts with its whole length from the start."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._blocks: OrderedDict[Block, Tar] = OrderedDict()
        """The least recently read first."""
        self._places: dict[Tar, tuple[list[int], list[Block]]] = {}
        self.held_bytes = 0

    def __iter__(self) -> Iterator[tuple[Tar, Block]]:
        return iter([(tar, block) for block, tar in self._blocks.items()])

    def __contains__(self, block: Block) -> bool:
        return block in self._blocks

    def within(self, tar: Tar, wanted: ByteRange) -> list[Block]:
        """The blocks that hold bytes of a range (which is not empty), ascending; none overlap."""
        starts, blocks = self._places.get(tar, ([], []))
        first = bisect_right(starts, wanted.start) - 1
        if first < 0 or blocks[first].range.stop <= wanted.start:
            first += 1
        return blocks[first : bisect_left(starts, wanted.stop, lo=first)]

    def touch(self, block: Block) -> None:
        """Say that a block is read."""
        block.is_touched = True
        self._blocks.move_to_end(block)

    def make_room(self, length: int, is_free: Callable[[Tar, Block], bool]) -> list[Block] | None:
        """Drop what was not read for longest, as far as it is free, until `length` bytes fit.

        Returns:
            What was dropped; None: so much cannot be freed, and nothing was dropped.
        """
        excess = self.held_bytes + length - self._budget_bytes
        victims: list[Block] = []
        for block, tar in self._blocks.items():
            if excess <= 0:
                break
            if is_free(tar, block):
                victims.append(block)
                excess -= block.range.length
        if excess > 0:
            return None
        for block in victims:
            self.remove(block)
        return victims

    def add(self, tar: Tar, block: Block) -> None:
        """Hold one more block, for which there is room, and which overlaps no other."""
        starts, blocks = self._places.setdefault(tar, ([], []))
        place = bisect_left(starts, block.range.start)
        starts.insert(place, block.range.start)
        blocks.insert(place, block)
        self._blocks[block] = tar
        self.held_bytes += block.range.length
        assert self.held_bytes <= self._budget_bytes

    def remove(self, block: Block) -> None:
        """Hold it no longer; who reads it now reads it to the end."""
        tar = self._blocks.pop(block)
        starts, blocks = self._places[tar]
        place = bisect_left(starts, block.range.start)
        del starts[place], blocks[place]
        if not blocks:
            del self._places[tar]
        self.held_bytes -= block.range.length
