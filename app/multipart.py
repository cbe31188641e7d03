"""`multipart/related` bodies: the parts of instances, frames and bulk data (PS3.18 §8.6.1.2; RFC 2387, RFC 2046).

Spelled for the parsers that exist. cornerstone looks for a header line that begins with `Content-Type: ` in exactly
these letters, takes the first line that begins with `--` for the boundary, and reads Implicit VR Little Endian into a
part that names no transfer syntax; dicomweb-client (JavaScript) searches the first 1000 bytes only; dcm4che's wadors
wants no blanks around `boundary=`. So: no preamble, CRLF everywhere, few header fields, plain boundaries.
"""

import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, field

from storage.errors import CorruptSeries

Buffer = bytes | memoryview

_CRLF = b"\r\n"

BOUNDARY_BYTES = 20
"""Random bytes in a boundary: 160 bits, so that no pixel data holds it, whoever made them."""


def new_boundary() -> str:
    """A boundary of letters, digits and one hyphen, 47 of the 70 characters allowed (RFC 2046 §5.1.1)."""
    return f"codweb-{secrets.token_hex(BOUNDARY_BYTES)}"


@dataclass(frozen=True, slots=True)
class PartHead:
    """What the header of a part says.

    `content_type` names the transfer syntax; `location` is the absolute URL of the part's own resource; `length` is
    the number of bytes of its body, None where nobody knows beforehand.
    """

    content_type: str
    location: str | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Multipart:
    """One `multipart/related` answer. `type` is the media type of the parts, without parameters."""

    type: str
    transfer_syntax: str | None = None
    """The transfer syntax of all parts, for answers in which it is one."""
    boundary: str = field(default_factory=new_boundary)

    @property
    def content_type(self) -> str:
        """The value of the answer's Content-Type."""
        value = f'multipart/related; type="{self.type}"; boundary={self.boundary}'
        return _one_line(value if self.transfer_syntax is None else f"{value}; transfer-syntax={self.transfer_syntax}")

    def join_small(self, parts: Iterable[tuple[PartHead, Buffer]]) -> bytes:
        """The whole body at once, for small parts that are in memory anyway: one write is faster than many."""
        return b"".join(self.pieces(parts))

    def pieces(self, parts: Iterable[tuple[PartHead, Buffer]]) -> list[Buffer]:
        """The whole body in pieces, for large parts that are in memory anyway: nothing is copied."""
        pieces: list[Buffer] = []
        for head, body in parts:
            _check_length(head, _size(body))
            pieces += (self._opening(head, is_first=not pieces), body)
        pieces.append(self._closing(is_empty=not pieces))
        return pieces

    async def stream(self, parts: AsyncIterable[tuple[PartHead, AsyncIterable[Buffer]]]) -> AsyncIterator[Buffer]:
        """The body, piece by piece, as the parts arrive.

        Raises:
            CorruptSeries: a part has more or fewer bytes than its head says. The body is broken off without its end,
                so that no client takes it for whole; what is too much is not sent.
        """
        is_first = True
        async for head, body in parts:
            pieces = aiter(body)
            piece = await anext(pieces, None)  # what cannot be read at all fails before anything is out
            yield self._opening(head, is_first=is_first)
            is_first = False
            sent = 0
            while piece is not None:
                sent += _size(piece)
                if head.length is not None and sent > head.length:
                    _check_length(head, sent)
                yield piece
                piece = await anext(pieces, None)
            _check_length(head, sent)
        yield self._closing(is_empty=is_first)

    def content_length(self, heads: Iterable[PartHead]) -> int | None:
        """The length of the whole body in bytes; None if one part's length is unknown."""
        total = 0
        is_empty = True
        for head in heads:
            if head.length is None:
                return None
            total += len(self._opening(head, is_first=is_empty)) + head.length
            is_empty = False
        return total + len(self._closing(is_empty=is_empty))

    def _opening(self, head: PartHead, *, is_first: bool) -> bytes:
        lines = [f"--{self.boundary}", _one_line(f"Content-Type: {head.content_type}")]
        if head.location is not None:
            lines.append(_one_line(f"Content-Location: {head.location}"))
        if head.length is not None:
            lines.append(f"Content-Length: {head.length}")
        return (b"" if is_first else _CRLF) + "\r\n".join([*lines, "", ""]).encode("ascii")

    def _closing(self, *, is_empty: bool) -> bytes:
        return (b"" if is_empty else _CRLF) + f"--{self.boundary}--".encode("ascii") + _CRLF


def _size(piece: Buffer) -> int:
    return piece.nbytes if isinstance(piece, memoryview) else len(piece)


def _check_length(head: PartHead, size: int) -> None:
    if head.length is not None and size != head.length:
        raise CorruptSeries(f"a part of {head.length} bytes came with {size}")


def _one_line(text: str) -> str:
    """The text of a header line; refuses what would end it or leave ASCII: a mistake of the caller, not of a client."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a multipart header may hold printable ASCII only")
    return text
