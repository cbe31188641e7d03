"""One attribute of the DICOM JSON Model: the member `"GGGGEEEE":{"vr":"XX",…}` of its data set.

`AttributeEncoder` is led through a data set in the order of the file and knows at each place what the encoding of a
value depends on: the character set in force, Pixel Representation, the path for a BulkDataURI.

Source: PS3.18 §F.2.2 (attributes), §F.2.6 (BulkDataURI), §F.2.7 (InlineBinary), §10.4.1.1.2; PS3.5 §7.5.3, §A.1, §A.4.
"""

import struct
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from storage.dicom.nesting import PIXEL_TAGS, Event
from storage.dicom.survey import (
    PIXEL_REPRESENTATION,
    SPECIFIC_CHARACTER_SET,
    TRAILING_PADDING,
    Survey,
    read_character_set,
    read_is_signed,
    take_survey,
)
from storage.dicom.text import DEFAULT_CHARACTER_SET, CharacterSet
from storage.dicom.values import encoders, json_string, little_endian_bytes
from storage.dicom.vr import BULK_VRS, STANDARD_VRS, is_private
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

MAX_INLINE_BYTES: Final = 1 << 20
"""Of text and numbers: a longer value becomes bulk data, of whatever VR (PS3.18 §10.4.1.1.2 names those that may)."""
MAX_INLINE_PALETTE_BYTES: Final = 256 << 10
"""Palettes of 65536 entries of 16 bits, and room for padding: viewers want them without another request."""

_LUT_DESCRIPTORS: Final = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})
_PALETTES: Final = frozenset({0x00281201, 0x00281202, 0x00281203, 0x00281204, 0x00281221, 0x00281222, 0x00281223})
_SINGULAR: Final = _LUT_DESCRIPTORS | PIXEL_TAGS | {SPECIFIC_CHARACTER_SET, PIXEL_REPRESENTATION, TRAILING_PADDING}


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonOptions:
    """How the answer names this server, and what it leaves to bulk data.

    Attributes:
        bulkdata_base: beginning of every BulkDataURI; the path of the attribute follows: `/7FE00010`, and in sequences
            `/00400275/1/00091010` with items from 1.
        bulk_threshold_bytes: longer values of VR OB, OD, OF, OL, OV, OW and UN become bulk data. Pixel data always do.
        map_uid: applied to every value of VR UI (stores whose UIDs are hashed). Bytes of UN and of private attributes
            may hold UIDs that it cannot reach: with it they always become bulk data, which the archive withholds.
        extra: finished JSON objects (`{"vr":…}`) of top-level attributes, put in their sorted place; they win.
        include_file_meta: begin with group 0002.
        only: leave out every other top-level attribute.
    """

    bulkdata_base: str
    bulk_threshold_bytes: int = 1024
    map_uid: Callable[[str], str] | None = None
    extra: Mapping[int, bytes] = field(default_factory=dict)
    include_file_meta: bool = False
    only: frozenset[int] | None = None


class LateCharacterSet(Exception):
    """(0008,0005) follows attributes that it governs: what has been encoded so far has to be encoded again."""


class _DataSet:
    """The top level or an open item. `ordinal` as in `Survey`."""

    __slots__ = ("characters", "is_begun", "is_signed", "ordinal")

    def __init__(self, ordinal: int, characters: CharacterSet) -> None:
        self.ordinal = ordinal
        self.characters = characters
        self.is_begun = False
        self.is_signed: bool | None = None


