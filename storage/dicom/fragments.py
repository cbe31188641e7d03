"""The fragments of encapsulated pixel data: item headers scanned from a window or a stream, and frames told from them.

Source: PS3.5 §A.4 (encapsulation), Table A.4-1 (one frame may span fragments; a fragment never spans frames).
"""

from __future__ import annotations  # array[int] cannot be evaluated before Python 3.12

from array import array
from dataclasses import dataclass
from typing import Final

from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable

ITEM: Final = b"\xfe\xff\x00\xe0"
SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0"
"""Item and sequence delimitation tags; encapsulated data sets are always little endian."""

MAX_FRAGMENTS: Final = 1 << 22
"""Four million: a slide of 400,000 by 400,000 pixels has half a million tiles of 512 by 512."""


class FragmentsUnknown(MissingBytes):
    """Only the item headers in [start, stop) can tell the frames apart: read them all, or stream them to a scanner.

    The caller that knows nothing but `MissingBytes` fetches the range and tries again, which is right for small data.
    """


@dataclass(frozen=True, slots=True)
class Fragments:
    """Every fragment behind the Basic Offset Table, in order; positions as those of the scanned sequence.

    `starts` are those of the item headers, `heads` and `tails` the first and last four bytes of each payload
    (shorter payloads are padded with zeros), `stop` is the position behind the sequence delimiter.
    """

    starts: array[int]
    lengths: array[int]
    heads: bytes
    tails: bytes
    stop: int

    def __len__(self) -> int:
        return len(self.starts)

    def begins_codestream(self, index: int, marker: bytes) -> bool:
        """Whether the payload starts with a start marker (SOI, or SOC with SIZ)."""
        return self.heads.startswith(marker, 4 * index, 4 * index + 4)

    def ends_codestream(self, index: int) -> bool:
        """Whether the payload ends with EOI or EOC (both FFD9), with or without its padding byte."""
        tail = self.tails[4 * index : 4 * index + 4]
        return tail[2:] == b"\xff\xd9" or tail[1:3] == b"\xff\xd9"


class FragmentScanner:
    """Finds fragments in consecutive chunks of a stream; memory grows with their number, not with their bytes."""

    def __init__(self, start: int, stop: int) -> None:
        """Args: start: position of the first item behind the offset table; stop: where the instance ends."""
        self._position = start
        self._stop = stop
        self._starts = array("Q")
        self._lengths = array("Q")
        self._heads = bytearray()
        self._tails = bytearray()
        self._header = bytearray()
        self._head = self._tail = b""
        self._left = 0
        self._end = -1

    @property
    def is_finished(self) -> bool:
        """Whether the sequence delimiter has been seen; what is fed afterwards is ignored."""
        return self._end >= 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the bytes that follow those of the last call.

        Raises:
            InstanceUnreadable: something other than an item or the delimiter, or an item longer than the instance.
        """
        view = memoryview(chunk)
        offset = 0
        while offset < len(view) and not self.is_finished:
            if self._left == 0:
                offset += self._feed_header(view[offset : offset + 8])
            else:
                offset += self._feed_payload(view[offset : offset + self._left])

    def finish(self) -> Fragments:
        """What was found.

        Raises:
            InstanceUnreadable: the stream ended before the sequence delimiter.
        """
        if not self.is_finished:
            raise InstanceUnreadable(f"encapsulated pixel data has no end; {len(self._starts)} fragments were found")
        return Fragments(self._starts, self._lengths, bytes(self._heads), bytes(self._tails), self._end)

    def _feed_header(self, view: memoryview) -> int:
        taken = min(8 - len(self._header), len(view))
        self._header += view[:taken]
        self._position += taken
        if len(self._header) == 8:
            self._begin(bytes(self._header))
            self._header.clear()
        return taken

    def _begin(self, header: bytes) -> None:
        start = self._position - 8
        if header[:4] == SEQUENCE_END:
            self._end = self._position
            return
        length = int.from_bytes(header[4:], "little")
        if header[:4] != ITEM:
            raise InstanceUnreadable(f"no fragment at {start}")
        if length > self._stop - self._position:
            raise InstanceUnreadable(f"a fragment of {length} bytes at {start} runs past the end of the instance")
        if len(self._starts) == MAX_FRAGMENTS:
            raise InstanceUnreadable(f"more than {MAX_FRAGMENTS} fragments")
        self._starts.append(start)
        self._lengths.append(length)
        self._left = length
        self._head = self._tail = b""
        if length == 0:
            self._keep_ends()

    def _feed_payload(self, view: memoryview) -> int:
        if len(self._head) < 4:
            self._head += bytes(view[: 4 - len(self._head)])
        self._tail = (self._tail + bytes(view[-4:]))[-4:]
        self._left -= len(view)
        self._position += len(view)
        if self._left == 0:
            self._keep_ends()
        return len(view)

    def _keep_ends(self) -> None:
        self._heads += self._head.ljust(4, b"\0")
        self._tails += self._tail.rjust(4, b"\0")


def scan_fragments(window: Window, start: int, stop: int) -> Fragments:
    """The fragments at [start, stop) of a window.

    Raises:
        FragmentsUnknown: the window does not hold all of it.
        InstanceUnreadable: as `FragmentScanner`.
    """
    scanner = FragmentScanner(start, stop)
    try:
        scanner.feed(window.view(start, stop))
    except MissingBytes as missing:
        raise FragmentsUnknown(start, stop) from missing
    return scanner.finish()


def codestream_starts(fragments: Fragments, marker: bytes) -> list[int]:
    """Indices of the fragments that begin a frame, told by codestream ends; empty where that is not certain.

    A frame begins where a fragment starts with `marker` and the one before ended its codestream. Anything that starts
    or ends otherwise makes the whole doubtful.
    """
    starts: list[int] = []
    has_ended = True
    for index in range(len(fragments)):
        if fragments.begins_codestream(index, marker) != has_ended:
            return []
        if has_ended:
            starts.append(index)
        has_ended = fragments.ends_codestream(index)
    return starts if has_ended else []
