"""What a first pass over a data set tells the pass that encodes it: facts that stand behind the place of their use.

Most data sets never need it: they are sorted, so that the Specific Character Set of an item comes first in it, and in
explicit data sets no VR depends on Pixel Representation. It keeps a few facts and touches no other values.

Source: PS3.5 §7.1 (ascending tags), §7.5.3 (inheritance), PS3.3 §C.12.1.1.2, §C.7.6.3.1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from storage.dicom.elements import Kind
from storage.dicom.nesting import Event
from storage.dicom.text import MAX_SPECIFIC_CHARACTER_SET_BYTES, CharacterSet, character_set
from storage.dicom.window import Window

SPECIFIC_CHARACTER_SET: Final = 0x00080005
PIXEL_REPRESENTATION: Final = 0x00280103
TRAILING_PADDING: Final = 0xFFFCFFFC


@dataclass(frozen=True, slots=True)
class Survey:
    """Facts by data set: 0 is the top level, items count from 1 in the order in which they begin.

    Attributes:
        is_sorted: the tags of the top level strictly ascend.
        has_late_characters: somewhere (0008,0005) follows another attribute of its data set.
        characters: of the data sets that hold (0008,0005).
        signed: of the data sets that hold Pixel Representation (0028,0103).
    """

    is_sorted: bool
    has_late_characters: bool
    characters: Mapping[int, CharacterSet]
    signed: Mapping[int, bool]


def take_survey(window: Window, events: Iterable[Event], *, little_endian: bool) -> Survey:
    """Gather the facts of one data set from the events of `walk`, sequences included."""
    characters: dict[int, CharacterSet] = {}
    signed: dict[int, bool] = {}
    is_sorted, has_late_characters, items = True, False, 0
    open_data_sets = [0]
    last_tags = [-1]
    for kind, tag, _, start, stop in events:
        if kind == Kind.ITEM:
            items += 1
            open_data_sets.append(items)
            last_tags.append(-1)
        elif kind == Kind.END_ITEM:
            open_data_sets.pop()
            last_tags.pop()
        elif kind != Kind.END_SEQUENCE and not is_left_out(tag):
            if tag == SPECIFIC_CHARACTER_SET:
                characters[open_data_sets[-1]] = read_character_set(window, start, stop)
                has_late_characters = has_late_characters or last_tags[-1] >= 0
            elif tag == PIXEL_REPRESENTATION and stop - start == 2:
                signed[open_data_sets[-1]] = read_is_signed(window, start, little_endian=little_endian)
            if len(last_tags) == 1 and tag <= last_tags[0]:
                is_sorted = False
            last_tags[-1] = tag
    return Survey(is_sorted, has_late_characters, characters, signed)


def is_left_out(tag: int) -> bool:
    """Group lengths, file meta information and data set trailing padding are no part of the DICOM JSON Model."""
    return not tag & 0xFFFF or tag >> 16 == 2 or tag == TRAILING_PADDING


def read_character_set(window: Window, start: int, stop: int) -> CharacterSet:
    """The character set that a value of (0008,0005) calls for."""
    return character_set(bytes(window.view(start, max(start, min(stop, start + MAX_SPECIFIC_CHARACTER_SET_BYTES)))))


def read_is_signed(window: Window, start: int, *, little_endian: bool) -> bool:
    """The two bytes of (0028,0103); what is neither 0 nor 1 counts as 1, as in pydicom."""
    return int.from_bytes(window.view(start, start + 2), "little" if little_endian else "big") != 0
