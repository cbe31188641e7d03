"""Metadata in forms that no index stores: another service root, a short mode, no compression.

Made chunk by chunk, so that an instance with 10^5 per-frame items passes through bounded memory.
"""

import zlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator

import zstandard

from storage.series_index.reader import SeriesIndex
from storage.series_index.rerooting import rerooted
from storage.series_index.splice import DEFLATE_LEVEL, ZSTD_LEVEL, Coding, Piece

HASTY_LEVEL = 3
"""Half the time of the usual level for a third more bytes; levels 1 and 2 take no less on metadata."""


def block_chunks(index: SeriesIndex, root: str) -> Iterator[Iterator[bytes]]:
    """The full metadata, block by block, each in chunks, with links of a service root."""
    for number in range(len(index.header.blocks)):
        yield rerooted(index.block_chunks(number), index.header.root, root)


def instance_chunks(index: SeriesIndex, ordinal: int, root: str) -> Iterator[bytes]:
    """The full metadata of one instance in chunks, with links of a service root."""
    return rerooted(index.instance_chunks(ordinal), index.header.root, root)


def array_chunks(indexes: Iterable[SeriesIndex], root: str) -> Iterator[bytes]:
    """One JSON array of the full metadata of some series, in chunks."""
    separator = b"["
    for index in indexes:
        for block in block_chunks(index, root):
            yield separator
            yield from block
            separator = b","
    yield b"]" if separator == b"," else b"[]"


def coded(chunks: Iterable[bytes], coding: Coding, *, is_hasty: bool = False) -> Piece:
    """A piece of one coding; of a compressed one only the compressed bytes are ever held.

    Args:
        is_hasty: compress as fast as possible: for an answer that somebody waits for and that will soon be another.
    """
    crc = length = 0
    out: list[bytes] = []
    zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj() if coding == "zstd" else None
    deflate = (
        zlib.compressobj(HASTY_LEVEL if is_hasty else DEFLATE_LEVEL, zlib.DEFLATED, -15) if coding == "gzip" else None
    )
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        length += len(chunk)
        if zstd is not None:
            chunk = zstd.compress(chunk)
        elif deflate is not None:
            chunk = deflate.compress(chunk)
        out.append(chunk)
    if zstd is not None:
        out.append(zstd.flush())
    elif deflate is not None:
        out.append(deflate.flush(zlib.Z_FULL_FLUSH))
    return Piece(b"".join(out), length, crc)


class VariantCache:
    """Pieces by name; the least recently used are dropped above a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, list[Piece]] = OrderedDict()

    def get(self, name: Hashable) -> list[Piece] | None:
        pieces = self._kept.get(name)
        if pieces is not None:
            self._kept.move_to_end(name)
        return pieces

    def put(self, name: Hashable, pieces: list[Piece]) -> None:
        """Keep pieces; those that would push out most of the others are not kept."""
        size = _size(pieces)
        if name in self._kept or size > self._most_bytes // 4:
            return
        self._kept[name] = pieces
        self._bytes += size
        while self._bytes > self._most_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(pieces: list[Piece]) -> int:
    return sum(len(piece.data) for piece in pieces)
