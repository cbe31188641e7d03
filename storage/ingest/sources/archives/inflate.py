"""One DEFLATE stream of an archive, inflated to exactly the size that was said, or refused."""

import zlib
from collections.abc import Iterator

from storage.errors import InstanceUnreadable
from storage.ingest.sources.archives.tar import Read
from storage.ingest.sources.open_source import CHUNK_BYTES

PACKED_CHUNK_BYTES = 64 << 10


def inflated(read: Read, start: int, stop: int, *, size: int, crc32: int | None) -> Iterator[bytes]:
    """The bytes of the stream at [start, stop), in chunks of at most a mebibyte.

    However large the stream would become, never more than `size` bytes are made.

    Raises:
        InstanceUnreadable: it is no DEFLATE stream that ends there and holds `size` bytes of this crc32.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    position, made, checksum = start, 0, 0
    packed = b""
    while not inflater.eof:
        if not packed and position < stop:
            upto = min(stop, position + PACKED_CHUNK_BYTES)
            packed, position = read(position, upto), upto
        at_end = not packed and position >= stop
        try:
            chunk = inflater.decompress(packed, CHUNK_BYTES)
        except zlib.error as error:
            raise InstanceUnreadable("the archive is damaged here: no DEFLATE stream") from error
        packed = inflater.unconsumed_tail
        made += len(chunk)
        if made > size:
            raise InstanceUnreadable(f"the archive says {size} bytes, and it inflates to more")
        if not chunk and at_end and not inflater.eof:
            raise InstanceUnreadable("the archive is damaged here: its DEFLATE stream is cut")
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if made != size:
        raise InstanceUnreadable(f"the archive says {size} bytes, and it inflates to {made}")
    if inflater.unused_data or packed or position < stop:
        raise InstanceUnreadable("the archive is damaged here: bytes behind the DEFLATE stream")
    if crc32 is not None and checksum != crc32:
        raise InstanceUnreadable("the archive is damaged here: the CRC-32 of its directory is another one")


def inflated_head(packed: bytes, length: int) -> bytes:
    """At most the first `length` bytes of a stream that begins so; empty if it is none."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, length)
    except zlib.error:
        return b""
