"""Frames as encapsulated pixel data, one fragment each, with the offset table that can list them.

Source: PS3.5 §A.4 (encapsulation, Basic Offset Table), PS3.3 §C.7.6.3.1.8 (Extended Offset Table).
"""

from collections.abc import Sequence
from struct import pack
from typing import Final

from storage.dicom.fragments import ITEM, SEQUENCE_END
from storage.dicom.nesting import PIXEL_DATA
from storage.errors import InstanceUnreadable
from storage.pixels.explicit import explicit_element, explicit_header

EXTENDED_OFFSETS: Final = 0x7FE00001
EXTENDED_LENGTHS: Final = 0x7FE00002

MAX_BASIC_OFFSET: Final = (1 << 32) - 1
"""What an entry of the Basic Offset Table can say."""
MAX_FRAGMENT_BYTES: Final = (1 << 32) - 2
_MAX_TABLE_ENTRIES: Final = MAX_FRAGMENT_BYTES // 8
_UNDEFINED: Final = 0xFFFFFFFF


def encapsulate(frames: Sequence[bytes], *, max_basic_offset: int = MAX_BASIC_OFFSET) -> bytes:
    """The elements of group 7FE0: Pixel Data, and before it the Extended Offset Table if the basic one is too narrow.

    The extended table gives lengths without the byte that pads a fragment.

    Raises:
        InstanceUnreadable: a frame too long for a fragment, or more frames than any table lists.
    """
    offsets: list[int] = []
    position = 0
    for frame in frames:
        offsets.append(position)
        position += 8 + len(frame) + len(frame) % 2
    if len(frames) > _MAX_TABLE_ENTRIES or max(map(len, frames), default=0) > MAX_FRAGMENT_BYTES:
        raise InstanceUnreadable(f"{len(frames)} frames of {position} bytes do not fit into items")
    parts: list[bytes] = []
    table = b""
    if max(offsets, default=0) <= max_basic_offset:
        table = pack(f"<{len(offsets)}I", *offsets)
    else:
        lengths = [len(frame) for frame in frames]
        parts.append(explicit_element(EXTENDED_OFFSETS, "OV", pack(f"<{len(offsets)}Q", *offsets)))
        parts.append(explicit_element(EXTENDED_LENGTHS, "OV", pack(f"<{len(lengths)}Q", *lengths)))
    parts += [explicit_header(PIXEL_DATA, "OB", _UNDEFINED), ITEM, pack("<I", len(table)), table]
    for frame in frames:
        padding = b"\0" * (len(frame) % 2)
        parts += [ITEM, pack("<I", len(frame) + len(padding)), frame, padding]
    return b"".join([*parts, SEQUENCE_END, pack("<I", 0)])
