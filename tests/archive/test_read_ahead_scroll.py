"""What a scroll costs on a bucket that is 30 ms away: requests and bytes exactly, and time on a clock that jumps.

"The series" is its tar. Six connections, as a browser has them; the series index is there already.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.archive import Archive
from storage.archive.read_ahead import ReadAheadOptions
from storage.bucket.memory import MemoryBucket
from storage.metadata_modes import Extrapolation
from storage.series_index.layout import Depth
from tests.archive.stacks import KEY, SLICES, frame_of, stack_bucket, uid_of
from tests.archive.virtual_time import run_virtually
from tests.support.buckets import RecordingBucket, Request, SlowBucket

CONNECTIONS = 6
LATENCY_SECONDS = 0.03
STREAM_BYTES_PER_SECOND = 100e6
BLOCK_BYTES = 8 << 20
ON = ReadAheadOptions(mode="on")


def ohif_order(shown: int, slices: int) -> list[int]:
    """As OHIF 3.13.2 was logged with 12 slices, the last one shown: 12, 7, 11, 10, 9, 8, 6, 5, 4, 3, 2, 1.

    The shown slice, the middle one (the thumbnail), then from the shown one outwards what is not there yet.
    """
    first = [shown, slices // 2 + 1]
    outwards = sorted(range(1, slices + 1), key=lambda number: (abs(number - shown), -number))
    return first + [number for number in outwards if number not in first]


ORDERS = {
    "front to back": list(range(1, SLICES + 1)),
    "back to front": list(range(SLICES, 0, -1)),
    "OHIF, last slice shown": ohif_order(SLICES, SLICES),
    "OHIF, middle outwards": ohif_order(SLICES // 2 + 1, SLICES),
    "every fourth first": [n for first in (1, 2, 3, 4) for n in range(first, SLICES + 1, 4)],
}


@dataclass(frozen=True)
class Cost:
    requests: int
    bytes_read: int
    seconds: float
    first_seconds: float
    most_streams: int
    """Answers that brought bytes at the same time."""


class CountingStreams(SlowBucket):
    """Knows how many answers bring bytes at the same time."""

    bringing = 0
    most_bringing = 0

    async def moved(self, request: Request, count: int) -> None:
        self.bringing += 1
        self.most_bringing = max(self.most_bringing, self.bringing)
        try:
            await super().moved(request, count)
        finally:
            self.bringing -= 1


@pytest.fixture(scope="module", params=[64, 512], ids=["64x64", "512x512"])
def stack(request: pytest.FixtureRequest) -> tuple[int, MemoryBucket]:
    return request.param, asyncio.run(stack_bucket(request.param))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all: a deep index is built once for each series."""
    return tmp_path_factory.mktemp("state")


def opened(bucket: RecordingBucket, state: Path, options: ReadAheadOptions = ON) -> Archive:
    rules = Extrapolation((), (), "majority")
    return Archive(
        bucket, state, root="http://x/dicomweb", rules=rules, deepen="off", own_process=False, read_ahead=options
    )


async def scroll(
    inner: MemoryBucket, side: int, order: Sequence[int], state: Path, depth: Depth, options: ReadAheadOptions = ON
) -> Cost:
    """Fetch every frame once, by six connections that share one list; each answer is checked."""
    slow = CountingStreams(inner, LATENCY_SECONDS, STREAM_BYTES_PER_SECOND)
    bucket = RecordingBucket(slow)
    archive = opened(bucket, state, options)
    await archive.shelf.get(KEY, depth=depth)
    bucket.reset()
    clock = asyncio.get_running_loop().time
    began = clock()
    ends: list[float] = []
    left = iter(order)

    async def connection() -> None:
        for number in left:
            frames = await archive.frames.open(KEY, uid_of(number), reader="viewer")
            [payload] = await frames.read([0])
            assert bytes(payload) == frame_of(number, side), number
            ends.append(clock())

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    await archive.close()
    return Cost(len(bucket.requests), bucket.bytes_read, clock() - began, ends[0] - began, slow.most_bringing)


def size_of(bucket: MemoryBucket) -> int:
    return run_virtually(bucket.head(KEY.tar)).size