class AttributeEncoder:
    """Encodes the attributes of one data set, in the order of the file.

    Args:
        window: holds the data set.
        events: makes a fresh run of the events of the whole data set, for a survey.
        survey: of an earlier pass, if there was one. Without it `LateCharacterSet` may be raised.
    """

    def __init__(
        self,
        window: Window,
        options: JsonOptions,
        events: Callable[[], Iterator[Event]],
        *,
        little_endian: bool,
        survey: Survey | None = None,
    ) -> None:
        self._window = window
        self._little_endian = little_endian
        self._options = options
        self._maps_uids = options.map_uid is not None
        self._base = json_string(options.bulkdata_base)[1:-1]
        self._encoders = encoders(little_endian=little_endian, map_uid=options.map_uid)
        self._events = events
        self._survey = survey
        self._is_informed = survey is not None
        self.bulk: dict[bytes, tuple[int, int]] | None = None
        """Where the values lie that became bulk data, by path (`7FE00010`, `00400275/1/00091010`), for who sets it."""
        self.items = 0
        """How many items have begun so far."""
        self.unkept = 0
        """How many members so far depend on more than the bytes of their element and what governs these."""
        self._piece, self._piece_start, self._piece_stop = memoryview(b""), 0, 0
        self._path: list[list[int]] = []  # [tag of an open sequence, number of its open item from 1]
        self._data_set = _DataSet(0, self._characters_at(0, DEFAULT_CHARACTER_SET))
        self._outer: list[_DataSet] = []

    # --- the place in the data set ------------------------------------------------------------------------------------

    def begin_sequence(self, tag: int) -> None:
        self._data_set.is_begun = True
        self._path.append([tag, 0])

    def end_sequence(self) -> None:
        self._path.pop()

    def begin_item(self) -> None:
        self.items += 1
        self._path[-1][1] += 1
        self._outer.append(self._data_set)
        self._data_set = _DataSet(self.items, self._characters_at(self.items, self._data_set.characters))

    def end_item(self) -> None:
        self._data_set = self._outer.pop()

    def pass_over(self, items: int) -> None:
        """Elements are left to others, with so many items in them; (0008,0005) is not among them."""
        self._data_set.is_begun = True
        self.items += items

    def survey(self) -> Survey:
        """What a pass over the whole data set tells; made at the first call.

        Raises:
            LateCharacterSet: what has been encoded so far may be wrong.
        """
        if self._survey is None:
            self._survey = take_survey(self._window, self._events(), little_endian=self._little_endian)
            if self._survey.has_late_characters:
                raise LateCharacterSet
        return self._survey

    def _characters_at(self, ordinal: int, inherited: CharacterSet) -> CharacterSet:
        return self._survey.characters.get(ordinal, inherited) if self._is_informed and self._survey else inherited

    # --- attributes ---------------------------------------------------------------------------------------------------

    def member(self, tag: int, vr: str, start: int, stop: int) -> bytes | None:
        """The member for an ELEMENT event; None for what is no part of the model.

        Raises:
            MissingBytes: the window lacks the value, and it is not bulk data.
            LateCharacterSet: start again, with a survey.
        """
        if self._maps_uids and STANDARD_VRS.get(tag) == "UI":
            vr = "UI"  # whatever VR the file gives it
        encode = self._encoders.get(vr)
        if encode is None or not 0 < stop - start <= MAX_INLINE_BYTES or tag in _SINGULAR or not tag & 0xFFFF:
            return self._singular(tag, vr, start, stop)
        data_set = self._data_set
        data_set.is_begun = True
        value = encode(self._bytes(start, stop), data_set.characters)
        if value:
            return b'%b,"Value":[%b]}' % (prefix(tag, vr), value)
        return self._binary(tag, "UN", start, stop) if value is None else prefix(tag, vr) + b"}"

    def _singular(self, tag: int, vr: str, start: int, stop: int) -> bytes | None:
        """What is encoded in a way of its own, or governs how others are."""
        if not tag & 0xFFFF or tag == TRAILING_PADDING:
            return None
        if tag == SPECIFIC_CHARACTER_SET:
            self._enter_character_set(start, stop)
            if not self._data_set.characters.is_default:
                return prefix(tag, "CS") + b',"Value":["ISO_IR 192"]}'
        elif tag == PIXEL_REPRESENTATION and stop - start == 2:
            self._data_set.is_signed = read_is_signed(self._window, start, little_endian=self._little_endian)
        self._data_set.is_begun = True
        if tag in PIXEL_TAGS and start != stop:
            vr = "OB" if stop < 0 and vr not in BULK_VRS else self._concrete(vr, start, stop)
            return self._bulkdata(tag, vr, start, stop)
        return self._plain(tag, self._concrete(vr, start, stop), start, stop)

    def _enter_character_set(self, start: int, stop: int) -> None:
        if self._is_informed:
            return
        if self._data_set.is_begun:
            raise LateCharacterSet
        self._data_set.characters = read_character_set(self._window, start, stop)

    def _plain(self, tag: int, vr: str, start: int, stop: int) -> bytes:
        if start == stop:
            return prefix(tag, vr) + b"}"
        encode = self._encoders.get(vr)
        if encode is None:
            return self._binary(tag, vr, start, stop)
        if stop - start > MAX_INLINE_BYTES:
            return self._bulkdata(tag, vr, start, stop)
        raw = self._bytes(start, stop)
        if vr == "SS" and tag in _LUT_DESCRIPTORS and len(raw) == 6:
            return b'%b,"Value":[%b]}' % (prefix(tag, vr), self._lut_descriptor(raw))
        value = encode(raw, self._data_set.characters)
        if value is None:
            return self._binary(tag, "UN", start, stop)
        return b'%b,"Value":[%b]}' % (prefix(tag, vr), value) if value else prefix(tag, vr) + b"}"

    def _lut_descriptor(self, raw: bytes) -> bytes:
        """PS3.3 §C.11.1.1.1: the number of entries is unsigned even where the descriptor is SS."""
        return b"%d,%d,%d" % struct.unpack("<Hhh" if self._little_endian else ">Hhh", raw)

    def _binary(self, tag: int, vr: str, start: int, stop: int) -> bytes:
        length = stop - start
        is_inline = length <= self._options.bulk_threshold_bytes
        if tag in _PALETTES:
            is_inline = is_inline or length <= MAX_INLINE_PALETTE_BYTES
        elif self._maps_uids and (vr == "UN" or is_private(tag)):
            is_inline = False
        if not is_inline:
            return self._bulkdata(tag, vr, start, stop)
        raw = self._bytes(start, stop)
        if not self._little_endian:
            swapped = little_endian_bytes(raw, vr)
            vr, raw = ("UN", raw) if swapped is None else (vr, swapped)
        return b'%b,"InlineBinary":"%b"}' % (prefix(tag, vr), b2a_base64(raw, newline=False))

    def _bulkdata(self, tag: int, vr: str, start: int, stop: int) -> bytes:
        path = b"".join([b"%08X/%d/" % (sequence, number) for sequence, number in self._path]) + b"%08X" % tag
        if self.bulk is not None:
            self.bulk[path] = start, stop
        self.unkept += 1
        return b'%b,"BulkDataURI":"%b/%b"}' % (prefix(tag, vr), self._base, path)

    def _concrete(self, vr: str, start: int, stop: int) -> str:
        """A VR that the dictionary leaves open, by the rules that pydicom follows too.

        - "US or SS" by Pixel Representation of the same data set, or of one around it; US if nobody says (PS3.5 §A.1).
        - "US or OW" (LUT Data) is a single US if one entry is all there is, else OW (PS3.3 §C.11.1.1.1).
        - "OB or OW" is OW: it comes from implicit data sets (PS3.5 §A.1); "US or SS or OW" (retired) may be anything.
        """
        if " " not in vr:
            return vr
        if vr == "US or SS":
            return "SS" if self._is_signed() else "US"
        return "US" if vr == "US or OW" and stop - start == 2 else "OW"

    def _is_signed(self) -> bool:
        self.unkept += 1
        own = self._data_set.is_signed
        if own is not None:
            return own
        signed = self.survey().signed
        around = [data_set.ordinal for data_set in reversed((*self._outer, self._data_set))]
        return next((signed[ordinal] for ordinal in around if ordinal in signed), False)

    def _bytes(self, start: int, stop: int) -> bytes:
        if start < self._piece_start or stop > self._piece_stop:
            self._piece, self._piece_start = self._window.piece_at(start, stop - start)
            self._piece_stop = self._piece_start + len(self._piece)
            if stop > self._piece_stop:
                raise InstanceUnreadable(f"a value at [{start}, {stop}) of {self._window.size} bytes")
        return self._piece[start - self._piece_start : stop - self._piece_start].tobytes()


@lru_cache(maxsize=1 << 15)
def prefix(tag: int, vr: str) -> bytes:
    """The beginning of a member, up to the VR."""
    return b'"%08X":{"vr":"%b"' % (tag, vr.encode())
