"""The DICOM JSON Model of one instance, straight from the bytes of its data set.

Faithful: nothing is dropped because it is invalid, it is sent as the text that is stored. Bounded: of a long data set
no more is held than one top-level attribute, or one item of a top-level sequence. What the standard leaves open:

- Text is UTF-8. Where (0008,0005) names more than the default repertoire the answer says ISO_IR 192, in items too:
  whoever builds a data set from this JSON will write the text that he has read.
- Left out: group 0002 (unless asked for), group lengths, data set trailing padding.
- Attributes are sorted, whatever the file does; of one that occurs twice the later counts, as in pydicom.

Source: PS3.18 Annex F (DICOM JSON Model), §10.4.1.1.2 (metadata); PS3.5 §7.1, §7.5.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Final

from storage.dicom.attributes import AttributeEncoder, JsonOptions, LateCharacterSet, prefix
from storage.dicom.elements import Guide, Kind, walk
from storage.dicom.nesting import PIXEL_TAGS, Event
from storage.dicom.p10 import P10
from storage.dicom.recall import MemberMemory, Place, Recall
from storage.dicom.survey import Survey, is_left_out, take_survey
from storage.errors import InstanceUnreadable

__all__ = ["CHUNK_BYTES", "Assembly", "JsonOptions", "attributes_json", "data_set_events", "json_chunks"]

CHUNK_BYTES: Final = 1 << 20

# an enum's members are slow to reach
_ELEMENT, _SEQUENCE, _ITEM, _END_ITEM, _END_SEQUENCE = (int(kind) for kind in Kind)
_AFTER_FILE_META: Final = 0x00030000
_BEYOND_ALL_TAGS: Final = 1 << 32


def attributes_json(p10: P10, options: JsonOptions, *, tail_start: int | None = None) -> bytes:
    """One DICOM JSON object, whole; arguments and errors as for `json_chunks`."""
    return b"".join(json_chunks(p10, options, tail_start=tail_start))


def json_chunks(p10: P10, options: JsonOptions, *, tail_start: int | None = None) -> Iterator[bytes]:
    """One DICOM JSON object in pieces of at most `CHUNK_BYTES`.

    Args:
        tail_start: where the attributes behind encapsulated pixel data begin, for callers who know; without it the
            object ends with the pixel data.

    Raises:
        MissingBytes: the window lacks an element header, or the value of an attribute that is not bulk data.
        InstanceUnreadable: the data set has no structure that can be read.
    """
    events = partial(data_set_events, p10, lambda _: tail_start)
    try:
        yield from Assembly(p10, options, events).chunks()
    except LateCharacterSet:  # never raised once a piece has been given out: that takes a survey
        survey = take_survey(p10.window, events(), little_endian=p10.little_endian)
        yield from Assembly(p10, options, events, survey=survey).chunks()


def data_set_events(
    p10: P10, find_tail: Callable[[Event], int | None], guide: Guide | None = None
) -> Generator[Event, None, bool]:
    """The events of the data set. Bytes behind the pixels that are no data elements are not part of it: other
    software pads files there, and nothing before them is less certain for that.

    Args:
        find_tail: called with the event of the pixels: where the attributes behind encapsulated ones begin, if known.
        guide: as for `walk`, up to the pixels.

    Returns:
        Whether the file ends too early, before any pixels.
    """
    is_cut = False

    def noted() -> Iterator[Event]:
        nonlocal is_cut
        is_cut = yield from walk(
            p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian, guide=guide
        )

    head = noted()
    depth = 0
    for event in head:
        yield event
        kind = event[0]
        if kind == _SEQUENCE:
            depth += 1
        elif kind == _END_SEQUENCE:
            depth -= 1
        elif kind == _ELEMENT and depth == 0 and event[1] in PIXEL_TAGS:
            break
    else:
        return is_cut
    tail: Iterator[Event] = head if event[4] >= 0 else iter(())
    if (tail_start := find_tail(event)) is not None:
        tail = walk(p10.window, tail_start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian)
    with suppress(InstanceUnreadable):
        yield from list(tail)
    return False


def _joined(members: dict[int, bytes]) -> bytes:
    """Members in the order of their tags."""
    tags = sorted(members)
    return b",".join(members.values() if tags == list(members) else [members[tag] for tag in tags])


class _Sequence:
    """The items of an open sequence."""

    __slots__ = ("is_begun", "is_left_out", "items", "tag")

    def __init__(self, tag: int, *, is_left_out: bool) -> None:
        self.tag = tag
        self.is_left_out = is_left_out
        self.is_begun = False  # its beginning has been given out, so what follows goes behind it
        self.items: list[bytes] = []

    def member(self) -> bytes:
        return prefix(self.tag, "SQ") + (b',"Value":[%b]}' % b",".join(self.items) if self.items else b"}")

    def taken(self) -> bytes:
        """The text of the items so far, from the beginning of the member or after what was taken before."""
        text = b",".join(self.items)
        text = b"," + text if self.is_begun and self.items else text
        head = b"" if self.is_begun else prefix(self.tag, "SQ") + b',"Value":['
        self.is_begun = True
        self.items = []
        return head + text


class Assembly:
    """One pass over a data set that puts the object together and gives it out.

    Args:
        events: makes a fresh run of all events of the data set.
        survey: of an earlier pass, if there was one; without it `LateCharacterSet` may be raised.
    """

    def __init__(
        self,
        p10: P10,
        options: JsonOptions,
        events: Callable[[], Iterator[Event]],
        *,
        survey: Survey | None = None,
    ) -> None:
        self._p10 = p10
        self._options = options
        self._events = events
        self._recall: Recall | None = None
        self.encoder = AttributeEncoder(p10.window, options, events, little_endian=p10.little_endian, survey=survey)
        self._top: dict[int, bytes] = {}
        self._extra = {tag: b'"%08X":%b' % (tag, value) for tag, value in options.extra.items()}
        self._separator = b"{"

    def recalling(self, memory: MemberMemory, found: dict[int, Place]) -> Recall:
        """The guide for `chunks`, which then takes members from a memory and adds to it."""
        options = self._options
        assert all(unset is None for unset in (options.extra or None, options.only, options.map_uid))
        self._recall = Recall(memory, self._p10, self.encoder, self._top, found)
        return self._recall

    def chunks(self, events: Iterator[Event] | None = None) -> Iterator[bytes]:
        """The object in pieces, as `json_chunks` promises; made of these events, if they are under way already."""
        if self._options.include_file_meta:
            self._add_file_meta()
        encoder, members, recall = self.encoder, self._top, self._recall
        outer: list[dict[int, bytes]] = []
        sequences: list[_Sequence] = []
        pending = 0  # bytes that wait to be given out
        for event in self._events() if events is None else events:
            kind, tag, vr, start, stop = event
            if kind == _ELEMENT:
                piece = None if tag < _AFTER_FILE_META and is_left_out(tag) else encoder.member(tag, vr, start, stop)
                if piece is None or (not outer and self._is_unwanted(tag)):
                    continue
                members[tag] = piece
            elif kind == _ITEM:
                encoder.begin_item()
                outer.append(members)
                members = {}
                continue
            elif kind == _END_ITEM:
                encoder.end_item()
                piece = b"{%b}" % _joined(members)
                members = outer.pop()
                if not sequences[-1].is_left_out:
                    sequences[-1].items.append(piece)
            elif kind == _SEQUENCE:
                encoder.begin_sequence(tag)
                is_unwanted = not outer and (tag in self._extra or self._is_unwanted(tag))
                sequences.append(_Sequence(tag, is_left_out=is_unwanted or is_left_out(tag)))
                continue
            else:
                encoder.end_sequence()
                sequence = sequences.pop()
                if sequence.is_left_out:
                    continue
                if sequence.is_begun:
                    yield from _sliced(sequence.taken() + b"]}")
                    continue
                members[tag] = piece = sequence.member()
            if not outer:
                if recall is not None:
                    recall.tell(event, piece)
                pending += len(piece)
                if pending > CHUNK_BYTES and encoder.survey().is_sorted:
                    yield from _sliced(self._taken(tag, sequences))
                    pending = 0
        rest = self._taken_below(_BEYOND_ALL_TAGS)
        yield from _sliced((rest if self._separator == b"," else b"{") + b"}")

    def _is_unwanted(self, tag: int) -> bool:
        return self._options.only is not None and tag not in self._options.only

    def _taken(self, tag: int, sequences: list[_Sequence]) -> bytes:
        """What is finished, up to the member `tag`, or to the last item of the sequence that is open."""
        if not sequences:
            return self._taken_below(tag + 1)
        sequence = sequences[0]
        if sequence.is_begun:
            return sequence.taken()
        before = self._taken_below(sequence.tag)
        if sequence.is_left_out:
            return before
        separator, self._separator = self._separator, b","
        return before + separator + sequence.taken()

    def _taken_below(self, stop_tag: int) -> bytes:
        """The members of the top level that are finished, and what `extra` puts in before `stop_tag`."""
        for extra_tag in [extra_tag for extra_tag in self._extra if extra_tag < stop_tag]:
            self._top[extra_tag] = self._extra.pop(extra_tag)
        if not self._top:
            return b""
        text = self._separator + _joined(self._top)
        self._separator = b","
        self._top.clear()
        return text

    def _add_file_meta(self) -> None:
        """PS3.10 §7.1: always Explicit VR Little Endian, whatever the data set is."""
        encoder = AttributeEncoder(self._p10.file_window, self._options, self._events, little_endian=True)
        for tag, (vr, start, stop) in sorted(self._p10.meta.items()):
            piece = encoder.member(tag, vr, start, stop)
            if piece is not None:
                self._top[tag] = piece


def _sliced(text: bytes) -> Iterator[bytes]:
    for start in range(0, len(text), CHUNK_BYTES):
        yield text[start : start + CHUNK_BYTES]
