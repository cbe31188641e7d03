"""A stored data set made Annex F: its elements finished one by one, sorted, nested ones included.

Two things repeat from instance to instance of a series, and are remembered: the keys of a data set, from which its
`Layout` follows, and most of its elements, whose finished form depends on their text alone. That is what makes the
quick road quick: 450 instances of 200 attributes hold 3,800 different elements. What depends on where an element stands
(links, character set, mapped UIDs) is never remembered.
Source: PS3.18 §F.2; PS3.5 §7.2 (group length).
"""

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from types import MappingProxyType

import msgspec

from storage.cod.values import BULK_VRS, VRS, Malformed, MapUid, character_set, mapped, person_name, scalar
from storage.levels import KEPT_TAGS, SPECIFIC_CHARACTER_SET

MOST_NESTED = 64
"""Sequences within sequences; more is an attack, not a data set. A remembered element may add thirty."""
SHARED_ELEMENTS = 16384
SHARED_BYTES = 1024
"""Longest element that is remembered: all of them together stay below 40 MiB."""
SHARED_MEMBERS = 512
"""Largest data set whose layout is remembered: all layouts together stay below 32 MiB."""

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, double float and integer pixel data: always sent as a link."""
NOTHING: Mapping[int, bytes] = MappingProxyType({})

NAMED = PIXELS | {SPECIFIC_CHARACTER_SET}
"""Elements whose finished form depends on their tag."""
_UID_BEARING = (b"UI", b"SQ", b"UN")
"""VRs whose finished form differs when UIDs are mapped."""
_NULL = msgspec.Raw(b"null")
_KEY = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
# Elements that need no mending: without a value, with one string, or with numbers no reader will bend. They are most of
# those that do not repeat.
_PLAIN = re.compile(
    rb'\{ ?"vr": ?"(?:(A[EST]|CS|D[AST]|F[DL]|IS|L[OT]|S[HLST]|TM|U[CILRST])"'
    rb'(?:, ?"Value": ?\[((?!"")"[^"\\]*+(?:\\.[^"\\]*+)*+")\])?'
    rb'|(DS|F[DL]|IS|S[LS]|U[LS])", ?"Value": ?\[('
    rb"-?[0-9.]{1,20}(?:[eE]-?[0-9]{1,2})?(?:, ?-?[0-9.]{1,20}(?:[eE]-?[0-9]{1,2})?)*+)\])\}",
    re.DOTALL,
)

# What the published writer leaves of bulk data; an element that is a link is nothing else besides.
LINK = re.compile(rb'\{ ?"vr": ?"(O[BDFLVW]|UN)", ?"BulkDataURI": ?\{')

_shared: dict[bytes, bytes] = {}
"""Finished elements by their stored text; emptied when full."""


class _Element(msgspec.Struct, gc=False):
    vr: str
    values: list[msgspec.Raw] | None = msgspec.field(default=None, name="Value")
    inline: msgspec.Raw = msgspec.field(default=_NULL, name="InlineBinary")
    link: msgspec.Raw = msgspec.field(default=_NULL, name="BulkDataURI")


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENT = msgspec.json.Decoder(_Element)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set stands, as far as its finished form depends on that."""

    link: str | None
    """What links of its elements begin with; None while an element is finished without knowing whose it is."""
    map_uid: MapUid | None = None
    depth: int = 0
    """Sequences around it."""

    def item(self, tag: int, number: int) -> "Place":
        """An item, counted from 1, of one of its sequences."""
        link = None if self.link is None else f"{self.link}/{tag:08X}/{number}"
        return Place(link, self.map_uid, self.depth + 1)


_NOWHERE = Place(None)


class DependsOnPlace(Exception):
    """An element cannot be finished without knowing where it stands."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set whose elements are finished."""

    json: bytes
    present: frozenset[int]
    """Tags of the stored elements that are sent."""
    kept: dict[int, bytes]
    """Finished elements of `storage.levels.KEPT_TAGS`."""


def finished_data_set(
    members: Mapping[str, msgspec.Raw], place: Place, extra: Mapping[int, bytes] = NOTHING
) -> DataSet:
    """Finish the elements of a stored data set; those of `extra` are finished already and take precedence.

    Raises:
        Malformed: an element is not of a shape that Annex F knows, or sequences are nested too deeply.
    """
    layout = layout_of(tuple(members), tuple(extra))
    elements = _finished_elements(members, layout, place)
    elements.extend(extra.values())
    return DataSet(_object(layout, elements), layout.present, {tag: elements[at] for tag, at in layout.kept})


