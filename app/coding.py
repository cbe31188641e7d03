"""Content coding and conditional requests: how an answer is compressed, and whether it need be sent at all (RFC 9110)."""

import re
import zlib
from functools import lru_cache

import zstandard

from storage.series_index.splice import Coding

_MEMBER = re.compile(r"\s*([A-Za-z0-9*-]+)\s*(?:;\s*q\s*=\s*([0-9.]*)\s*)?", re.ASCII)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')
SMALLEST_COMPRESSED_BYTES = 1024
"""Below this, headers and latency weigh more than the bytes saved."""


@lru_cache(maxsize=256)
def choose_coding(accept_encoding: str) -> Coding:
    """The coding of an answer: by weight; zstd only for who names it (old clients say `*` and cannot), else gzip.

    Source: RFC 9110 §12.5.3.
    """
    weights: dict[str, float] = {}
    for member in accept_encoding.split(",")[:32]:
        match = _MEMBER.fullmatch(member)
        if match is not None:
            try:
                weights[match[1].lower()] = float(match[2]) if match[2] else 1.0
            except ValueError:
                continue
    rest = weights.get("*", 0.0)
    gzip = weights.get("gzip", weights.get("x-gzip", rest))
    zstd, identity = weights.get("zstd", 0.0), weights.get("identity", 0.0)
    if zstd > 0 and zstd >= max(gzip, identity):
        return "zstd"
    return "gzip" if gzip > 0 and gzip >= identity else "identity"


def compress(body: bytes, coding: Coding) -> bytes:
    """A small answer in one go, at the fastest level."""
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(body)
    if coding == "gzip":
        compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
        return compressor.compress(body) + compressor.flush()
    return body


def is_unmodified(if_none_match: str | None, etag: str) -> bool:
    """Whether the client holds this representation already (weak comparison, RFC 9110 §8.8.3.2, §13.1.2)."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    wanted = etag.removeprefix("W/")
    return any(match[1] == wanted for match in _ETAG.finditer(if_none_match[:8192]))
