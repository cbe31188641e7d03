"""Everything that one pass over a data set tells: its header, the values somebody watches, and its DICOM JSON.

For a program that reads many files one after the other: members that files share are encoded once (`recall`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from storage.dicom.attributes import JsonOptions, LateCharacterSet
from storage.dicom.json import Assembly, data_set_events
from storage.dicom.nesting import PIXEL_TAGS, Event
from storage.dicom.p10 import HEADER_TAGS, P10, Header, PixelElement, header_of, read_header
from storage.dicom.recall import MAX_MEMORY_BYTES, MemberMemory, Place
from storage.dicom.survey import Survey, take_survey

FindTail = Callable[[Header], int | None]
"""Where the attributes behind encapsulated pixel data begin; None: there are none, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in one data set; positions are in its window.

    Attributes:
        values: the top-level values of the watched tags, raw, where they are no longer than `MAX_VALUE_BYTES`.
        attributes: the DICOM JSON object.
        bulk: where the values lie that it leaves out, by their path: `7FE00010`, `00400275/1/00091010`; the stop is
            -1 if the length is undefined.
    """

    header: Header
    values: Mapping[int, bytes]
    attributes: bytes
    bulk: Mapping[bytes, tuple[int, int]]


MAX_VALUE_BYTES: Final = 256


class Examiner:
    """Examines one data set after the other; several threads may share it.

    Args:
        options: of the JSON; without `map_uid`, `extra` and `only`.
        watched: tags whose values are wanted.
        max_memory_bytes: how much is remembered, about, of elements and their JSON.
    """

    def __init__(
        self,
        options: JsonOptions,
        watched: frozenset[int] = frozenset(),
        *,
        max_memory_bytes: int = MAX_MEMORY_BYTES,
    ) -> None:
        self._options = options
        self._watched = watched
        self._memory = MemberMemory(watched | HEADER_TAGS, max_bytes=max_memory_bytes)

    def examine(self, p10: P10, find_tail: FindTail = lambda _: None) -> Examination:
        """Read one data set.

        Args:
            find_tail: called with the header once it is known; not for native pixel data.

        Raises:
            MissingBytes: the window lacks something; may be called again with a fuller one.
            InstanceUnreadable: the data set has no structure that can be read.
        """
        try:
            return self._examine(p10, find_tail, self._memory, None)
        except LateCharacterSet:
            events = data_set_events(p10, lambda event: find_tail(read_header(p10)) if event[4] < 0 else None)
            survey = take_survey(p10.window, events, little_endian=p10.little_endian)
            # What characters mean in this data set is not told by the elements before them: nothing is to be recalled.
            return self._examine(p10, find_tail, MemberMemory(self._memory.watched), survey)

    def _examine(self, p10: P10, find_tail: FindTail, memory: MemberMemory, survey: Survey | None) -> Examination:
        found: dict[int, Place] = {}
        is_cut = False

        def tail_start(event: Event) -> int | None:
            if event[4] >= 0:
                return None
            # A survey may come here before the pass has.
            return find_tail(read_header(p10) if PIXEL_TAGS.isdisjoint(found) else _header(p10, found, is_cut=False))

        def noted() -> Iterator[Event]:
            nonlocal is_cut
            is_cut = yield from data_set_events(p10, tail_start, recall)

        assembly = Assembly(p10, self._options, partial(data_set_events, p10, tail_start), survey=survey)
        bulk: dict[bytes, tuple[int, int]] = {}
        assembly.encoder.bulk = bulk
        recall = assembly.recalling(memory, found)  # no closure knows it but `noted`: a circle would keep whole files
        attributes = b"".join(assembly.chunks(noted()))
        values = {
            tag: bytes(p10.window.view(start, stop))
            for tag, (_, start, stop) in found.items()
            if tag in self._watched and 0 <= stop - start <= MAX_VALUE_BYTES
        }
        return Examination(_header(p10, found, is_cut=is_cut), values, attributes, bulk)


def _header(p10: P10, found: Mapping[int, Place], *, is_cut: bool) -> Header:
    """The header, from what a pass has seen up to the pixels."""
    pixels = [PixelElement(tag, *place) for tag, place in found.items() if tag in PIXEL_TAGS]
    return header_of(p10, found, pixels[0] if pixels else None, is_cut=is_cut)
