"""Walking the data elements of a data set as a flat run of events, without ever holding a value.

Files are read as pydicom reads them where that loses nothing: an item of an explicit data set may be implicit, a single
element may lack its VR, `UN` of a known tag gets the VR of the dictionary, a superfluous delimiter is passed over.
Where a declared length cannot be true the walk stops with an error, with one exception, the file that ends too early:
sequences, items and native pixel data that run past the end of the walk are cut there; any other element that does so
is left out, because half a number is a wrong number, and the walk ends as the file does.

Source: PS3.5 §7.1 (data elements), §7.5 (sequences), §6.2.2 (UN), §A.4 (encapsulated pixel data).
"""

from collections.abc import Generator, Iterator
from enum import IntEnum
from typing import Final, Protocol

from storage.dicom.nesting import UNDEFINED_LENGTH, ElementHeader, Event, FileEnds, Nest
from storage.dicom.vr import EXPLICIT_LONG, EXPLICIT_SHORT, STANDARD_VRS
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

MAX_ELEMENTS: Final = 20_000_000
"""Elements of one walk."""

_PLAIN_VRS: Final = (frozenset(EXPLICIT_SHORT.values()) | frozenset(EXPLICIT_LONG.values())) - {"SQ", "UN"}


class Kind(IntEnum):
    """What an event of `walk` reports."""

    ELEMENT = 0
    SEQUENCE = 1
    ITEM = 2
    END_ITEM = 3
    END_SEQUENCE = 4


class Guide(Protocol):
    """Leads a walk over elements of the top level that need no walking."""

    def jump(self, position: int) -> int:
        """Where the walk goes on with a header of the top level: at `position`, or behind elements it may pass over.

        Never over a private creator: the walk needs to see those.
        """

    def doubt(self) -> None:
        """In the element at hand an element has no VR: what it means depends on where the data set ends, too."""


def walk(
    window: Window,
    start: int,
    stop: int,
    *,
    explicit: bool,
    little_endian: bool,
    skip_sequences: bool = False,
    guide: Guide | None = None,
) -> Generator[Event, None, bool]:
    """Yield (kind, tag, vr, value_start, value_stop) for the data set at [start, stop), in the order of the file.

    - ELEMENT: a value at [value_start, value_stop). Top-level Pixel Data of undefined length has value_stop -1 and is
      the last event; who has found its end walks on from there. Undefined lengths elsewhere (an icon's encapsulated
      pixels) come as one ELEMENT up to the delimiter.
    - SEQUENCE: opens; `vr` is "SQ"; value_stop is -1 if its length is undefined.
    - ITEM: opens; value_stop is -1 if its length is undefined.
    - END_ITEM: closes; the content ended at value_start, the walk goes on at value_stop.
    - END_SEQUENCE: closes, with the tag of the sequence; positions as for END_ITEM.

    Every SEQUENCE and ITEM is closed, whatever the file does. Ambiguous VRs come as the dictionary spells them
    ("US or SS"), unknown ones as "UN".

    Args:
        explicit, little_endian: as the transfer syntax says; a data set that contradicts `explicit` is read as it is.
        skip_sequences: report the top level only; sequences of defined length are jumped over, the others traversed
            (and one that the end of the file cuts: so a cut is told from a length that lies).
        guide: asked before each element of the top level.

    Returns:
        Whether the file ends too early (`StopIteration.value`, for who drives the generator by hand).

    Raises:
        MissingBytes: the window lacks the element header that is next; values are not touched.
        InstanceUnreadable: lengths, nesting or VRs that cannot be true.
    """
    nest = Nest(window, start, stop, explicit=explicit, little_endian=little_endian)
    try:
        yield from _events(nest, window, start, skip_sequences, guide)
    except FileEnds:
        for event in nest.unwind():
            if not skip_sequences or nest.depth == 0:
                yield event
        return True
    return False


def _events(nest: Nest, window: Window, position: int, skip_sequences: bool, guide: Guide | None) -> Iterator[Event]:
    """The loop of `walk`: plain elements here and at once, everything else by asking the nest."""
    tag_vr_length, tag_length, long_length = nest.tag_vr_length, nest.tag_length, nest.long_length
    short_vr, long_vr, dictionary_vr, plain_vrs = EXPLICIT_SHORT.get, EXPLICIT_LONG.get, STANDARD_VRS.get, _PLAIN_VRS
    view, base, piece_stop = memoryview(b""), 0, 0
    raw_vr, undefined = b"", UNDEFINED_LENGTH
    remaining = MAX_ELEMENTS
    while True:
        end, implicit, visible = nest.end, nest.implicit, not skip_sequences or nest.depth == 0
        jump = guide.jump if guide is not None and nest.depth == 0 else None
        while end - position >= 8:
            remaining -= 1
            if jump is not None:
                position = jump(position)
                if end - position < 8:
                    break
            if position + 12 > piece_stop:
                view, base = window.piece_at(position, 12)
                piece_stop = base + len(view)
            value_start = position + 8
            if implicit:
                group, element, length = tag_length(view, position - base)
                vr = dictionary_vr(group << 16 | element)
            else:
                group, element, raw_vr, length = tag_vr_length(view, position - base)
                vr = short_vr(raw_vr)
                if vr is None and end - position >= 12 and (vr := long_vr(raw_vr)) is not None:
                    (length,) = long_length(view, position - base + 8)
                    value_start = position + 12
            tag = group << 16 | element
            value_stop = value_start + length
            if vr in plain_vrs and value_stop <= end and length != undefined and not (group & 1 and element < 0x100):
                if visible:
                    yield 0, tag, vr, value_start, value_stop
                position = value_stop
                continue
            if group == 0xFFFE or remaining < 0:
                break
            if guide is not None and vr is None and not implicit:
                guide.doubt()
            found = nest.inspect(ElementHeader(position, tag, vr, raw_vr, value_start, length))
            if found.vr == "SQ":
                if visible:
                    yield 1, tag, "SQ", found.start, found.stop
                if found.stop < 0 or found.is_cut or not skip_sequences:
                    nest.open_sequence(tag, found)
                    position = found.start
                    break
                if visible:
                    yield 4, tag, "SQ", found.stop, found.stop
            elif visible:
                yield 0, tag, found.vr, found.start, found.stop
            if found.next < 0:
                return
            position = found.next
        if remaining < 0:
            raise InstanceUnreadable(f"more than {MAX_ELEMENTS} elements")
        # The end of a data set, or an item or delimiter in it; then whatever lies between data sets.
        while not nest.in_sequence:
            event, position = nest.leave_data_set(position)
            if position < 0:
                return
            if event is None:
                break
            if not skip_sequences:
                yield event
        while nest.in_sequence:
            event, position = nest.next_item(position)
            if not skip_sequences or nest.depth == 0:
                yield event
