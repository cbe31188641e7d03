"""ReadAhead: reads of tars, from blocks where a reader's order is known, and alone where it is not."""

import asyncio
import logging
from collections import OrderedDict

from storage.archive.read_ahead.access import Access
from storage.archive.read_ahead.access_order import AccessOrder, Run
from storage.archive.read_ahead.block import Block, BlockFailed
from storage.archive.read_ahead.held import HeldBlocks, Tar
from storage.archive.read_ahead.options import ReadAheadOptions
from storage.archive.read_ahead.plan import blocks_after, blocks_for, gaps, window
from storage.archive.read_ahead.shared_reads import SharedReads
from storage.bucket import Bucket
from storage.bucket.base import ObjectBytes
from storage.errors import ObjectChanged, ObjectTruncated, StorageError
from storage.ranges import ByteRange

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 2.0
"""Without a byte for so long, a reader asks for his own: his block may wait for a place, behind downloads nobody takes up."""
_IDLE_SECONDS = 10
"""A reader that paused so long protects no blocks, and what was fetched for it and never read is dropped."""
_MOST_READERS = 1024
"""Readers and tars whose order is remembered, some kB each."""
_MOST_RUNS_OF_READER = 4
"""Scrolls of one reader at once (a viewer of four panes); beginning one more abandons the oldest."""
_MOST_SHORT_TARS = 1024

Who = tuple[str, Tar]


class _Scroll:
    """A run that is in order, and what is needed to go on with it."""

    __slots__ = ("access", "fetching", "last_used", "reader", "run", "tar")

    def __init__(self, reader: str, tar: Tar, run: Run, access: Access) -> None:
        self.reader = reader
        self.tar = tar
        self.run = run
        self.access = access
        self.fetching: set[Block] = set()
        """Blocks of which less than half is here."""
        self.last_used = 0.0


