"""Where a walk stands between sequences and items, and what it makes of everything that is not a plain element.

The rules for damaged files are told in `elements`; this is where they are kept. Depth is held on an explicit stack:
a file chooses how deep it nests, so Python's own stack must not follow it.

Source: PS3.5 §7.5 (nesting, delimiters), §6.2.2 (UN), §7.8 (private elements).
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from storage.dicom.vr import (
    EXPLICIT_LONG,
    EXPLICIT_SHORT,
    is_private,
    is_private_creator,
    private_creator_tag,
    private_vr,
    standard_vr,
)
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

ITEM_TAG: Final = 0xFFFEE000
ITEM_DELIMITER: Final = 0xFFFEE00D
SEQUENCE_DELIMITER: Final = 0xFFFEE0DD
PIXEL_DATA: Final = 0x7FE00010
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_PIXEL_DATA: Final = 0x7FE00009
PIXEL_TAGS: Final = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA})

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
MAX_DEPTH: Final = 64
"""Sequences within sequences; real data sets stay below 20."""
MAX_CREATOR_BYTES: Final = 64
"""A private creator is an LO of at most 64 characters; longer ones are in no dictionary (PS3.5 §7.8.1)."""
MAX_KNOWN_UN_BYTES: Final = 0xFFFE
"""A longer value of a known tag is UN because an explicit header has no room for its length (PS3.5 §6.2.2)."""

Event = tuple[int, int, str, int, int]
"""(kind, tag, vr, value_start, value_stop); the kinds are those of `elements.Kind`, told apart by `walk`."""

_ITEM, _END_ITEM, _END_SEQUENCE = 2, 3, 4


class FileEnds(Exception):
    """A declared length runs past the end of the walk: the file was cut."""


class ElementHeader(NamedTuple):
    """An element header as the loop read it; `vr` is None where neither the file nor the dictionary names one."""

    position: int
    tag: int
    vr: str | None
    raw_vr: bytes
    value_start: int
    length: int


class Found(NamedTuple):
    """What an element is; `stop` is -1 if its length is undefined, `next` is -1 if only the caller can find its end.

    `is_cut`: the declared length runs past the end of the file, and `stop` is that end.
    """

    vr: str
    start: int
    stop: int
    next: int
    is_cut: bool = False


class _Frame:
    """A sequence or data set that is open; `end` is the enclosing end where its own length is undefined (`is_open`)."""

    __slots__ = ("creator_names", "creators", "end", "implicit", "is_open", "is_sequence", "tag")

    def __init__(self, tag: int, end: int, *, is_open: bool, is_sequence: bool, implicit: bool) -> None:
        self.tag = tag
        self.end = end
        self.is_open = is_open
        self.is_sequence = is_sequence
        self.implicit = implicit
        self.creators: dict[int, tuple[int, int]] | None = None
        self.creator_names: dict[int, str] = {}


class Nest:
    """The stack of open sequences and items of one walk, and its rules."""

    __slots__ = (
        "_little_endian",
        "_stack",
        "_stop",
        "_window",
        "depth",
        "end",
        "implicit",
        "in_sequence",
        "long_length",
        "tag_length",
        "tag_vr_length",
    )

    def __init__(self, window: Window, start: int, stop: int, *, explicit: bool, little_endian: bool) -> None:
        if not 0 <= start <= stop <= window.size:
            raise InstanceUnreadable(f"data set [{start}, {stop}) of a sequence of {window.size} bytes")
        order = "<" if little_endian else ">"
        self.tag_vr_length = Struct(order + "HH2sH").unpack_from
        self.tag_length = Struct(order + "HHI").unpack_from
        self.long_length = Struct(order + "I").unpack_from
        self._window = window
        self._little_endian = little_endian
        self._stop = stop
        self.depth = 0
        implicit = is_implicit_at(window, start, stop, explicit=explicit)
        self._stack = [_Frame(0, stop, is_open=False, is_sequence=False, implicit=implicit)]
        self._enter(self._stack[0])

    def inspect(self, header: ElementHeader) -> Found:
        """Decide VR and extent of an element that is not plain: UN, SQ, private creator, no VR, no fitting length.

        Raises:
            FileEnds: its value is cut by the end of the file.
        """
        vr, length = self._vr_and_length(header)
        start, tag = header.value_start, header.tag
        if length == UNDEFINED_LENGTH:
            return self._undefined(tag, vr, start)
        stop = start + length
        is_cut = stop > self.end
        if is_private_creator(tag) and length <= MAX_CREATOR_BYTES and not is_cut:
            frame = self._stack[-1]
            frame.creators = frame.creators or {}
            frame.creators[tag] = (start, stop)
            frame.creator_names.pop(tag, None)
        if is_cut:
            if self.end != self._stop:
                raise InstanceUnreadable(f"element {tag:08X} at {header.position} runs past its item")
            if vr != "SQ" and not (tag in PIXEL_TAGS and self.depth == 0):
                raise FileEnds
            stop = self.end
        if vr == "SQ" and length and not self._holds_items(start, stop):
            vr = "UN"
        return Found(vr, start, stop, stop, is_cut)

    def open_sequence(self, tag: int, found: Found) -> None:
        """Go into a sequence: what follows are items."""
        if self.depth == MAX_DEPTH:
            raise InstanceUnreadable(f"sequences nest deeper than {MAX_DEPTH}")
        end = self.end if found.stop < 0 else found.stop
        frame = _Frame(tag, end, is_open=found.stop < 0, is_sequence=True, implicit=self.implicit)
        self.depth += 1
        self._stack.append(frame)
        self._enter(frame)

    def next_item(self, position: int) -> tuple[Event, int]:
        """In a sequence: open its next item or close it; the event, and where the walk goes on."""
        frame = self._stack[-1]
        while True:
            if position == frame.end and not frame.is_open:
                return self._close(position, position)
            tag, length = self._tag_and_length(position)
            if tag == ITEM_TAG:
                return self._open_item(frame, position + 8, length)
            if tag == SEQUENCE_DELIMITER and (frame.is_open or position + 8 == frame.end):
                return self._close(position, position + 8)
            if tag != ITEM_DELIMITER:
                raise InstanceUnreadable(f"element {tag:08X} at {position} where an item should be")
            position += 8

    def leave_data_set(self, position: int) -> tuple[Event | None, int]:
        """In a data set that has no further element here: close it, or pass over a superfluous delimiter (no event).

        The position is -1 when the top level is through.
        """
        frame = self._stack[-1]
        if self.depth == 0 and frame.end - position < 8:
            return None, -1
        if position == frame.end and not frame.is_open:
            return self._close(position, position)
        tag, _ = self._tag_and_length(position)
        if tag not in (ITEM_DELIMITER, SEQUENCE_DELIMITER):
            raise InstanceUnreadable(f"element {tag:08X} at {position} outside of a sequence")
        if self.depth == 0:
            return None, position + 8
        if tag == ITEM_DELIMITER:
            if not frame.is_open and position + 8 != frame.end:
                raise InstanceUnreadable(f"an item of defined length is delimited at {position}, before its end")
            return self._close(position, position + 8)
        if frame.is_open and self._stack[-2].is_open:
            return self._close(position, position)
        return None, position + 8

    def unwind(self) -> Iterator[Event]:
        """Close everything that is open, innermost first, where the file ends."""
        while len(self._stack) > 1:
            yield self._close(self._stop, self._stop)[0]

    def _enter(self, frame: _Frame) -> None:
        self.end = frame.end
        self.implicit = frame.implicit
        self.in_sequence = frame.is_sequence

    def _close(self, value_stop: int, position: int) -> tuple[Event, int]:
        frame = self._stack.pop()
        self._enter(self._stack[-1])
        if not frame.is_sequence:
            return (_END_ITEM, ITEM_DELIMITER, "", value_stop, position), position
        self.depth -= 1
        return (_END_SEQUENCE, frame.tag, "SQ", value_stop, position), position

    def _open_item(self, sequence: _Frame, start: int, length: int) -> tuple[Event, int]:
        is_open = length == UNDEFINED_LENGTH
        end = sequence.end if is_open else start + length
        if end > sequence.end:
            if sequence.end != self._stop:
                raise InstanceUnreadable(f"an item at {start - 8} runs past its sequence")
            end = sequence.end
        implicit = sequence.implicit or is_implicit_at(self._window, start, end, explicit=True)
        frame = _Frame(ITEM_TAG, end, is_open=is_open, is_sequence=False, implicit=implicit)
        self._stack.append(frame)
        self._enter(frame)
        return (_ITEM, ITEM_TAG, "", start, -1 if is_open else end), start

    def _tag_and_length(self, position: int) -> tuple[int, int]:
        """The eight bytes of an item, delimiter or implicit element; the enclosing end must leave room for them."""
        if self.end - position < 8:
            raise self._run_out(position)
        view, base = self._window.piece_at(position, 8)
        group, element, length = self.tag_length(view, position - base)
        return group << 16 | element, length

    def _run_out(self, position: int) -> FileEnds | InstanceUnreadable:
        """What it means that the header at `position` does not fit before the enclosing end."""
        if self.end == self._stop:
            return FileEnds()
        return InstanceUnreadable(f"{self.end - position} bytes are left at {position}, too few for a header")

    def _vr_and_length(self, header: ElementHeader) -> tuple[str, int]:
        """The VR that the file names, else that of the dictionaries; and the length that goes with it."""
        position, tag, vr, raw_vr, start, length = header
        if vr is not None:
            is_unknown = vr == "UN" and self._little_endian and not self.implicit and length != UNDEFINED_LENGTH
            return (self._known_vr_of_un(tag, length) if is_unknown else vr), length
        if self.implicit:
            return self._dictionary_vr(tag, length), length
        if raw_vr in EXPLICIT_LONG:  # the header itself does not fit before the end
            raise self._run_out(position)
        implicit_length = self._implicit_length(raw_vr, length)
        if not _is_upper(raw_vr) and (implicit_length == UNDEFINED_LENGTH or start + implicit_length <= self.end):
            return self._dictionary_vr(tag, implicit_length), implicit_length
        if raw_vr.isascii() and raw_vr.decode("ascii").isprintable() and start + length <= self.end:
            return "UN", length
        raise InstanceUnreadable(f"element {tag:08X} at {position} has neither a VR nor a length that fits")

    def _implicit_length(self, raw_vr: bytes, length: int) -> int:
        """The four bytes of VR and short length, read as the length of an implicit header."""
        if self._little_endian:
            return length << 16 | int.from_bytes(raw_vr, "little")
        return int.from_bytes(raw_vr, "big") << 16 | length

    def _dictionary_vr(self, tag: int, length: int) -> str:
        """VR of an implicit element; a private one of undefined length is what its content shows."""
        if not is_private(tag):
            return standard_vr(tag)
        return "UN" if length == UNDEFINED_LENGTH else private_vr(tag, self._creator(tag))

    def _known_vr_of_un(self, tag: int, length: int) -> str:
        """VR of an explicit UN; big endian values keep UN, for their byte order is not certain (PS3.5 §6.2.2)."""
        if is_private(tag):
            return private_vr(tag, self._creator(tag))
        return standard_vr(tag) if length <= MAX_KNOWN_UN_BYTES else "UN"

    def _creator(self, tag: int) -> str | None:
        """The private creator in effect for a tag, in this data set only."""
        frame = self._stack[-1]
        block = private_creator_tag(tag)
        known = frame.creator_names.get(block)
        if known is not None:
            return known
        if frame.creators is None or (place := frame.creators.get(block)) is None:
            return None
        name = bytes(self._window.view(*place)).decode("ascii", "replace").strip(" \0")
        frame.creator_names[block] = name
        return name

    def _undefined(self, tag: int, vr: str, start: int) -> Found:
        """An element of undefined length: pixels at the top level, a sequence, or fragments."""
        if tag == PIXEL_DATA and self.depth == 0:
            return Found(vr, start, -1, -1)
        if vr == "SQ" or (vr == "UN" and self._holds_items(start, self.end)):
            return Found("SQ", start, -1, start)
        position = start
        while True:
            found, length = self._tag_and_length(position)
            if found == SEQUENCE_DELIMITER:
                return Found(vr, start, position, position + 8)
            if found != ITEM_TAG or length > self.end - position - 8:
                raise InstanceUnreadable(f"element {tag:08X} of undefined length is broken at {position}")
            position += 8 + length

    def _holds_items(self, start: int, stop: int) -> bool:
        """Whether a value begins as a sequence does."""
        if stop - start < 8:
            return False
        tag, _ = self._tag_and_length(start)
        return tag in (ITEM_TAG, SEQUENCE_DELIMITER)


def is_implicit_at(window: Window, start: int, stop: int, *, explicit: bool) -> bool:
    """Whether the data set at `start` is implicit, whatever was announced, judged by its first element.

    Two capital letters where the VR would be: as a length they would mean an element of more than 16 KiB in front.
    """
    if stop - start < 8:
        return not explicit
    view, base = window.piece_at(start, 8)
    raw_vr = bytes(view[start - base + 4 : start - base + 6])
    if explicit:
        return not _is_upper(raw_vr)
    return raw_vr not in EXPLICIT_SHORT and raw_vr not in EXPLICIT_LONG


def _is_upper(raw_vr: bytes) -> bool:
    return raw_vr.isalpha() and raw_vr.isupper()
