"""Byte ranges as values, half-open everywhere inside; HTTP's inclusive ends are converted where they are read.

`coalesce` plans which neighbouring ranges become one request to a bucket. It is pure: no I/O, testable without a loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes [start, stop) of an object; `stop` is the first byte not wanted."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        return self.stop - self.start

    def shifted(self, by: int) -> "ByteRange":
        """The same length, `by` bytes further on."""
        return ByteRange(self.start + by, self.stop + by)


@dataclass(frozen=True, slots=True)
class PlannedRead:
    """One request, and which of the wanted ranges (by their position in the asked sequence) it covers."""

    range: ByteRange
    members: tuple[int, ...]


def coalesce(wanted: Sequence[ByteRange], *, gap_bytes: int, span_bytes: int) -> list[PlannedRead]:
    """Merge ranges that lie at most `gap_bytes` apart into requests of at most `span_bytes`.

    A single wanted range longer than `span_bytes` stays one request: it is never split.
    Overlapping and repeated ranges are read once. The order of the result is by position.
    """
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index].start, wanted[index].stop))
    planned: list[PlannedRead] = []
    start = stop = -1
    members: list[int] = []
    for index in order:
        item = wanted[index]
        merged_stop = max(stop, item.stop)
        if members and item.start - stop <= gap_bytes and merged_stop - start <= max(span_bytes, stop - start):
            stop = merged_stop
            members.append(index)
            continue
        if members:
            planned.append(PlannedRead(ByteRange(start, stop), tuple(members)))
        start, stop, members = item.start, item.stop, [index]
    if members:
        planned.append(PlannedRead(ByteRange(start, stop), tuple(members)))
    return planned
