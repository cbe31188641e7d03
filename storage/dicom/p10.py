"""Opening a DICOM file: preamble, file meta information, transfer syntax, and what of the header locating needs.

Files without preamble, without file meta or with a wrong group length are opened all the same, as pydicom does with
`force=True`: an archive holds what modalities once wrote.

Source: PS3.10 §7.1 (file meta information), PS3.5 §10 and Annex A (transfer syntaxes), PS3.5 §A.5 (deflated).
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from struct import unpack
from typing import Final

from storage.dicom.elements import walk
from storage.dicom.nesting import PIXEL_TAGS, is_implicit_at
from storage.dicom.vr import EXPLICIT_LONG, EXPLICIT_SHORT, standard_vr
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable

IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"
NATIVE_SYNTAXES: Final = frozenset({IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED, EXPLICIT_BIG_ENDIAN})
ENCAPSULATED_FAMILIES: Final = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.8.")
"""JPEG, JPEG-LS, JPEG 2000, MPEG, HTJ2K, JPEG XL and what is still to come; Deflated Image Frame."""

MAX_INFLATED_BYTES: Final = 2 << 30
MAX_INFLATE_RATIO: Final = 1100
"""DEFLATE cannot do better than 1032:1; a stream that claims more is broken."""
MAX_META_ELEMENTS: Final = 256
MAX_UID_BYTES: Final = 128
"""Twice what PS3.5 §9.1 allows: stores with hashed UIDs exist."""
MAX_TEXT_BYTES: Final = 64
"""Of the short texts that locating reads."""

MetaElement = tuple[str, int, int]
"""(vr, value_start, value_stop) in the file."""


@dataclass(frozen=True, slots=True)
class P10:
    """An opened DICOM file: the data set lies at [start, stop) of `window`.

    `window` is `file_window`, or for a deflated file the inflated data set alone. `transfer_syntax_uid` is what the
    file says; where it says nothing, the native syntax that fits the first element (`is_guessed`).
    """

    window: Window
    file_window: Window
    start: int
    stop: int
    explicit: bool
    little_endian: bool
    transfer_syntax_uid: str
    is_guessed: bool
    is_deflated: bool
    meta: Mapping[int, MetaElement]

    @property
    def media_sop_class_uid(self) -> str:
        """Media Storage SOP Class UID (0002,0002), or empty."""
        return _meta_uid(self.file_window, self.meta, 0x00020002)


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Pixel Data, Float or Double Float Pixel Data; `stop` is -1 if its length is undefined."""

    tag: int
    vr: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """What identifies an instance and tells where its frames are; positions are in the window of the data set.

    Texts are empty and numbers None where the file has no such value, or none that can be used.
    """

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    number_of_frames: int | None
    number_of_frames_text: str
    photometric_interpretation: str
    pixels: PixelElement | None
    extended_offsets: tuple[int, int] | None
    extended_lengths: tuple[int, int] | None
    is_cut: bool

    @property
    def frame_count(self) -> int:
        """NumberOfFrames (0028,0008); 1 where it is absent, zero or not a number; 0 without pixels."""
        if self.pixels is None:
            return 0
        return self.number_of_frames or 1


def is_encapsulated(transfer_syntax_uid: str) -> bool | None:
    """Whether pixel data of this transfer syntax is encapsulated; None for private and unknown ones: ask the data.

    Source: PS3.5 §A.4.
    """
    if transfer_syntax_uid in (RLE, ENCAPSULATED_UNCOMPRESSED) or transfer_syntax_uid.startswith(ENCAPSULATED_FAMILIES):
        return True
    return False if transfer_syntax_uid in NATIVE_SYNTAXES else None