def test_the_model_of_ohif_repeats_its_logged_order() -> None:
    assert ohif_order(12, 12) == [12, 7, 11, 10, 9, 8, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("order", list(ORDERS))
def test_a_scroll_costs_a_request_for_each_block_and_its_bytes(
    stack: tuple[int, MemoryBucket], state: Path, order: str
) -> None:
    side, bucket = stack

    cost = run_virtually(scroll(bucket, side, ORDERS[order], state / "deep", "deep"))

    size = size_of(bucket)
    assert cost.requests <= size / BLOCK_BYTES + 4
    assert cost.bytes_read <= 1.2 * size


@pytest.mark.long
@pytest.mark.parametrize("order", ["front to back", "OHIF, last slice shown", "OHIF, middle outwards"])
def test_headers_of_unproven_instances_come_out_of_the_same_blocks(
    stack: tuple[int, MemoryBucket], tmp_path: Path, order: str
) -> None:
    side, bucket = stack

    cost = run_virtually(scroll(bucket, side, ORDERS[order], tmp_path, "quick"))

    size = size_of(bucket)
    assert cost.requests <= size / BLOCK_BYTES + 6
    assert cost.bytes_read <= 1.2 * size


@pytest.mark.parametrize(("side", "order"), [(64, "back to front"), (512, "OHIF, last slice shown")])
def test_a_tar_in_another_order_than_the_slices_costs_little_more(side: int, order: str, tmp_path: Path) -> None:
    bucket = asyncio.run(stack_bucket(side, shuffled=True))

    cost = run_virtually(scroll(bucket, side, ORDERS[order], tmp_path, "quick"))

    size = size_of(bucket)
    assert cost.requests <= size / BLOCK_BYTES + 8
    assert cost.bytes_read <= 1.2 * size


@pytest.mark.parametrize("stack", [512], indirect=True)
@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("order", ["front to back", "OHIF, last slice shown"])
def test_the_whole_ct_comes_as_fast_as_the_streams_can_carry_it(
    stack: tuple[int, MemoryBucket], state: Path, order: str, streams: int
) -> None:
    side, bucket = stack
    options = ReadAheadOptions(mode="on", streams=streams)

    cost = run_virtually(scroll(bucket, side, ORDERS[order], state / "deep", "deep", options))

    assert cost.seconds <= 1.1 * size_of(bucket) / (streams * STREAM_BYTES_PER_SECOND)
    assert cost.most_streams <= 2 * streams + 2  # those half here, and what the reader himself asked for first


def test_the_first_frame_waits_for_nothing_but_itself(stack: tuple[int, MemoryBucket], state: Path) -> None:
    side, bucket = stack

    cost = run_virtually(scroll(bucket, side, ORDERS["front to back"], state / "deep", "deep"))

    assert cost.first_seconds <= LATENCY_SECONDS + (len(frame_of(1, side)) + 8192) / STREAM_BYTES_PER_SECOND


def test_who_names_no_reader_reads_each_frame_alone(stack: tuple[int, MemoryBucket], state: Path) -> None:
    """Deepening, checks, bulk data: what does not scroll is not read ahead of."""
    _, inner = stack

    async def read() -> int:
        bucket = RecordingBucket(inner)
        archive = opened(bucket, state / "deep")
        await archive.shelf.get(KEY, depth="deep")
        bucket.reset()
        for number in range(1, 21):
            await (await archive.frames.open(KEY, uid_of(number))).read([0])
        await archive.close()
        return len(bucket.requests)

    assert run_virtually(read()) == 20


def test_it_is_off_for_a_folder_unless_it_is_forced(tmp_path: Path) -> None:
    folder = MemoryBucket("folder", cheap_head=True)

    async def reads_ahead(mode: str, bucket: MemoryBucket) -> bool:
        archive = opened(RecordingBucket(bucket), tmp_path, ReadAheadOptions(mode=mode))  # type: ignore[arg-type]  # three literals
        found = archive.reads_ahead
        await archive.close()
        return found

    assert not run_virtually(reads_ahead("auto", folder))
    assert run_virtually(reads_ahead("on", folder))
    assert run_virtually(reads_ahead("auto", MemoryBucket("far")))
    assert not run_virtually(reads_ahead("off", MemoryBucket("far")))
