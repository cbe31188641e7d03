"""Value representations: how their headers and values are laid out, and which VR the dictionaries give a tag.

Source: PS3.5 §6.2 (value representations), §7.1.2 (explicit VR headers), PS3.6 (the dictionary, as pydicom keeps it).
"""

from functools import lru_cache
from typing import Final

from storage.dicom.dictionary import STANDARD_ENTRIES

LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""Explicit VR: two reserved bytes, then a length of four bytes."""

SHORT_VRS: Final = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI"}
    | {"UL", "US"}
)
"""Explicit VR: a length of two bytes."""

BULK_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Values that DICOM JSON carries as InlineBinary or BulkDataURI (PS3.18 §F.2.6, §F.2.7)."""

CHARACTER_SET_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Text in the repertoire that Specific Character Set (0008,0005) names."""

PLAIN_TEXT_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
"""Text in the default repertoire."""

TEXT_VRS: Final = CHARACTER_SET_VRS | PLAIN_TEXT_VRS

WORD_BYTES: Final = {"OW": 2, "OL": 4, "OF": 4, "OV": 8, "OD": 8}
"""Bytes that are swapped together between byte orders (PS3.5 §7.3); a VR that is not listed here is never swapped."""

EXPLICIT_SHORT: Final = {vr.encode("ascii"): vr for vr in SHORT_VRS}
EXPLICIT_LONG: Final = {vr.encode("ascii"): vr for vr in LONG_VRS}

STANDARD_VRS: Final[dict[int, str]] = {
    int(tag): str(entry[0]) for tag, entry in STANDARD_ENTRIES.items() if entry[0] != "NONE"
}
"""Tag → VR of the data dictionary, without the repeating groups and without item and delimiter tags."""


@lru_cache(maxsize=4096)
def standard_vr(tag: int) -> str:
    """VR of a tag that is not private: dictionary, repeating groups (50xx, 60xx), group length; else `UN`."""
    known = STANDARD_VRS.get(tag)
    if known is not None:
        return known
    if not tag & 0xFFFF:
        return "UL"
    from pydicom.datadict import dictionary_VR  # 0.2 s, for what few files have

    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


@lru_cache(maxsize=4096)
def private_vr(tag: int, creator: str | None) -> str:
    """VR of a private tag whose block `creator` reserved, by pydicom's private dictionary; else `UN`."""
    if not tag & 0xFFFF:
        return "UL"
    if is_private_creator(tag):
        return "LO"
    if creator is None or not tag & 0xFF00:
        return "UN"
    from pydicom.datadict import private_dictionary_VR  # likewise

    try:
        return str(private_dictionary_VR(tag, creator))
    except KeyError:
        return "UN"


def is_private(tag: int) -> bool:
    """Whether the group is odd (PS3.5 §7.8)."""
    return bool(tag & 0x10000)


def is_private_creator(tag: int) -> bool:
    """Whether the element reserves a block of its private group: (gggg,0010-00FF) (PS3.5 §7.8.1)."""
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def private_creator_tag(tag: int) -> int:
    """The element that reserves the block of a private tag: (gggg,xxee) → (gggg,00xx)."""
    return tag & 0xFFFF0000 | tag >> 8 & 0xFF