def open_p10(
    window: Window, *, max_inflated_bytes: int = MAX_INFLATED_BYTES, max_inflate_ratio: int = MAX_INFLATE_RATIO
) -> P10:
    """Read the file meta information and find the data set.

    Args:
        window: of the whole file; a deflated one is asked for all of its bytes.

    Raises:
        MissingBytes: the window lacks what is next.
        InstanceUnreadable: broken file meta information, a deflate stream that is broken or too large.

    Source: PS3.10 §7.1.
    """
    meta, start = _read_meta(window, 132 if _has_prefix(window) else 0)
    uid = _meta_uid(window, meta, 0x00020010)
    if uid == DEFLATED:
        inflated = _inflate(window, start, max_inflated_bytes, max_inflate_ratio)
        return P10(inflated, window, 0, inflated.size, True, True, uid, False, True, meta)
    if uid:
        is_explicit = uid != IMPLICIT_LITTLE_ENDIAN
        explicit = not is_implicit_at(window, start, window.size, explicit=is_explicit)
        return P10(window, window, start, window.size, explicit, uid != EXPLICIT_BIG_ENDIAN, uid, False, False, meta)
    explicit = not is_implicit_at(window, start, window.size, explicit=False)
    little_endian = not (explicit and _is_big_endian_at(window, start))
    uid = (EXPLICIT_LITTLE_ENDIAN if little_endian else EXPLICIT_BIG_ENDIAN) if explicit else IMPLICIT_LITTLE_ENDIAN
    return P10(window, window, start, window.size, explicit, little_endian, uid, True, False, meta)


def read_header(p10: P10) -> Header:
    """Read what `Header` holds, up to the first pixel element; its value is not needed.

    Raises:
        MissingBytes: the window lacks what is next.
        InstanceUnreadable: as `walk`.
    """
    found: dict[int, tuple[str, int, int]] = {}
    pixels: PixelElement | None = None
    events = walk(
        p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian, skip_sequences=True
    )
    is_cut = False
    while pixels is None:
        try:
            kind, tag, vr, start, stop = next(events)
        except StopIteration as end:
            is_cut = bool(end.value)
            break
        if kind == 0 and tag in HEADER_TAGS:
            found[tag] = vr, start, stop
        elif kind == 0 and tag in PIXEL_TAGS:
            pixels = PixelElement(tag, vr, start, stop)
    return header_of(p10, found, pixels, is_cut=is_cut)


def header_of(
    p10: P10, found: Mapping[int, tuple[str, int, int]], pixels: PixelElement | None, *, is_cut: bool
) -> Header:
    """The header, from VR and place of the values of `HEADER_TAGS`."""
    values = _Values(p10, found)
    frames_text = values.text(0x00280008)
    return Header(
        transfer_syntax_uid=p10.transfer_syntax_uid,
        sop_class_uid=values.uid(0x00080016),
        sop_instance_uid=values.uid(0x00080018),
        study_uid=values.uid(0x0020000D),
        series_uid=values.uid(0x0020000E),
        rows=values.number(0x00280010),
        columns=values.number(0x00280011),
        samples_per_pixel=values.number(0x00280002),
        bits_allocated=values.number(0x00280100),
        number_of_frames=_frame_number(frames_text),
        number_of_frames_text=frames_text,
        photometric_interpretation=values.text(0x00280004),
        pixels=pixels,
        extended_offsets=values.place(0x7FE00001),
        extended_lengths=values.place(0x7FE00002),
        is_cut=is_cut,
    )


HEADER_TAGS: Final = frozenset(
    {0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011}
    | {0x00280100, 0x7FE00001, 0x7FE00002}
)


class _Values:
    """The few values that locating reads, by tag."""

    __slots__ = ("_found", "_order", "_window")

    def __init__(self, p10: P10, found: Mapping[int, tuple[str, int, int]]) -> None:
        self._window = p10.window
        self._order = "<" if p10.little_endian else ">"
        self._found = found

    def place(self, tag: int) -> tuple[int, int] | None:
        """Where the value is."""
        entry = self._found.get(tag)
        return None if entry is None else entry[1:]

    def uid(self, tag: int) -> str:
        """A UID, or empty."""
        return "" if (place := self.place(tag)) is None else _uid(self._window, *place)

    def text(self, tag: int) -> str:
        """A short text without its padding, or empty."""
        if (place := self.place(tag)) is None or place[1] - place[0] > MAX_TEXT_BYTES:
            return ""
        return bytes(self._window.view(*place)).decode("ascii", "replace").strip(" \0")

    def number(self, tag: int) -> int | None:
        """One unsigned number, of the length that a US or UL has."""
        entry = self._found.get(tag)
        if entry is None or entry[0] not in ("US", "UL") or entry[2] - entry[1] != (2 if entry[0] == "US" else 4):
            return None
        code = "H" if entry[0] == "US" else "I"
        return int(unpack(self._order + code, self._window.view(entry[1], entry[2]))[0])