def finished_element(tag: int, raw: bytes, place: Place) -> bytes:
    """One element of a data set, finished as `finished_data_set` does; only where no UIDs are mapped.

    Raises:
        Malformed: as there. That `raw` is JSON in UTF-8 the caller knows already.
    """
    known = None if tag in NAMED else _shared.get(raw)
    return known if known is not None else _finished(tag, raw, place)


def is_remembered(raw: bytes) -> bool:
    """Whether an element of this text was finished, and its form is the same wherever it stands."""
    return raw in _shared


def only_text(element: bytes | msgspec.Raw | None) -> str | None:
    """The first string of an element, trimmed; None if it has none."""
    if element is None:
        return None
    try:
        values = _ELEMENT.decode(element).values
        return msgspec.json.decode(values[0], type=str).strip(" \0") or None if values else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Layout:
    """What follows from the keys of a data set alone. Positions count its members, then the extra elements."""

    tags: tuple[int | None, ...]
    """Per member; None for one that is not sent."""
    placed: tuple[int, ...]
    """Positions of members whose finished form depends on their tag."""
    present: frozenset[int]
    prefixes: tuple[bytes, ...]
    """What stands before each value that is sent, in the order of tags."""
    sent: tuple[int, ...]
    """The positions of these values."""
    kept: tuple[tuple[int, int], ...]
    """Tags of `KEPT_TAGS`, each with its position."""


def _layout(keys: tuple[str, ...], extra: tuple[int, ...]) -> Layout:
    tags = tuple(map(_tag, keys))
    position_of = {tag: position for position, tag in enumerate(tags) if tag is not None}
    placed = tuple(position for tag, position in position_of.items() if tag in NAMED)
    present = frozenset(position_of)
    position_of.update((tag, position) for position, tag in enumerate(extra, len(keys)))
    ascending = sorted(position_of)
    return Layout(
        tags=tags,
        placed=placed,
        present=present,
        prefixes=tuple((b',"%08X":' if number else b'{"%08X":') % tag for number, tag in enumerate(ascending)),
        sent=tuple(position_of[tag] for tag in ascending),
        kept=tuple((tag, position_of[tag]) for tag in ascending if tag in KEPT_TAGS),
    )


_shared_layout = lru_cache(maxsize=256)(_layout)


def layout_of(keys: tuple[str, ...], extra: tuple[int, ...]) -> Layout:
    """The layout of a data set with these members, in stored order, and these extra elements."""
    return (_shared_layout if len(keys) <= SHARED_MEMBERS else _layout)(keys, extra)


def _tag(key: str) -> int | None:
    """The tag of a member that is sent; None for group 0002, group lengths, padding, delimiters, and non-tags."""
    if _KEY.fullmatch(key) is None:
        return None
    tag = int(key, 16)
    if tag >> 16 in (0x0000, 0x0002, 0xFFFE) or tag & 0xFFFF == 0 or tag == 0xFFFCFFFC:
        return None
    return tag


def _finished_elements(members: Mapping[str, msgspec.Raw], layout: Layout, place: Place) -> list[bytes]:
    """One finished element per member; `b""` for those that are not sent."""
    raws = list(map(bytes, members.values()))
    elements = list(map(_shared.get, raws, repeat(b"")))
    for position in layout.placed:
        elements[position] = b""
    for position in [position for position, element in enumerate(elements) if not element]:
        tag = layout.tags[position]
        if tag is not None:
            elements[position] = _finished(tag, raws[position], place)
    if place.map_uid is not None:
        for position, element in enumerate(elements):
            tag = layout.tags[position]
            if tag is not None and element[7:9] in _UID_BEARING:
                elements[position] = _mended(tag, raws[position], place)
    return elements


def _object(layout: Layout, elements: list[bytes]) -> bytes:
    """Prefixes and values in turn; slices are assigned because a loop would cost as much as all the rest."""
    pieces = [b""] * (2 * len(layout.sent))
    pieces[::2] = layout.prefixes
    pieces[1::2] = [elements[position] for position in layout.sent]
    return b"".join(pieces) + b"}" if pieces else b"{}"


def _finished(tag: int, raw: bytes, place: Place) -> bytes:
    """An element that was not met before; remembered if its form is the same wherever it stands."""
    link = LINK.match(raw)
    if link is not None:
        return _linked(tag, link[1].decode(), place)
    if len(raw) > SHARED_BYTES or tag in NAMED:
        return _mended(tag, raw, place)
    element = _plain(raw)
    if element is None:
        try:
            element = _mended(tag, raw, _NOWHERE)
        except DependsOnPlace:
            return _mended(tag, raw, place)
    if len(_shared) >= SHARED_ELEMENTS:
        _shared.clear()
    _shared[raw] = element
    return element


