"""What an element that differs from instance to instance looks like: its text around the few bytes that differ.

A shape is learnt from one or two texts of an element, and finishes others of the same shape without taking them apart.
It never bends a text to fit: what does not fit to the byte is left to `storage.cod.data_set`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from storage.cod.data_set import LINK, NAMED, DependsOnPlace, Place, finished_element
from storage.cod.values import Malformed

_STRING = rb'"[^"\\\x00-\x1f]++"'
_NUMBER = rb"-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?(?:[eE]-?[0-9]{1,2})?"
_NUMBERS = _NUMBER + rb"(?:, ?" + _NUMBER + rb")*+"
# Elements that need no mending, and are certainly JSON: one string without escapes, or numbers no reader will bend.
_FLAT = re.compile(
    rb'\{ ?"vr": ?"(?:(A[EST]|CS|D[AST]|IS|L[OT]|S[HT]|TM|U[CILRT])", ?"Value": ?\[(' + _STRING + rb")"
    rb'|(DS|F[DL]|IS|S[LS]|U[LS])", ?"Value": ?\[(' + _NUMBERS + rb"))\]\}"
)
_A_STRING = re.compile(_STRING)
_ONE_TEXT = re.compile(_STRING + rb"\]\}")
_SOME_NUMBERS = re.compile(_NUMBERS + rb"\]\}")
_STRINGS = re.compile(b"(" + _STRING + b")")
_MARK = b'"~codweb-%d~"'
"""A string that no VR refuses, to see where the string in its place comes out."""
_MOST_LEAVES = 16
_MOST_ENDS = 4
"""Places tried for the end of a link, which may quote anything."""

_WHOLE = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class Flat:
    """One string, or numbers: what most elements are, so whoever fills a pattern does it without another call."""

    stored: bytes
    """What stands before the values."""
    finished: bytes
    values: re.Pattern[bytes]
    """The values and all that is behind them; finished they are the same without spaces between numbers."""
    are_numbers: bool


class Shape(Protocol):
    """Finishes the elements that look like the one it was learnt from."""

    def fill(self, text: bytes, position: int, place: Place) -> tuple[bytes, int] | None:
        """The finished element that begins at a position of a stored text, and where it ends; None if it is another."""
        ...


def is_flat(raw: bytes) -> bool:
    """Whether an element holds one string without escapes, or numbers, and nothing else."""
    return _FLAT.fullmatch(raw) is not None


def learnt_shape(tag: int | None, raw: bytes, other: bytes | None) -> Flat | Shape | None:
    """The shape of an element; None if it has none that helps.

    Args:
        tag: None for one that is not sent; its finished text does not matter then.
        raw: its text in one instance.
        other: its text in another instance, if it differs there.
    """
    link = LINK.match(raw)
    if link is not None:
        return None if tag is None else _Link(link[0], b'{"vr":"%b","BulkDataURI":' % link[1], b'/%08X"}' % tag)
    if tag in NAMED:
        return None
    flat = _FLAT.fullmatch(raw)
    if flat is None:
        return None if tag is None or other is None else _nested(tag, raw, other)
    vr, text, number_vr, _ = flat.groups()
    if text is not None:
        return Flat(raw[: flat.start(2)], b'{"vr":"%b","Value":[' % vr, _ONE_TEXT, are_numbers=False)
    return Flat(raw[: flat.start(4)], b'{"vr":"%b","Value":[' % number_vr, _SOME_NUMBERS, are_numbers=True)


@dataclass(frozen=True, slots=True)
class _Link:
    """Bulk data by a link, whatever the stored one says."""

    stored: bytes
    finished: bytes
    """What stands before the link, stored and finished."""
    end: bytes

    def fill(self, text: bytes, position: int, place: Place) -> tuple[bytes, int] | None:
        if not text.startswith(self.stored, position):
            return None
        for end in _ends(text, b"}}", position):
            try:
                _WHOLE.decode(text[position:end])
            except (ValueError, RecursionError):
                continue
            return b"%b%b%b" % (self.finished, msgspec.json.encode(place.link)[:-1], self.end), end
        return None


@dataclass(frozen=True, slots=True)
class _Nested:
    """Strings at known places of a sequence, or of a person name."""

    stored: tuple[bytes, ...]
    finished: tuple[bytes, ...]
    """What stands around the strings, stored and finished."""

    def fill(self, text: bytes, position: int, place: Place) -> tuple[bytes, int] | None:
        pieces: list[bytes] = []
        for stored, finished in zip(self.stored[:-1], self.finished, strict=False):
            if not text.startswith(stored, position):
                return None
            found = _A_STRING.match(text, position + len(stored))
            if found is None:
                return None
            pieces += finished, found[0]
            position = found.end()
        if not text.startswith(self.stored[-1], position):
            return None
        pieces.append(self.finished[-1])
        return b"".join(pieces), position + len(self.stored[-1])


def _nested(tag: int, raw: bytes, other: bytes) -> _Nested | None:
    """The shape of two texts that differ in strings only, found by putting marks in the place of these.

    Values that are strings without escapes come out as they are, unless they are VRs, keys, base64, or character sets:
    a mark in the place of one of these is refused, or does not come out.
    """
    if b"\\" in raw or b"\\" in other:  # so that a quote is one
        return None
    parts, others = _STRINGS.split(raw), _STRINGS.split(other)
    if len(parts) != len(others):
        return None
    differing = [at for at, (part, another) in enumerate(zip(parts, others, strict=True)) if part != another]
    if any(at % 2 == 0 for at in differing) or not 0 < len(differing) <= _MOST_LEAVES:
        return None
    marks = [_MARK % number for number in range(len(differing))]
    stored, begin = [], 0
    for at in differing:
        stored.append(b"".join(parts[begin:at]))
        begin = at + 1
    stored.append(b"".join(parts[begin:]))
    for at, mark in zip(differing, marks, strict=True):
        parts[at] = mark
    try:
        rest = finished_element(tag, b"".join(parts), _NOWHERE)
    except (Malformed, DependsOnPlace, RecursionError):
        return None
    finished = []
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            return None
        finished.append(before)
    return _Nested(tuple(stored), (*finished, rest))


_NOWHERE = Place(None)


def _ends(text: bytes, wanted: bytes, position: int) -> Iterator[int]:
    for _ in range(_MOST_ENDS):
        position = text.find(wanted, position)
        if position < 0:
            return
        yield position + len(wanted)
        position += 1
