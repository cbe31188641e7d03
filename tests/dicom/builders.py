"""DICOM bytes built by hand from PS3.5, so that they are no product of the code under test; and a slow reader."""

from collections.abc import Callable, Sequence
from struct import pack
from typing import TypeVar

from storage.dicom.window import MissingBytes, Window

Result = TypeVar("Result")

UNDEFINED = 0xFFFFFFFF
LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
ITEM_END = pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = pack("<HHI", 0xFFFE, 0xE0DD, 0)


def element(tag: int, vr: str, value: bytes = b"", *, length: int | None = None, order: str = "<") -> bytes:
    """An explicit VR element; `length` lies about the value."""
    size = len(value) if length is None else length
    head = pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii")
    return head + (pack(order + "HI", 0, size) if vr in LONG_VRS else pack(order + "H", size)) + value


def implicit(tag: int, value: bytes = b"", *, length: int | None = None) -> bytes:
    """An implicit VR little endian element."""
    return pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes = b"", *, length: int | None = None) -> bytes:
    """A sequence item or a fragment; of undefined length it gets its delimiter."""
    size = len(content) if length is None else length
    return pack("<HHI", 0xFFFE, 0xE000, size) + content + (ITEM_END if size == UNDEFINED else b"")


def sequence(tag: int, items: Sequence[bytes], *, undefined: bool = False) -> bytes:
    """An explicit SQ element."""
    content = b"".join(items)
    if undefined:
        return element(tag, "SQ", content, length=UNDEFINED) + SEQUENCE_END
    return element(tag, "SQ", content)


def text(value: str, pad: bytes = b" ") -> bytes:
    """A text value of even length."""
    encoded = value.encode("ascii")
    return encoded + pad * (len(encoded) % 2)


def p10(dataset: bytes, transfer_syntax_uid: str = EXPLICIT_LE) -> bytes:
    """A DICOM file around an encoded data set."""
    meta = element(0x00020010, "UI", text(transfer_syntax_uid, b"\0"))
    return bytes(128) + b"DICM" + element(0x00020000, "UL", pack("<I", len(meta))) + meta + dataset


def image_attributes(
    *,
    frames: str | None = None,
    rows: int = 4,
    columns: int = 4,
    samples: int = 1,
    bits: int = 8,
    photometric: str = "MONOCHROME2",
    order: str = "<",
) -> bytes:
    """An explicit data set up to, and without, its pixel data."""
    parts = [
        element(0x00080016, "UI", text("1.2.840.10008.5.1.4.1.1.7", b"\0"), order=order),
        element(0x00080018, "UI", text("2.25.1", b"\0"), order=order),
        element(0x0020000D, "UI", text("2.25.2", b"\0"), order=order),
        element(0x0020000E, "UI", text("2.25.3", b"\0"), order=order),
        element(0x00280002, "US", pack(order + "H", samples), order=order),
        element(0x00280004, "CS", text(photometric), order=order),
        b"" if frames is None else element(0x00280008, "IS", text(frames), order=order),
        element(0x00280010, "US", pack(order + "H", rows), order=order),
        element(0x00280011, "US", pack(order + "H", columns), order=order),
        element(0x00280100, "US", pack(order + "H", bits), order=order),
    ]
    return b"".join(parts)


def native_image(
    value: bytes, *, frames: str | None = None, rows: int = 4, columns: int = 4, samples: int = 1, bits: int = 8
) -> bytes:
    """A file with native little endian pixel data."""
    attributes = image_attributes(frames=frames, rows=rows, columns=columns, samples=samples, bits=bits)
    return p10(attributes + element(0x7FE00010, "OB", value))


def encapsulated_image(
    fragments: Sequence[bytes],
    *,
    frames: str | None,
    table: Sequence[int] = (),
    transfer_syntax_uid: str = RLE,
    before: bytes = b"",
    end: bytes = SEQUENCE_END,
) -> bytes:
    """A file with encapsulated pixel data; `table` is the Basic Offset Table, `before` stands before the pixels."""
    value = item(pack(f"<{len(table)}I", *table)) + b"".join(item(fragment) for fragment in fragments)
    pixels = element(0x7FE00010, "OB", value, length=UNDEFINED) + end
    return p10(image_attributes(frames=frames) + before + pixels, transfer_syntax_uid)


def first_fragment(data: bytes, table_bytes: int = 0) -> int:
    """Position of the item header of the first fragment in a file of `encapsulated_image`."""
    return data.index(pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED)) + 12 + 8 + table_bytes


def read_slowly(data: bytes, parse: Callable[[Window], Result], *, step: int = 64) -> tuple[Result, list[range]]:
    """Run a parser the way a caller on the network does, and the ranges that it asked for."""
    window = Window(len(data))
    asked: list[range] = []
    for _ in range(2 + len(data) // 4):
        try:
            return parse(window), asked
        except MissingBytes as missing:
            asked.append(range(missing.start, missing.stop))
            stop = min(len(data), max(missing.stop, missing.start + step))
            window.add(missing.start, data[missing.start : stop])
    raise AssertionError("the parser asks without end")
