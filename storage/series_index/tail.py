"""The header of an index file that lies elsewhere, from its last bytes: what a search needs of a series, and no more."""

import zlib

import msgspec

from storage.ranges import ByteRange
from storage.series_index import layout
from storage.series_index.layout import FOOTER, HEADER_CRC, Header
from storage.series_index.reader import UnusableIndex

TAIL_BYTES = 32 << 10
"""Holds the header of a series of 20,000 instances; a longer one is read with one more request."""


def tail_range(size: int) -> ByteRange:
    """The part of a file of `size` bytes to read first."""
    return ByteRange(max(0, size - TAIL_BYTES), size)


LARGEST_HEADER_BYTES = 256 << 20
"""A million instances in blocks of 64 take a hundredth of it."""


def header_range(tail: bytes | memoryview, size: int) -> ByteRange:
    """Where the header lies, its checksum in front of it, as the last bytes of the file say. Raises UnusableIndex."""
    if len(tail) < FOOTER.size:
        raise UnusableIndex(f"{size} bytes are no series index")
    start, length, _, magic = FOOTER.unpack_from(tail, len(tail) - FOOTER.size)
    if magic != layout.FOOTER_MAGIC or start + length + FOOTER.size != size or start < HEADER_CRC.size:
        raise UnusableIndex("the end of the file is not that of a series index")
    if length > LARGEST_HEADER_BYTES:
        raise UnusableIndex(f"a header of {length} bytes")
    return ByteRange(start - HEADER_CRC.size, start + length)


def checked_header(data: bytes | memoryview) -> Header:
    """The header out of the bytes of its range. Raises UnusableIndex: damaged, or of another format."""
    encoded = memoryview(data)[HEADER_CRC.size :]
    if zlib.crc32(encoded) != HEADER_CRC.unpack_from(data)[0]:
        raise UnusableIndex("the header does not match its checksum")
    try:
        header = layout.decode_header(encoded)
    except msgspec.DecodeError as error:
        raise UnusableIndex(str(error)) from error
    if header.format != layout.FORMAT:
        raise UnusableIndex(f"format {header.format}, not {layout.FORMAT}")
    return header