def _frame_number(text: str) -> int | None:
    """NumberOfFrames as a positive number, or None: real files hold "1A" and "0"."""
    digits = text.removeprefix("+")
    return int(digits) or None if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None


def _has_prefix(window: Window) -> bool:
    """Whether preamble and prefix are there; four letters in the text of a bare data set are neither."""
    if window.size < 132 or bytes(window.view(128, 132)) != b"DICM":
        return False
    if window.size >= 134 and bytes(window.view(132, 134)) == b"\2\0":
        return True
    raw_vr = bytes(window.view(4, 6))
    return raw_vr not in EXPLICIT_SHORT and raw_vr not in EXPLICIT_LONG


def _read_meta(window: Window, start: int) -> tuple[dict[int, MetaElement], int]:
    """The elements of group 0002 at `start`, and where they end.

    The group length (0002,0000) is only believed where the bytes there are no further element of the group:
    writers get it wrong, and a deflated data set may begin with bytes that look like the group.
    """
    meta: dict[int, MetaElement] = {}
    position, declared_stop = start, -1
    while window.size - position >= 8 and len(meta) < MAX_META_ELEMENTS:
        view, base = window.piece_at(position, 12)
        group, element, raw_vr, length = unpack("<HH2sH", view[position - base : position - base + 8])
        has_vr = raw_vr in EXPLICIT_SHORT or raw_vr in EXPLICIT_LONG
        if group != 2 or (position == declared_stop and not has_vr):
            break
        tag, value_start = group << 16 | element, position + 8
        if raw_vr in EXPLICIT_LONG and window.size - position >= 12:
            value_start = position + 12
            (length,) = unpack("<I", view[position - base + 8 : position - base + 12])
        elif not has_vr:
            length = length << 16 | int.from_bytes(raw_vr, "little")
        if length > window.size - value_start:
            raise InstanceUnreadable(f"file meta element {tag:08X} at {position} runs past the end of the file")
        vr = raw_vr.decode("ascii") if has_vr else standard_vr(tag)
        meta[tag] = vr, value_start, value_start + length
        position = value_start + length
        if tag == 0x00020000 and length == 4:
            declared_stop = position + int.from_bytes(window.view(value_start, position), "little")
    return meta, position


def _meta_uid(window: Window, meta: Mapping[int, MetaElement], tag: int) -> str:
    entry = meta.get(tag)
    return "" if entry is None else _uid(window, entry[1], entry[2])


def _uid(window: Window, start: int, stop: int) -> str:
    """A UID without its padding; empty if it is longer than any."""
    if stop - start > MAX_UID_BYTES:
        return ""
    return bytes(window.view(start, stop)).decode("ascii", "replace").strip(" \0")


def _is_big_endian_at(window: Window, start: int) -> bool:
    """Whether the group of the first element reads smaller in big endian order."""
    if window.size - start < 2:
        return False
    first = bytes(window.view(start, start + 2))
    return int.from_bytes(first, "big") < int.from_bytes(first, "little")


def _inflate(window: Window, start: int, max_bytes: int, max_ratio: int) -> Window:
    """The inflated data set of a deflated file, within bounds.

    Source: PS3.5 §A.5 (raw deflate, RFC 1951).
    """
    stored = window.view(start, window.size)
    bound = min(max_bytes, len(stored) * max_ratio)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(stored, max_length=bound + 1)
    except zlib.error as error:
        raise InstanceUnreadable(f"broken deflate stream of {len(stored)} bytes: {error}") from error
    if len(data) > bound:
        raise InstanceUnreadable(f"{len(stored)} deflated bytes become more than {bound}")
    if not inflater.eof:
        raise InstanceUnreadable(f"deflate stream of {len(stored)} bytes ends too early")
    return Window.of(data)
