"""Compressed pieces that may follow one another: a series or study answer is spliced, never compressed again.

zstd: whole frames in a row decode as one body (RFC 8878 §3.1). gzip: clients stop after the first *member*, so pieces
are raw deflate ended by a full flush (RFC 1951; byte-aligned, no back reference) inside one member, whose CRC-32 is
combined from those of the pieces.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import zstandard

Coding = Literal["zstd", "gzip", "identity"]

ZSTD_LEVEL = 3
DEFLATE_LEVEL = 6
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_CRC_POLYNOMIAL = 0xEDB88320


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes in one coding, and what the run decodes to."""

    data: bytes | memoryview
    """The coded bytes: zstd frames, flushed raw deflate, or the plain text, by the coding in use."""
    raw_length: int
    raw_crc32: int
    """CRC-32 (gzip's) of the decoded bytes."""


def deflate_piece(raw: bytes) -> bytes:
    """Raw deflate of `raw`, ended by a full flush so that another piece may follow."""
    compressor = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -15)
    return compressor.compress(raw) + compressor.flush(zlib.Z_FULL_FLUSH)


@lru_cache(maxsize=8)
def literal(raw: bytes, coding: Coding) -> Piece:
    """A bracket or comma between blocks, as a piece."""
    if coding == "zstd":
        data = zstandard.ZstdCompressor(level=1).compress(raw)
    elif coding == "gzip":
        data = deflate_piece(raw)
    else:
        data = raw
    return Piece(data, len(raw), zlib.crc32(raw))


def array(groups: Sequence[Sequence[Piece]], coding: Coding) -> list[bytes | memoryview]:
    """One JSON array from groups of pieces, each group already comma-separated inside; the parts of one body.

    Empty groups (a series without instances) take no comma.
    """
    pieces: list[Piece] = [literal(b"[", coding)]
    first = True
    for group in groups:
        if not group:
            continue
        if not first:
            pieces.append(literal(b",", coding))
        pieces.extend(group)
        first = False
    pieces.append(literal(b"]", coding))
    return finished(pieces, coding)


def joined(pieces: Iterable[Piece], coding: Coding) -> list[Piece]:
    """The pieces with a comma between each two."""
    result: list[Piece] = []
    for piece in pieces:
        if result:
            result.append(literal(b",", coding))
        result.append(piece)
    return result


def finished(pieces: Sequence[Piece], coding: Coding) -> list[bytes | memoryview]:
    """The body that the pieces make: as they are, or wrapped into one gzip member."""
    if coding != "gzip":
        return [piece.data for piece in pieces]
    crc = 0
    length = 0
    for piece in pieces:
        crc = crc32_combine(crc, piece.raw_crc32, piece.raw_length)
        length += piece.raw_length
    end_of_stream = b"\x03\x00"  # a final, empty block of fixed codes
    trailer = crc.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little")
    return [_GZIP_HEADER, *(piece.data for piece in pieces), end_of_stream + trailer]


def crc32_combine(crc_a: int, crc_b: int, length_b: int) -> int:
    """CRC-32 of A followed by B, from the CRCs of both and the length of B in bytes.

    CRCs are polynomials over GF(2): appending `length_b` bytes multiplies A's by x^(8·length_b).
    """
    return _multiply(_x_to_the(length_b), crc_a) ^ crc_b


def _multiply(a: int, b: int) -> int:
    """a·b modulo the CRC polynomial, bits reflected as in the CRC itself."""
    product = 0
    bit = 1 << 31
    while bit:
        if a & bit:
            product ^= b
        bit >>= 1
        b = (b >> 1) ^ _CRC_POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=4096)
def _x_to_the(length_bytes: int) -> int:
    """x^(8·length_bytes) modulo the CRC polynomial."""
    result = 1 << 31  # x^0
    for exponent in range(length_bytes.bit_length()):
        if length_bytes >> exponent & 1:
            result = _multiply(_power(exponent), result)
    return result


@lru_cache(maxsize=64)
def _power(exponent: int) -> int:
    """x^(8·2^exponent) modulo the CRC polynomial."""
    if exponent == 0:
        return 1 << 23
    half = _power(exponent - 1)
    return _multiply(half, half)