def _plain(raw: bytes) -> bytes | None:
    """What `_mended` makes of an element that needs no mending; None if it may need some."""
    plain = _PLAIN.fullmatch(raw)
    if plain is None:
        return None
    vr, text, number_vr, numbers = plain.groups()
    if numbers is not None:
        return b'{"vr":"%b","Value":[%b]}' % (number_vr, numbers.replace(b" ", b""))
    return b'{"vr":"%b"}' % vr if text is None else b'{"vr":"%b","Value":[%b]}' % (vr, text)


def _mended(tag: int, raw: bytes, place: Place) -> bytes:
    """One element as Annex F wants it, from its parts."""
    try:
        element = _ELEMENT.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed(f"{tag:08X} is no attribute") from None
    vr = element.vr if element.vr in VRS else _disambiguated(tag, element)
    if element.link != _NULL:
        return _linked(tag, vr, place)
    if element.values is not None and element.inline != _NULL:
        raise Malformed(f"{tag:08X} has more than one value")
    if element.inline != _NULL:
        return _inline(tag, vr, bytes(element.inline), place)
    if element.values and tag in PIXELS:
        return _linked(tag, vr, place)
    values = _values(tag, vr, element.values or [], place)
    if all(value == b"null" for value in values):
        return b'{"vr":"%b"}' % vr.encode()
    return b'{"vr":"%b","Value":[%b]}' % (vr.encode(), b",".join(values))


def _disambiguated(tag: int, element: _Element) -> str:
    """pydicom writes the VRs of its dictionary where it could not decide between two of them (PS3.6)."""
    if element.vr not in ("OB or OW", "US or OW", "US or SS", "US or SS or OW"):
        raise Malformed(f"{tag:08X} has no VR that is known")
    if element.values is None and element.vr != "US or SS":
        return "OW"
    return "SS" if any(bytes(value).startswith(b"-") for value in element.values or ()) else "US"


def _linked(tag: int, vr: str, place: Place) -> bytes:
    """Bulk data by our own link (PS3.18 §F.2.6)."""
    if vr == "SQ":
        raise Malformed(f"{tag:08X} is a sequence as bulk data")
    if place.link is None:
        raise DependsOnPlace
    return b'{"vr":"%b","BulkDataURI":%b}' % (vr.encode(), msgspec.json.encode(f"{place.link}/{tag:08X}"))


def _inline(tag: int, vr: str, stored: bytes, place: Place) -> bytes:
    """Bytes in base64 stay so, except pixels, and what may hold UIDs that are to be mapped (PS3.18 §F.2.7)."""
    if vr not in BULK_VRS or not _is_base64(stored):
        raise Malformed(f"{tag:08X} has an InlineBinary that cannot be one")
    if stored == b'""':
        return b'{"vr":"%b"}' % vr.encode()
    if tag in PIXELS or (vr == "UN" and place.map_uid is not None):
        return _linked(tag, vr, place)
    return b'{"vr":"%b","InlineBinary":%b}' % (vr.encode(), stored)


def _is_base64(stored: bytes) -> bool:
    """Whether this is a JSON string of base64, padded, without anything else."""
    try:
        binascii.a2b_base64(stored[1:-1], strict_mode=True)
    except ValueError:
        return False
    return stored[:1] == b'"' and len(stored) % 4 == 2  # strict_mode lets padding behind whole groups pass


def _values(tag: int, vr: str, stored: list[msgspec.Raw], place: Place) -> list[bytes]:
    if vr == "SQ":
        return _items(tag, stored, place)
    if vr == "PN":
        return [person_name(tag, bytes(value)) for value in stored]
    if stored and vr in BULK_VRS:
        raise Malformed(f"{tag:08X} of VR {vr} has a Value")
    values = [scalar(tag, vr, bytes(value)) for value in stored]
    if vr == "UI" and place.map_uid is not None:
        return [mapped(value, place.map_uid) for value in values]
    return character_set(values) if tag == SPECIFIC_CHARACTER_SET and vr == "CS" else values


def _items(tag: int, stored: list[msgspec.Raw], place: Place) -> list[bytes]:
    """Items of a sequence; one without attributes stays (PS3.18 §F.2.5)."""
    if place.depth == MOST_NESTED:
        raise Malformed(f"{tag:08X} is nested deeper than {MOST_NESTED} sequences")
    items = []
    for number, item in enumerate(stored, 1):
        try:
            members = _MEMBERS.decode(item)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Malformed(f"{tag:08X} has an item that is no object") from None
        items.append(finished_data_set(members, place.item(tag, number)).json)
    return items
