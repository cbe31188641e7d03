"""Which parts an upload to S3 has: any pieces, by the rules of S3, beside the plain sum of bytes."""

import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.bucket import Piece, StoredRange
from storage.bucket.s3.parts import MIB, PART_BYTES, Part, parts_of
from storage.ranges import ByteRange
from tests.bucket.contract import in_pieces

GIB = 1024 * MIB
LEAST, MOST, PARTS = 5 * MIB, 5 * GIB, 10_000
"""S3's rules: the shortest part but the last, the longest, and how many."""

STORED = random.Random(1).randbytes(40 * MIB)
NEW = random.Random(2).randbytes(18 * MIB)

_LENGTHS = st.one_of(
    st.integers(0, 2000),
    st.sampled_from([LEAST - 1, LEAST, LEAST + 1, PART_BYTES, 2 * LEAST]),
    st.integers(0, 12 * MIB),
)


class Fetching:
    """Reads stored ranges from a plain buffer (None: zeros), and remembers which."""

    def __init__(self, stored: bytes | None) -> None:
        self.stored = stored
        self.asked: list[StoredRange] = []

    async def __call__(self, wanted: StoredRange) -> AsyncIterator[bytes | memoryview]:
        self.asked.append(wanted)
        start, stop = wanted.range.start, wanted.range.stop
        if self.stored is None:
            yield bytes(stop - start)
        else:
            assert stop <= len(self.stored)
            for at in range(start, stop, MIB):
                yield memoryview(self.stored)[at : min(at + MIB, stop)]

    @property
    def lengths(self) -> list[int]:
        return [each.range.length for each in self.asked]


@st.composite
def _pieces(draw: st.DrawFn) -> list[Piece]:
    pieces: list[Piece] = []
    for is_stored, length in draw(st.lists(st.tuples(st.booleans(), _LENGTHS), max_size=7)):
        source = STORED if is_stored else NEW
        start = draw(st.integers(0, len(source) - length))
        pieces.append(of(start, start + length) if is_stored else memoryview(NEW)[start : start + length])
    return pieces


def of(start: int, stop: int) -> StoredRange:
    return StoredRange("key", ByteRange(start, stop), "version")


def length_of(part: Part) -> int:
    return part.range.length if isinstance(part, StoredRange) else len(part)


async def planned(pieces: list[Piece], fetching: Fetching) -> list[Part]:
    parts = [part async for part in parts_of(in_pieces(pieces), fetching)]
    assert 1 <= len(parts) <= PARTS
    assert all(LEAST <= length_of(part) <= MOST for part in parts[:-1])
    assert length_of(parts[-1]) <= MOST
    assert length_of(parts[-1]) > 0 or len(parts) == 1
    return parts


def joined(pieces: list[Piece] | list[Part]) -> bytes:
    """The plain model: what the pieces are, one after the other."""
    return b"".join(
        STORED[piece.range.start : piece.range.stop] if isinstance(piece, StoredRange) else piece for piece in pieces
    )


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(pieces=_pieces())
async def test_parts_are_the_sum_of_their_pieces_and_keep_the_rules(pieces: list[Piece]) -> None:
    fetching = Fetching(STORED)

    parts = await planned(pieces, fetching)

    assert joined(parts) == joined(pieces)


@settings(max_examples=40, deadline=None)
@given(pieces=_pieces())
async def test_no_range_is_fetched_for_more_than_the_rules_ask(pieces: list[Piece]) -> None:
    """Less than a part before it, or all of a range that would leave less than a part."""
    for at, piece in enumerate(pieces):
        if isinstance(piece, StoredRange):
            before, fetching = Fetching(STORED), Fetching(STORED)
            await planned(pieces[:at], before)
            await planned(pieces[: at + 1], fetching)
            length = sum(fetching.lengths) - sum(before.lengths)
            assert length < LEAST or (length == piece.range.length < 2 * LEAST)


async def test_an_append_copies_everything_and_fetches_nothing() -> None:
    fetching = Fetching(STORED)

    parts = await planned([of(0, 40 * MIB), NEW[: 2 * MIB]], fetching)

    assert parts == [of(0, 40 * MIB), NEW[: 2 * MIB]]
    assert fetching.asked == []


async def test_few_new_bytes_before_a_range_are_filled_up_with_its_beginning() -> None:
    fetching = Fetching(STORED)

    parts = await planned([of(0, 10 * MIB), b"new", of(20 * MIB, 40 * MIB)], fetching)

    at = 25 * MIB - 3
    assert parts == [of(0, 10 * MIB), b"new" + STORED[20 * MIB : at], of(at, 40 * MIB)]
    assert fetching.asked == [of(20 * MIB, at)]


async def test_what_is_small_altogether_is_one_part() -> None:
    fetching = Fetching(STORED)

    assert len(await planned([b"a" * MIB, of(0, 4 * MIB), of(5 * MIB, 8 * MIB)], fetching)) == 1
    assert await planned([], fetching) == [b""]
    assert await planned([of(3, 3)], fetching) == [b""]
    assert fetching.lengths == [4 * MIB, 3 * MIB, 0]


@pytest.mark.parametrize("length", [LEAST, 256 * MIB, 256 * MIB + 1, 300 * GIB + 1, 5 * 1024 * GIB])
async def test_a_range_of_any_length_is_copied_in_parts_and_never_fetched(length: int) -> None:
    fetching = Fetching(None)

    parts = await planned([of(0, length), b"new"], fetching)

    assert all(isinstance(part, StoredRange) for part in parts[:-1])
    assert sum(map(length_of, parts)) == length + 3
    position = 0
    for part in parts[:-1]:
        assert isinstance(part, StoredRange)
        assert part.range.start == position
        position = part.range.stop
    assert fetching.asked == []


async def test_ten_thousand_parts_suffice_for_many_short_ranges() -> None:
    """From part 4,001 on parts are longer, and short ranges are fetched to make them so."""
    fetching = Fetching(None)
    pieces: list[Piece] = [of(at * 20 * MIB, at * 20 * MIB + LEAST) for at in range(4020)]

    parts = await planned(pieces, fetching)

    assert len(parts) <= 4000 + 20 * LEAST // (64 * MIB) + 1
    assert sum(map(length_of, parts)) == 4020 * LEAST