class ReadAhead:
    """Reads ranges of the tars of one bucket on behalf of readers."""

    def __init__(self, bucket: Bucket, options: ReadAheadOptions) -> None:
        self._bucket = bucket
        self._options = options
        self._alone = SharedReads(bucket)
        self._held = HeldBlocks(options.budget_bytes)
        self._orders: OrderedDict[Who, tuple[AccessOrder, AccessOrder]] = OrderedDict()
        """By place in the tar, and by place in the order of the answers."""
        self._scrolls: OrderedDict[Run, _Scroll] = OrderedDict()
        """The least recently used first."""
        self._short_tars: OrderedDict[Tar, None] = OrderedDict()
        """Tars that end before their index says: there nothing is read but what is asked."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """Bytes of all blocks, those on their way included."""
        return self._held.held_bytes

    async def read(self, key: str, range: ByteRange, *, version: str, access: Access) -> ObjectBytes:
        """Read a range; from a block that is here or on its way where there is one.

        Returns: as `Bucket.read`, but for `size`, which is where the extent of the access ends if a block had it all.

        Raises: as `Bucket.read`, and only what a request for this very range raised.
        """
        tar = (key, version)
        item = access.item if access.item is not None else range
        if range.length == 0 or item.length > self._options.block_bytes or tar in self._short_tars:
            return await self._read_alone(tar, range, None)
        run, listed = self._observe(tar, item, access)
        run.asked_bytes += range.length
        blocks = self._blocks_of(tar, range, access, run, listed)
        for block in blocks:
            block.readers += 1
        try:
            self._go_on(run)
            if blocks:
                parts = [await _arrived(block, _overlap(range, block.range)) for block in blocks]
                return ObjectBytes(parts[0] if len(parts) == 1 else b"".join(parts), version, access.extent.stop)
        except BlockFailed:
            pass
        finally:
            for block in blocks:
                block.readers -= 1
        return await self._read_alone(tar, range, run)

    async def close(self) -> None:
        """Break off whatever is on its way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _observe(self, tar: Tar, item: ByteRange, access: Access) -> tuple[Run, Run | None]:
        who = (access.reader, tar)
        orders = self._orders.get(who)
        if orders is None:
            orders = self._orders[who] = (AccessOrder(), AccessOrder())
            if len(self._orders) > _MOST_READERS:
                for run in self._orders.popitem(last=False)[1][0]:
                    self._abandon(run)
        self._orders.move_to_end(who)
        run, forgotten = orders[0].observe(item)
        for each in forgotten:
            self._abandon(each)
        listed = None
        if access.position is not None:
            listed, _ = orders[1].observe(ByteRange(access.position, access.position + 1))
        if run.steps > 0:
            self._note_scroll(tar, run, access)
        return run, listed

    def _note_scroll(self, tar: Tar, run: Run, access: Access) -> None:
        """Remember a run in order as the one used last, and abandon those that have ended."""
        now = asyncio.get_running_loop().time()
        scroll = self._scrolls.get(run)
        if scroll is None:
            scroll = self._scrolls[run] = _Scroll(access.reader, tar, run, access)
            others = [each.run for each in self._scrolls.values() if each.reader == access.reader]
            for old in others[:-_MOST_RUNS_OF_READER]:
                self._abandon(old)
        scroll.access, scroll.last_used = access, now
        self._scrolls.move_to_end(run)
        while (oldest := next(iter(self._scrolls.values()))).last_used < now - _IDLE_SECONDS:
            self._abandon(oldest.run)

    def _blocks_of(self, tar: Tar, wanted: ByteRange, access: Access, run: Run, listed: Run | None) -> list[Block]:
        """The blocks that hold a range, fetched if that is the plan; none if it is to be read alone."""
        held = self._held.within(tar, wanted)
        if gaps(wanted, [block.range for block in held]):
            around = ByteRange(
                max(wanted.start - self._options.block_bytes, 0), wanted.stop + self._options.block_bytes
            )
            known = [block.range for block in self._held.within(tar, around)]
            planned = blocks_for(wanted, access, run, listed, known, self._options)
            if not planned:
                return []
            for block in held:  # making room for the rest must not push them out
                block.readers += 1
            try:
                for each in planned:
                    begun = self._fetch(tar, each, run)
                    if begun is None:
                        return []
                    begun.readers += 1
                    held.append(begun)
            finally:
                for block in held:
                    block.readers -= 1
            if listed is not None:
                listed.fetched_bytes += sum(each.length for each in planned)
            held = self._held.within(tar, wanted)
            assert not gaps(wanted, [block.range for block in held])
        for block in held:
            self._held.touch(block)
        return held

    async def _read_alone(self, tar: Tar, wanted: ByteRange, run: Run | None) -> ObjectBytes:
        if run is not None:
            run.fetched_bytes += wanted.length
        key, version = tar
        try:
            return await self._alone.read(key, wanted, version)
        except ObjectChanged:
            self._forget(tar)
            raise

    def _go_on(self, run: Run) -> None:
        """Fetch what a reader in order needs next, as far as streams and budget allow."""
        scroll = self._scrolls.get(run)
        if scroll is None or scroll.tar in self._short_tars:
            return
        most = self._blocks_ahead()
        if most == 0 or len(scroll.fetching) >= self._options.streams:
            return
        reach = (most + 1) * self._options.block_bytes
        around = ByteRange(max(run.low - reach, 0), run.high + reach)
        held = [block.range for block in self._held.within(scroll.tar, around)]
        for planned in blocks_after(scroll.access, run, held, self._options, most=most):
            if len(scroll.fetching) >= self._options.streams or self._fetch(scroll.tar, planned, run) is None:
                return

    def _blocks_ahead(self) -> int:
        """Fewer when many scroll at once: each keeps at least the block that it reads."""
        share = self._options.budget_bytes // self._options.block_bytes // max(len(self._scrolls), 1) - 1
        return max(min(self._options.blocks_ahead, share), 0)

    def _fetch(self, tar: Tar, planned: ByteRange, run: Run) -> Block | None:
        """Begin to fetch a block; None: it would push out what somebody is reading."""
        dropped = self._held.make_room(planned.length, self._is_free)
        if dropped is None:
            return None
        for old in dropped:
            _break_off(old)
        block = Block(planned, run)
        run.fetched_bytes += planned.length
        self._held.add(tar, block)
        if run in self._scrolls:
            self._scrolls[run].fetching.add(block)
        block.task = asyncio.create_task(self._fill(tar, block))
        self._tasks.add(block.task)
        block.task.add_done_callback(lambda task: self._ended(block, task))
        return block

    def _is_free(self, tar: Tar, block: Block) -> bool:
        """Nobody reads the block, nor comes to it next."""
        if block.readers > 0:
            return False
        most = self._blocks_ahead()
        for scroll in self._scrolls.values():
            if scroll.tar == tar:
                needed = window(scroll.run, self._options, most=most)
                if block.range.start < needed.stop and needed.start < block.range.stop:
                    return False
        return True

    async def _fill(self, tar: Tar, block: Block) -> None:
        key, version = tar
        try:
            async for chunk in self._bucket.stream(key, block.range, version=version):
                block.add(chunk)
                if 2 * block.filled >= block.range.length:
                    self._make_way(block)
            if not block.is_complete:
                raise ValueError(f"{block.filled} bytes for a block of {block.range.length}")
        except Exception as error:
            # Whoever waits reads for himself and meets the error there; order has to show itself anew.
            self._scrolls.pop(block.run, None)
            block.run.forget_order()
            if isinstance(error, ObjectChanged):
                self._forget(tar)
            elif isinstance(error, ObjectTruncated):
                self._short_tars[tar] = None
                if len(self._short_tars) > _MOST_SHORT_TARS:
                    self._short_tars.popitem(last=False)
            elif not isinstance(error, StorageError):
                logger.exception("%s: a block of %d bytes at %d", key, block.range.length, block.range.start)

    def _make_way(self, block: Block) -> None:
        """A block is half here: its request no longer hides the latency of the next one."""
        scroll = self._scrolls.get(block.run)
        if scroll is not None and block in scroll.fetching:
            scroll.fetching.discard(block)
            self._go_on(block.run)

    def _ended(self, block: Block, task: asyncio.Task[None]) -> None:
        """Of every block, those that were cancelled before they began too."""
        self._tasks.discard(task)
        block.task = None
        if not block.is_complete:
            block.fail()
            if block in self._held:
                self._held.remove(block)
            scroll = self._scrolls.get(block.run)
            if scroll is not None:
                scroll.fetching.discard(block)

    def _forget(self, tar: Tar) -> None:
        """Drop all blocks of a version that is no more."""
        for where, block in self._held:
            if where == tar:
                self._held.remove(block)
                _break_off(block)

    def _abandon(self, run: Run) -> None:
        """A reader went elsewhere: drop what was fetched for it and never read."""
        self._scrolls.pop(run, None)
        for _, block in self._held:
            if block.run is run and not block.is_touched and block.readers == 0:
                self._held.remove(block)
                _break_off(block)


async def _arrived(block: Block, wanted: ByteRange) -> bytes:
    """Bytes of a block on its way. Raises BlockFailed, also when nothing of it comes any more."""
    while True:
        filled = block.filled
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await block.read(wanted)
        except TimeoutError:
            if block.filled == filled:
                raise BlockFailed from None


def _overlap(one: ByteRange, other: ByteRange) -> ByteRange:
    return ByteRange(max(one.start, other.start), min(one.stop, other.stop))


def _break_off(block: Block) -> None:
    """Stop fetching a block that is held no longer; whoever still waits in it reads for himself."""
    if block.task is not None:
        block.task.cancel()
