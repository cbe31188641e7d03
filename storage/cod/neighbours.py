"""Neighbouring instances of a series, finished by what differs between them.

The published writer stores the attributes of each instance of a series in the same order, and most of the text is the
same from one to the next. Taking each apart finds that out element by element, 150 times an instance. A pattern keeps
what was alike instead: long runs of text that must come again byte for byte, and between them slots, whose elements
differ. Text that begins with the same bytes has the same structure, so only the slots are taken apart, most of them by the
shape they had when the pattern was learnt (`storage.cod.shapes`). A text that does not fit is finished as if it stood
alone, and a new pattern is learnt from it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from storage.cod.attributes import SOP_CLASS_UID, TRANSFER_SYNTAX_UID, Normalised, lacks_required, normalise
from storage.cod.data_set import (
    NOTHING,
    PIXELS,
    Layout,
    Place,
    finished_element,
    is_remembered,
    layout_of,
    only_text,
)
from storage.cod.shapes import Flat, Shape, is_flat, learnt_shape
from storage.cod.values import Malformed
from storage.levels import SPECIFIC_CHARACTER_SET

MOST_LESSONS = 32
"""Texts that a pattern is learnt from, less those that fitted it: instances that need more are not alike."""

_GAP = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*"([0-9A-Fa-f]{8})"[ \t\r\n]*:[ \t\r\n]*')
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")
_RUN_HEAD_BYTES = 64
_MOST_ENDS = 4
"""Places tried for the end of an element that is not flat."""

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WHOLE = msgspec.json.Decoder(msgspec.Raw)


class Neighbours:
    """Normalises the instances of one series, one after the other."""

    def __init__(self) -> None:
        self._pattern: _Pattern | None = None
        self._keys: tuple[str, ...] = ()
        self._raws: list[bytes] = []
        self._differing: dict[int, bytes] = {}
        """Positions of members that were seen to differ between instances of these keys, each with another text of it."""
        self._lessons = 0

    def normalise(self, stored: bytes, *, bulkdata_base: str, extra: Mapping[int, bytes] = NOTHING) -> Normalised:
        """As `storage.cod.attributes.normalise`, whose answer it is to the byte. Raises as that does."""
        if self._pattern is not None:
            filled = self._pattern.fill(stored, bulkdata_base, extra)
            if filled is not None:
                self._lessons = max(0, self._lessons - 1)
                return filled
        normalised = normalise(stored, bulkdata_base=bulkdata_base, extra=extra)
        if self._lessons < MOST_LESSONS:
            self._lessons += 1
            self._learn(stored, tuple(extra))
        return normalised

    def _learn(self, stored: bytes, extra: tuple[int, ...]) -> None:
        try:
            members = _MEMBERS.decode(stored)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # no strict JSON: it was mended, and its neighbours may not need that
        keys, raws = tuple(members), list(map(bytes, members.values()))
        if keys == self._keys:
            for number, (raw, other) in enumerate(zip(raws, self._raws, strict=True)):
                if raw != other:
                    self._differing[number] = other
            self._pattern = _pattern(stored, keys, raws, self._differing, extra)
        else:  # what differs is not known yet, at least the UID does
            self._differing = {}
            self._pattern = None
        self._keys, self._raws = keys, raws


_Match = Callable[[bytes, int], "re.Match[bytes] | None"]
_Slot = tuple[bytes, bytes, _Match | None, bytes, bool, Shape | None, int | None]
"""The run before it. Of a flat one: that run with what stands before the values, what matches these, what stands before
them when finished, and whether they are numbers. The shape of another one, None where that says nothing. The tag; None
for an element that is not sent."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """The stored text as constant runs around slots, and the finished text likewise."""

    runs: tuple[bytes, ...]
    """One before each slot, and one behind the last."""
    slots: tuple[_Slot, ...]
    extra: tuple[int, ...]
    """Tags of the finished elements that are added: slots of the finished text alone."""
    pieces: tuple[bytes, ...]
    """Finished text around the slots that are sent, in the order of tags; one more than `sent`."""
    sent: tuple[int, ...]
    """Which slot, or (counted on) which extra element, follows each piece."""
    layout: Layout
    kept: dict[int, bytes]
    """Kept elements that are constant."""
    kept_slots: tuple[tuple[int, int], ...]
    """Tags of the others, and which slot or extra element they are."""
    syntax: int | str | None
    """Transfer Syntax UID, or the slot that holds it."""
    lacks: tuple[int, ...] | None
    """Outcome of `lacks_required`; None where the SOP class is in a slot."""

    def fill(self, stored: bytes, bulkdata_base: str, extra: Mapping[int, bytes]) -> Normalised | None:
        """An instance of this pattern; None if it is none, or if something is wrong with it."""
        if tuple(extra) != self.extra:
            return None
        try:
            if not stored.isascii():
                stored.decode()
            values = self._values(stored, Place(bulkdata_base))
        except (Malformed, ValueError, RecursionError):  # msgspec's and Unicode's errors are ValueErrors
            return None
        if values is None:
            return None
        values.extend(extra.values())
        pieces = [b""] * (2 * len(self.sent) + 1)
        pieces[::2] = self.pieces
        pieces[1::2] = [values[slot] for slot in self.sent]
        kept = self.kept.copy()
        for tag, slot in self.kept_slots:
            kept[tag] = values[slot]
        return Normalised(
            json=b"".join(pieces),
            transfer_syntax_uid=only_text(values[self.syntax]) if isinstance(self.syntax, int) else self.syntax,
            kept=kept,
            lacks=self.lacks if self.lacks is not None else self._lacking(kept),
        )

    def _lacking(self, kept: Mapping[int, bytes]) -> tuple[int, ...]:
        return lacks_required(self.layout.present, only_text(kept.get(SOP_CLASS_UID)))

    def _values(self, stored: bytes, place: Place) -> list[bytes] | None:
        """The finished elements of the slots; None if the text between them is another."""
        values: list[bytes] = []
        position = 0
        for run, lead, match, head, are_numbers, shape, tag in self.slots:
            if match is not None and stored.startswith(lead, position):
                flat = match(stored, position + len(lead))
                if flat is not None:
                    values.append(head + (flat[0].replace(b" ", b"") if are_numbers else flat[0]))
                    position = flat.end()
                    continue
            if not stored.startswith(run, position):
                return None
            position += len(run)
            if shape is not None:
                shaped = shape.fill(stored, position, place)
                if shaped is not None:
                    value, position = shaped
                    values.append(value)
                    continue
            raw = self._element(stored, position, len(values) + 1)
            if raw is None:
                return None
            values.append(raw if tag is None else finished_element(tag, raw, place))
            position += len(raw)
        return values if stored[position:] == self.runs[-1] else None

    def _element(self, stored: bytes, position: int, following: int) -> bytes | None:
        """The element that begins here and stands before a run.

        An object's text never begins with another whole object, so whatever decodes as one is the element.
        """
        run = self.runs[following]
        if following == len(self.runs) - 1:
            raw = stored[position : len(stored) - len(run)]
            _WHOLE.decode(raw)
            return raw
        for end in _occurrences(stored, run[:_RUN_HEAD_BYTES], position):
            raw = stored[position:end]
            try:
                _WHOLE.decode(raw)
            except (ValueError, RecursionError):
                continue
            return raw
        return None


def _occurrences(text: bytes, wanted: bytes, position: int) -> Iterator[int]:
    for _ in range(_MOST_ENDS):
        position = text.find(wanted, position)
        if position < 0:
            return
        yield position
        position += 1


def _pattern(
    stored: bytes, keys: tuple[str, ...], raws: list[bytes], differing: Mapping[int, bytes], extra: tuple[int, ...]
) -> _Pattern | None:
    """The pattern of a text; None for one whose members cannot be found again one after the other."""
    spans = _spans(stored, keys, raws)
    if spans is None:
        return None
    layout = layout_of(keys, extra)
    slots = [at for at, raw in enumerate(raws) if at in differing or not _is_constant(layout, at, raw)]
    runs, position = [], 0
    for at in slots:
        runs.append(stored[position : spans[at][0]])
        position = spans[at][1]
    runs.append(stored[position:])
    slot_of = {at: slot for slot, at in enumerate(slots)}
    slot_of.update((len(keys) + number, len(slots) + number) for number in range(len(extra)))
    constant = {
        at: finished_element(tag, raws[at], _NOWHERE)
        for at, tag in enumerate(layout.tags)
        if at not in slot_of and tag is not None
    }
    pieces, sent, piece = [], [], b""
    for prefix, at in zip(layout.prefixes, layout.sent, strict=True):
        piece += prefix
        if at in slot_of:
            pieces.append(piece)
            sent.append(slot_of[at])
            piece = b""
        else:
            piece += constant[at]
    pieces.append(piece + (b"}" if layout.sent else b"{}"))
    kept = {tag: constant[at] for tag, at in layout.kept if at not in slot_of}
    kept_slots = tuple((tag, slot_of[at]) for tag, at in layout.kept if at in slot_of)
    is_sop_class_in_slot = any(tag == SOP_CLASS_UID for tag, _ in kept_slots)
    syntax_at = keys.index(TRANSFER_SYNTAX_UID) if TRANSFER_SYNTAX_UID in keys else None
    return _Pattern(
        runs=tuple(runs),
        slots=tuple(
            _slot(run, layout.tags[at], raws[at], differing.get(at)) for run, at in zip(runs, slots, strict=False)
        ),
        extra=extra,
        pieces=tuple(pieces),
        sent=tuple(sent),
        layout=layout,
        kept=kept,
        kept_slots=kept_slots,
        syntax=None if syntax_at is None else slot_of.get(syntax_at, only_text(raws[syntax_at])),
        lacks=None if is_sop_class_in_slot else lacks_required(layout.present, only_text(kept.get(SOP_CLASS_UID))),
    )


def _slot(run: bytes, tag: int | None, raw: bytes, other: bytes | None) -> _Slot:
    shape = learnt_shape(tag, raw, other)
    if isinstance(shape, Flat):
        return run, run + shape.stored, shape.values.match, shape.finished, shape.are_numbers, None, tag
    return run, b"", None, b"", False, shape, tag


_NOWHERE = Place(None)


def _is_constant(layout: Layout, at: int, raw: bytes) -> bool:
    """Whether the finished form of a member depends on its tag and text alone; one that is not sent has none."""
    tag = layout.tags[at]
    if tag == SPECIFIC_CHARACTER_SET:
        return is_flat(raw)
    return tag is None or (tag not in PIXELS and is_remembered(raw))


def _spans(stored: bytes, keys: tuple[str, ...], raws: list[bytes]) -> list[tuple[int, int]] | None:
    """Where each member's value lies; None if the text is not exactly these members, once each."""
    spans, position = [], 0
    for key, raw in zip(keys, raws, strict=True):
        gap = _GAP.match(stored, position)
        if gap is None or gap[1].decode() != key or not stored.startswith(raw, gap.end()):
            return None
        position = gap.end() + len(raw)
        spans.append((gap.end(), position))
    return spans if spans and _END.fullmatch(stored, position) else None
