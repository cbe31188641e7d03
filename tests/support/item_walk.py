"""An independent reader of encapsulated pixel data: item after item, as the standard writes it down.

It shares nothing with `storage/` and asks no library, so that it can be the judge where pydicom cannot. It reads whole,
well-formed files of Explicit VR Little Endian, which every encapsulated transfer syntax is; anything else is a
`NotReadable`.

Source: PS3.10 §7.1 (file), PS3.5 §7.1.2 (explicit VR), §7.5 (sequences), §A.4 (encapsulated pixel data),
PS3.3 §C.7.6.3.1.8 (Extended Offset Table).
"""

from dataclasses import dataclass
from itertools import pairwise
from struct import unpack_from

ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
NUMBER_OF_FRAMES = 0x00280008
EXTENDED_OFFSETS = 0x7FE00001
EXTENDED_LENGTHS = 0x7FE00002
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)


class NotReadable(Exception):
    """The file is not what the standard says an encapsulated image is."""


@dataclass(frozen=True)
class Item:
    """One item of encapsulated pixel data; the positions are those of the file."""

    header: int
    """Of its tag."""
    start: int
    stop: int


@dataclass(frozen=True)
class EncapsulatedPixels:
    """The items of one file, and what its header says of the frames in them."""

    data: bytes
    number_of_frames: int
    extended_table: tuple[tuple[int, ...], tuple[int, ...]] | None
    table: Item
    """The Basic Offset Table, empty or not."""
    fragments: list[Item]
    stop: int
    """Behind the sequence delimiter."""

    def frames(self) -> list[bytes]:
        """The frames: by the Basic Offset Table, the extended one, or the fragments.

        Raises:
            NotReadable: the standard gives no way to tell them apart, or the ways it gives contradict each other.
        """
        if self.extended_table is not None:
            return self._by_extended_table(*self.extended_table)
        if self.table.start < self.table.stop:
            return self._by_table()
        if self.number_of_frames == 1:
            return [self._joined(self.fragments)]
        if self.number_of_frames == len(self.fragments):
            return [self._joined([fragment]) for fragment in self.fragments]
        return self._by_codestreams()

    def _joined(self, fragments: list[Item]) -> bytes:
        return b"".join(self.data[item.start : item.stop] for item in fragments)

    def _by_extended_table(self, offsets: tuple[int, ...], lengths: tuple[int, ...]) -> list[bytes]:
        """One fragment a frame; a length may leave out the fragment's padding byte."""
        base = self.fragments[0].header
        by_offset = {item.header - base: item for item in self.fragments}
        if len(offsets) != self.number_of_frames or list(by_offset) != list(offsets):
            raise NotReadable("the Extended Offset Table does not name the fragments")
        for offset, length in zip(offsets, lengths, strict=True):
            if by_offset[offset].stop - by_offset[offset].start - length not in (0, 1):
                raise NotReadable("an extended length is not that of its fragment")
        return [self._joined([item]) for item in self.fragments]

    def _by_table(self) -> list[bytes]:
        """Offsets count from the first byte of the first fragment's item tag."""
        base = self.fragments[0].header
        count = (self.table.stop - self.table.start) // 4
        offsets = unpack_from(f"<{count}I", self.data, self.table.start)
        if count != self.number_of_frames or not set(offsets) <= {item.header - base for item in self.fragments}:
            raise NotReadable("the Basic Offset Table does not name fragments of so many frames")
        return [
            self._joined([item for item in self.fragments if first <= item.header - base < after])
            for first, after in pairwise((*offsets, self.stop))
        ]

    def _by_codestreams(self) -> list[bytes]:
        """A JPEG, JPEG-LS or JPEG 2000 codestream ends with FFD9, perhaps with a byte of padding behind it."""
        frames: list[list[Item]] = [[]]
        for item in self.fragments:
            frames[-1].append(item)
            if self.data[item.start : item.stop].removesuffix(b"\0").endswith(b"\xff\xd9"):
                frames.append([])
        if frames.pop() or len(frames) != self.number_of_frames:
            raise NotReadable("the codestream ends do not make so many frames")
        return [self._joined(frame) for frame in frames]


def encapsulated_pixels(data: bytes) -> EncapsulatedPixels:
    """Walk a whole file to its pixel data and through it.

    Raises:
        NotReadable: it is no file of that kind, or the walk does not come out.
    """
    if data[128:132] != b"DICM":
        raise NotReadable("no DICM prefix")
    values: dict[int, tuple[int, int]] = {}
    position = 132
    while position < len(data):
        tag, start, length = _element_header(data, position)
        if tag == PIXEL_DATA:
            if length != UNDEFINED:
                raise NotReadable("the pixel data is native")
            return _pixels(data, start, values)
        position = _after_sequence(data, start) if length == UNDEFINED else start + length
        values[tag] = start, position
    raise NotReadable("no pixel data")


def _pixels(data: bytes, start: int, values: dict[int, tuple[int, int]]) -> EncapsulatedPixels:
    def whole(tag: int) -> bytes:
        return data[slice(*values.get(tag, (0, 0)))]

    def longs(tag: int) -> tuple[int, ...]:
        value = whole(tag)
        return unpack_from(f"<{len(value) // 8}Q", value)

    items = []
    position = start
    while True:
        tag, length = _item_header(data, position)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or position + 8 + length > len(data):
            raise NotReadable(f"no item at {position}")
        items.append(Item(position, position + 8, position + 8 + length))
        position += 8 + length
    if len(items) < 2:
        raise NotReadable("no fragment")
    return EncapsulatedPixels(
        data=data,
        number_of_frames=int(whole(NUMBER_OF_FRAMES).strip(b" \0") or 1),
        extended_table=(longs(EXTENDED_OFFSETS), longs(EXTENDED_LENGTHS)) if EXTENDED_OFFSETS in values else None,
        table=items[0],
        fragments=items[1:],
        stop=position + 8,
    )


def _element_header(data: bytes, position: int) -> tuple[int, int, int]:
    """Tag, start of the value, and length of an explicit VR element (PS3.5 Tables 7.1-1 and 7.1-2)."""
    group, element, vr, short_length = unpack_from("<HH2sH", data, position)
    tag = group << 16 | element
    if vr in LONG_VRS:
        (length,) = unpack_from("<I", data, position + 8)
        return tag, position + 12, length
    if vr not in SHORT_VRS:
        raise NotReadable(f"no VR at {position + 4}")
    return tag, position + 8, short_length


def _item_header(data: bytes, position: int) -> tuple[int, int]:
    """Tag and length of an item or a delimiter, which have no VR (PS3.5 §7.5)."""
    if position + 8 > len(data):
        raise NotReadable("the file ends within a sequence")
    group, element, length = unpack_from("<HHI", data, position)
    return group << 16 | element, length


def _after_sequence(data: bytes, position: int) -> int:
    """Behind the delimiter of a sequence of undefined length whose first item is at `position`."""
    while True:
        tag, length = _item_header(data, position)
        position += 8
        if tag == SEQUENCE_END:
            return position
        if tag != ITEM:
            raise NotReadable(f"no item at {position - 8}")
        position = _after_item(data, position) if length == UNDEFINED else position + length


def _after_item(data: bytes, position: int) -> int:
    """Behind the delimiter of an item of undefined length."""
    while True:
        if _item_header(data, position)[0] == ITEM_END:
            return position + 8
        _, start, length = _element_header(data, position)
        position = _after_sequence(data, start) if length == UNDEFINED else start + length
