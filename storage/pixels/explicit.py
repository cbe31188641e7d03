"""Explicit VR little endian out of any data set, with a few top-level elements replaced.

A data set that is so encoded already is copied byte for byte between the elements that change. One of another encoding
is written anew, element for element, sequences with defined lengths. Group lengths follow what was changed.

Source: PS3.5 §7.1.2 (explicit VR), §6.2.2 (UN), §7.3 (byte order), §7.2 (group length), Annex A.
"""

from collections.abc import Mapping
from struct import pack, unpack
from typing import Final

from storage.dicom.elements import Kind, walk
from storage.dicom.nesting import PIXEL_DATA
from storage.dicom.p10 import P10
from storage.dicom.vr import LONG_VRS
from storage.errors import InstanceUnreadable
from storage.pixels.description import PIXEL_REPRESENTATION

Piece = bytes | memoryview
Edits = Mapping[int, Piece | None]
"""By tag: a whole element that takes the place of the one that is there; None leaves it out."""

_UNIT_BYTES: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
"""Bytes that change their order together."""

_MAX_SHORT: Final = 0xFFFF
_UNDEFINED: Final = b"\xff\xff\xff\xff"


def explicit_element(tag: int, vr: str, value: Piece) -> bytes:
    """An explicit VR little endian element; a value too long for the header of its VR becomes UN (PS3.5 §6.2.2)."""
    if vr not in LONG_VRS and len(value) > _MAX_SHORT:
        vr = "UN"
    return explicit_header(tag, vr, len(value)) + value


def explicit_header(tag: int, vr: str, length: int) -> bytes:
    """The header of an explicit VR little endian element."""
    head = pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii")
    return head + (pack("<HI", 0, length) if vr in LONG_VRS else pack("<H", length))


def rewrite_data_set(p10: P10, edits: Edits, *, pixels_stop: int, is_signed: bool) -> list[Piece]:
    """The data set as explicit VR little endian.

    Args:
        edits: must hold an entry for Pixel Data.
        pixels_stop: where the value of Pixel Data, with its delimiter if it has one, ends.
        is_signed: Pixel Representation of the data set.

    Raises:
        InstanceUnreadable: elements that cannot be told or converted with certainty.
    """
    if p10.explicit and p10.little_endian:
        return _spliced(p10, edits, pixels_stop)
    return _converted(p10, edits, is_signed)


class _DataSet:
    """The elements of one data set in the order of the file, and the group lengths among them."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0
        self._group = -1
        self._length_at = -1
        self._length_from = 0
        self._is_changed = False

    def add(self, tag: int, element: Piece, *, is_changed: bool) -> None:
        """Take an element; `is_changed` if its size may not be the one that a group length counted."""
        if tag >> 16 != self._group:
            self._close_group()
            self._group = tag >> 16
        self.pieces.append(element)
        self.size += len(element)
        self._is_changed = self._is_changed or is_changed
        if tag & 0xFFFF == 0 and len(element) == 12 and tag >> 16 > 2:
            self._length_at, self._length_from = len(self.pieces) - 1, self.size

    def leave_out(self, tag: int) -> None:
        """An element of this group is gone."""
        self._is_changed = self._is_changed or tag >> 16 == self._group

    def finish(self) -> list[Piece]:
        """All of it."""
        self._close_group()
        return self.pieces

    def _close_group(self) -> None:
        if self._length_at >= 0 and self._is_changed:
            self.pieces[self._length_at] = explicit_element(
                self._group << 16, "UL", pack("<I", self.size - self._length_from)
            )
        self._length_at, self._is_changed = -1, False


def _spliced(p10: P10, edits: Edits, pixels_stop: int) -> list[Piece]:
    """Everything as it lies there, but for the edits."""
    result, position = _DataSet(), p10.start
    for kind, tag, _, _, stop in walk(
        p10.window, p10.start, p10.stop, explicit=True, little_endian=True, skip_sequences=True
    ):
        if kind == Kind.SEQUENCE:
            continue
        end = pixels_stop if tag == PIXEL_DATA else stop
        if tag not in edits:
            result.add(tag, p10.window.view(position, end), is_changed=False)
        elif (replacement := edits[tag]) is not None:
            result.add(tag, replacement, is_changed=True)
        else:
            result.leave_out(tag)
        position = end
        if tag == PIXEL_DATA:
            break
    return [*result.finish(), p10.window.view(position, p10.stop)]


def _converted(p10: P10, edits: Edits, is_signed: bool) -> list[Piece]:
    """Every element written anew."""
    stack, sequences = [_DataSet()], list[list[Piece]]()
    signs = [is_signed]
    for kind, tag, vr, start, stop in walk(
        p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian
    ):
        current = stack[-1]
        if kind == Kind.ITEM:
            stack.append(_DataSet())
            signs.append(signs[-1])
        elif kind == Kind.END_ITEM:
            signs.pop()
            content = stack.pop()
            pieces = content.finish()
            sequences[-1] += [pack("<HHI", 0xFFFE, 0xE000, content.size), *pieces]
        elif kind == Kind.SEQUENCE:
            sequences.append([])
        elif kind == Kind.END_SEQUENCE:
            current.add(tag, explicit_element(tag, "SQ", b"".join(sequences.pop())), is_changed=True)
        elif len(stack) == 1 and tag in edits:
            replacement = edits[tag]
            if replacement is not None:
                current.add(tag, replacement, is_changed=True)
        else:
            if bytes(p10.window.view(max(0, start - 4), start)) == _UNDEFINED:
                raise InstanceUnreadable(f"element {tag:08X} of undefined length cannot be converted")
            value = p10.window.view(start, stop)
            if tag == PIXEL_REPRESENTATION and len(value) == 2:
                signs[-1] = any(value)
            current.add(tag, _converted_element(p10, tag, _certain_vr(vr, signs[-1]), value), is_changed=True)
    return stack[0].finish()


def _certain_vr(vr: str, is_signed: bool) -> str:
    """The VR of an implicit element that the dictionary leaves open (PS3.5 §A.1)."""
    if vr == "US or SS":
        return "SS" if is_signed else "US"
    return "OW" if " or " in vr else vr


def _converted_element(p10: P10, tag: int, vr: str, value: memoryview) -> bytes:
    unit = _UNIT_BYTES.get(vr, 1)
    if p10.little_endian:
        return explicit_element(tag, "UN" if len(value) % unit else vr, value)
    if vr == "UN" or len(value) % unit:
        raise InstanceUnreadable(f"element {tag:08X} has no byte order that is certain")
    if unit > 1:
        code = {2: "H", 4: "I", 8: "Q"}[unit]
        count = len(value) // unit
        return explicit_element(tag, vr, pack(f"<{count}{code}", *unpack(f">{count}{code}", value)))
    return explicit_element(tag, vr, value)
