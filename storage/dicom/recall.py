"""Members of the DICOM JSON Model that were encoded before: slices of one series share nearly all of their elements.

A top-level member is a function of the bytes of its element and of what governs it: the encoding of the data set and,
of the elements before it, Specific Character Set and the private creators. So a memory is a tree: governing elements
lead from one context to the next, and each context knows members by the bytes of their elements. Members that depend
on anything else (Pixel Representation, a position in the file) are never remembered.

The elements of a known run are compared with the ones that followed last time, without being parsed; a run that was
met twice is compared as a whole.
"""

from collections.abc import Set
from struct import Struct
from typing import Final

from storage.dicom.attributes import AttributeEncoder
from storage.dicom.elements import Kind
from storage.dicom.nesting import PIXEL_TAGS, UNDEFINED_LENGTH, Event, is_implicit_at
from storage.dicom.p10 import P10
from storage.dicom.survey import PIXEL_REPRESENTATION, SPECIFIC_CHARACTER_SET
from storage.dicom.vr import EXPLICIT_LONG, EXPLICIT_SHORT, is_private_creator

MAX_ELEMENT_BYTES: Final = 4096
"""A longer element is not worth the comparison: what is long differs from slice to slice."""

MAX_REACH_BYTES: Final = 64 << 10
"""How far into a data set elements are recalled; it is copied once."""

MAX_MEMBERS: Final = 1 << 14
"""Of a memory, in all contexts; then it begins anew, which costs no more than one instance does."""

MAX_MEMORY_BYTES: Final = 16 << 20
"""Of elements and members together; about twice as much with what Python adds to each."""

MIN_RUN: Final = 2
"""Fewer known elements are compared one by one."""

_NEVER: Final = PIXEL_TAGS | {PIXEL_REPRESENTATION}
"""Others have to see these: who looks for pixels, and who decides about the VR of the numbers behind them."""
_NO_DATA: Final = b""

Place = tuple[str, int, int]
"""(vr, value_start, value_stop)."""


class _Link:
    """Something that a known element may follow.

    `following` is the one that did last time, `run` all of those that did up to the first that was not known, and
    `run_length` how many these were.
    """

    __slots__ = ("following", "run", "run_length")

    def __init__(self) -> None:
        self.following: _Known | None = None
        self.run: _Run | None = None
        self.run_length = 0


class _Known(_Link):
    """An element, whole, and its member; `items` are those that begin in it, `place` is from its beginning."""

    __slots__ = ("element", "items", "length", "member", "place", "tag")

    def __init__(self, element: bytes, tag: int, member: bytes, items: int, place: Place | None) -> None:
        super().__init__()
        self.element = element
        self.length = len(element)
        self.tag = tag
        self.member = member
        self.items = items
        self.place = place
        """Of the value of a watched element."""


class _Run:
    """Known elements one behind the other; `places` are from the beginning of the first."""

    __slots__ = ("elements", "items", "last", "length", "members", "places")

    def __init__(self, run: list[_Known]) -> None:
        self.elements = b"".join([known.element for known in run])
        self.length = len(self.elements)
        self.members = {known.tag: known.member for known in run}
        self.items = sum([known.items for known in run])
        self.last = run[-1]
        self.places: list[tuple[int, Place]] = []
        offset = 0
        for known in run:
            if known.place is not None:
                self.places.append((known.tag, _moved(known.place, offset)))
            offset += known.length


def _moved(place: Place, distance: int) -> Place:
    return place[0], place[1] + distance, place[2] + distance


class _Context(_Link):
    """What is known under the same governing elements. `open`: by header, the last element of undefined length."""

    __slots__ = ("elements", "inner", "open")

    def __init__(self) -> None:
        super().__init__()
        self.elements: dict[bytes, _Known] = {}
        self.open: dict[bytes, _Known] = {}
        self.inner: dict[bytes, _Context] = {}


class MemberMemory:
    """What one process remembers, under one `JsonOptions` with neither `map_uid` nor `extra` nor `only`.

    Threads may share it: each link and entry that is set holds for its context, whoever set it.

    Args:
        watched: top-level tags whose values a `Recall` finds, wherever they come from.
    """

    def __init__(self, watched: Set[int] = frozenset(), *, max_bytes: int = MAX_MEMORY_BYTES) -> None:
        self.watched = watched | PIXEL_TAGS
        self._max_bytes = max_bytes
        self._roots: dict[tuple[bool, bool], _Context] = {}
        self._members = 0
        self._bytes = 0

    def root(self, *, implicit: bool, little_endian: bool) -> _Context:
        """Where a data set of this encoding begins."""
        return self._roots.setdefault((implicit, little_endian), _Context())

    def run(self, run: list[_Known]) -> _Run:
        """These elements as one; it takes as much as they do."""
        made = _Run(run)
        self.count(2 * made.length)
        return made

    def count(self, size: int) -> None:
        """Make room for something of so many bytes; when there is none, everything is forgotten.

        Who holds a context keeps it, and what it learns now ends with it.
        """
        self._members += 1
        self._bytes += size
        if self._members > MAX_MEMBERS or self._bytes > self._max_bytes:
            self._roots = {}
            self._members = self._bytes = 0


