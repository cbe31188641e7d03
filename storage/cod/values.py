"""Single values of stored DICOM JSON, mended on their text: strings and numbers stay byte for byte what they were.

Source: PS3.18 §F.2.2 (person names), §F.2.3 (numbers and text), §F.2.5 (empty values).
"""

import math
from collections.abc import Callable, Sequence

import msgspec

MapUid = Callable[[str], str]
"""Gives the UID of the outside world for one of the data set; well-known UIDs stay themselves."""

NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
TEXT_VRS = frozenset({"AE", "AS", "AT", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
VRS = NUMBER_VRS | TEXT_VRS | BULK_VRS | {"PN", "SQ"}

UTF_8 = b'"ISO_IR 192"'
_DEFAULT_REPERTOIRE = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
_INEXACT_INTEGER = 1 << 53
"""From here on a JavaScript number does not hold every integer (SV, UV)."""

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Malformed(ValueError):
    """The stored JSON is not the shape of a data set; messages name tags and VRs only."""


def person_name(tag: int, stored: bytes) -> bytes:
    """A person name with its non-empty component groups; `null` without any."""
    if stored in (b"null", b'""'):
        return b"null"
    try:
        members = _MEMBERS.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed(f"{tag:08X} has a person name that is no object") from None
    groups = []
    for name in ("Alphabetic", "Ideographic", "Phonetic"):
        text = bytes(members.get(name, b"null"))
        if text in (b"null", b'""'):
            continue
        if not text.startswith(b'"'):
            raise Malformed(f"{tag:08X} has a person name that is no text")
        groups.append(b'"%b":%b' % (name.encode(), text))
    return b"{%b}" % b",".join(groups) if groups else b"null"


def scalar(tag: int, vr: str, stored: bytes) -> bytes:
    """A string or number as stored; `null` for an empty one, a string for a number that JSON readers would bend."""
    if stored.startswith(b'"'):
        return b"null" if stored == b'""' else stored
    if stored == b"null":
        return stored
    if stored[:1] not in (b"-", b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"):
        raise Malformed(f"{tag:08X} has a value that is neither text nor number")
    number = float(stored)
    if vr in TEXT_VRS or not math.isfinite(number) or (vr in ("SV", "UV") and abs(number) >= _INEXACT_INTEGER):
        return b'"%b"' % stored
    return stored


def mapped(value: bytes, map_uid: MapUid) -> bytes:
    """A value of VR UI as the outside world knows it."""
    uid = _text(value)
    return msgspec.json.encode(map_uid(uid)) if uid else b"null"


def character_set(values: Sequence[bytes]) -> list[bytes]:
    """What SpecificCharacterSet (0008,0005) says once text is UTF-8, of which the default repertoire is a part."""
    return list(values) if all(_text(value) in _DEFAULT_REPERTOIRE for value in values) else [UTF_8]


def _text(value: bytes) -> str:
    """The trimmed text of a string value, `""` for `null`."""
    return "" if value == b"null" else msgspec.json.decode(value, type=str).strip(" \0")