class Recall:
    """One pass over one data set: jumps over the elements that are known, and learns those that are not.

    Args:
        members: of the top level; recalled ones are put there.
        found: where VR and place of the values of watched elements are put, up to the first of pixels.
    """

    def __init__(
        self,
        memory: MemberMemory,
        p10: P10,
        encoder: AttributeEncoder,
        members: dict[int, bytes],
        found: dict[int, Place],
    ) -> None:
        self._memory = memory
        self._encoder = encoder
        self._members = members
        self._found = found
        self._base = p10.start
        self._data = _beginning(p10)
        implicit = is_implicit_at(p10.window, p10.start, p10.stop, explicit=p10.explicit)
        order = "<" if p10.little_endian else ">"
        self._is_implicit = implicit
        self._short_header = Struct(order + ("4xI" if implicit else "4x2sH")).unpack_from
        self._long_length = Struct(order + "8xI").unpack_from
        self._context = memory.root(implicit=implicit, little_endian=p10.little_endian)
        self._before: _Link = self._context
        self._begin = 0
        self._told: tuple[int, bytes] | None = None
        self._place: Place | None = None
        self._items = self._unkept = 0
        self._is_doubtful = self._is_past_pixels = False

    def jump(self, position: int) -> int:
        """Where the top level goes on with an element that is not known: at `position`, or behind known ones."""
        offset = position - self._base
        if self._told is not None:
            self._learn(*self._told, self._begin, offset)
            self._told = None
        self._is_doubtful = False
        offset = self._follow(offset)
        self._begin = offset
        self._items, self._unkept = self._encoder.items, self._encoder.unkept
        return self._base + offset

    def doubt(self) -> None:
        """What the element at hand means depends on more than its bytes."""
        self._is_doubtful = True

    def tell(self, event: Event, member: bytes) -> None:
        """The element at hand, which ends with this event, has become this member."""
        kind, tag, vr, start, stop = event
        self._told = tag, member
        self._place = None
        if tag in self._memory.watched and kind == Kind.ELEMENT and not self._is_past_pixels:
            self._place = vr, start, stop
            self._found[tag] = vr, start, stop
            if tag in PIXEL_TAGS:
                self._is_past_pixels = True
                self._data = _NO_DATA  # what stands behind pixels is left out if it cannot be read to its end

    def _follow(self, start: int) -> int:
        """Take the known elements from here on; the offset behind them."""
        data, members, before, offset, items = self._data, self._members, self._before, start, 0
        taken: list[_Known] = []
        while True:
            run = before.run
            if run is not None and data.startswith(run.elements, offset):
                members.update(run.members)
                for tag, place in run.places:
                    self._found[tag] = _moved(place, self._base + offset)
                items += run.items
                offset += run.length
                before = run.last
                taken.clear()
            known = before.following
            if known is None or not data.startswith(known.element, offset):
                known = self._look_up(offset)
                if known is None:
                    break
                before.following = known
            members[known.tag] = known.member
            if known.place is not None:
                self._found[known.tag] = _moved(known.place, self._base + offset)
            items += known.items
            offset += known.length
            taken.append(known)
            before = known
        if len(taken) > MIN_RUN:
            first = taken[0]  # not what stands before it: that may be new in each data set
            first.run = self._memory.run(taken[1:]) if len(taken) == first.run_length else None
            first.run_length = len(taken)
        if offset > start:
            self._encoder.pass_over(items)
        self._before = before
        return offset

    def _look_up(self, offset: int) -> _Known | None:
        """The known element at `offset` of the data, found by its header and bytes."""
        data, context = self._data, self._context
        if offset + 12 > len(data):
            return None
        header_bytes = 8
        if self._is_implicit:
            (length,) = self._short_header(data, offset)
        else:
            raw_vr, length = self._short_header(data, offset)
            if raw_vr not in EXPLICIT_SHORT:
                if raw_vr not in EXPLICIT_LONG:
                    return None
                (length,) = self._long_length(data, offset)
                header_bytes = 12
        if length == UNDEFINED_LENGTH:
            known = context.open.get(data[offset : offset + header_bytes])
            return known if known is not None and data.startswith(known.element, offset) else None
        if length > MAX_ELEMENT_BYTES:
            return None
        return context.elements.get(data[offset : offset + header_bytes + length])

    def _learn(self, tag: int, member: bytes, start: int, stop: int) -> None:
        is_governing = tag == SPECIFIC_CHARACTER_SET or is_private_creator(tag)
        is_seen = stop <= len(self._data) and stop - start <= MAX_ELEMENT_BYTES
        if self._is_doubtful or (is_governing and not is_seen):
            self._data = _NO_DATA  # nothing further is certain
        elif is_governing:
            self._enter(self._data[start:stop])
        elif is_seen and self._encoder.unkept == self._unkept and tag not in _NEVER:
            self._remember(tag, member, self._data[start:stop])

    def _enter(self, element: bytes) -> None:
        """Go on in the context to which a governing element leads."""
        inner = self._context.inner.get(element)
        if inner is None:
            self._memory.count(len(element))
            inner = self._context.inner[element] = _Context()
        self._context = self._before = inner

    def _remember(self, tag: int, member: bytes, element: bytes) -> None:
        self._memory.count(len(element) + len(member))
        place = None if self._place is None else _moved(self._place, -self._base - self._begin)
        known = _Known(element, tag, member, self._encoder.items - self._items, place)
        self._before.following = known
        self._before = known
        header_bytes = 8 if self._is_implicit or element[4:6] in EXPLICIT_SHORT else 12
        if element[header_bytes - 4 : header_bytes] == b"\xff\xff\xff\xff":
            self._context.open[element[:header_bytes]] = known
        else:
            self._context.elements[element] = known


def _beginning(p10: P10) -> bytes:
    """The first bytes of a data set, as many as its window has in one piece, up to `MAX_REACH_BYTES`."""
    if p10.start == p10.stop:
        return _NO_DATA
    piece, base = p10.window.piece_at(p10.start, 1)
    return bytes(piece[p10.start - base : min(p10.stop - base, p10.start - base + MAX_REACH_BYTES)])
