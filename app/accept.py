"""What a client accepts, as a value: the Accept header and the `accept` query parameter.

Read with patience, because clients differ: weights such as `q=.2`, quoted and unquoted values, any letter case and
spacing, a quoted star, doubled parameters (the first counts), and `*` alone for `*/*`. A member that makes no sense is
ignored, as the standard asks; a list of which nothing remains says nothing, like an absent header.
Sources: PS3.18 §8.3.3.1 (`accept`), §8.7.4–§8.7.5 (acceptable media types), RFC 9110 §12.4.2 and §12.5.1.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from app.errors import RequestError

MAX_CHARS = 8 * 1024
"""Longest Accept text that is read; the longest seen in the wild, OHIF's microscopy list, has 600 characters."""

MAX_RANGES = 100
"""Most members of one list; browsers send up to ten."""

# Pieces between separators, quoted strings kept whole. An open quote runs to the end, so matching never backtracks.
_QUOTED = r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)'
_MEMBER = re.compile(rf'(?:[^,"]|{_QUOTED})+', re.DOTALL)
_PIECE = re.compile(rf'(?:[^;"]|{_QUOTED})+', re.DOTALL)
_WHOLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_WEIGHT = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:[a-z0-9!#$&^_.+-]+|\*)|\*/\*", re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One acceptable media type, or a range of them, with its weight. Types and parameter names are in lower case."""

    type: str
    q: float = 1.0
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str | None:
        """The value of a parameter, without its quotes; None when absent or empty."""
        return next((value for key, value in self.parameters if key == name and value), None)

    @property
    def part_type(self) -> str:
        """The media type of the parts of a `multipart/related`; any, where the client does not say."""
        return normal_media_type(self.parameter("type") or "*/*") or "*/*"

    @property
    def transfer_syntax(self) -> str | None:
        """A transfer syntax UID, `*` for "as stored", or None where none is named."""
        return self.parameter("transfer-syntax")


EVERYTHING = MediaRange("*/*")


@dataclass(frozen=True, slots=True)
class Accept:
    """The ranges of the header and of the query parameter, each in the client's order."""

    header: tuple[MediaRange, ...] = ()
    query: tuple[MediaRange, ...] = ()

    @property
    def is_absent(self) -> bool:
        """Whether the client said nothing; to the letter that is 406 (PS3.18 §8.7.5)."""
        return not (self.query or self.header)

    @property
    def tiers(self) -> tuple[tuple[MediaRange, ...], ...]:
        """The lists in the order in which they are tried: the query beats the header (PS3.18 §8.7.8.1).

        OHIF asks for thumbnails with `?accept=image/jpeg` and a header that says otherwise.
        """
        return tuple(ranges for ranges in (self.query, self.header) if ranges) or ((EVERYTHING,),)


def parse_accept(headers: Iterable[str], query: Iterable[str] = ()) -> Accept:
    """Read all Accept header lines and all `accept` query values (percent-decoded) of a request.

    Raises:
        RequestError: one of the two is longer than `MAX_CHARS`, or has more than `MAX_RANGES` members.
    """
    return _parse_both(", ".join(headers), ", ".join(query))


@lru_cache(maxsize=256)
def _parse_both(header: str, query: str) -> Accept:
    """Viewers send the same few texts thousands of times; `MAX_CHARS` and `MAX_RANGES` bound an entry."""
    return Accept(header=parse_ranges(header), query=parse_ranges(query))


def parse_ranges(text: str) -> tuple[MediaRange, ...]:
    """The readable members of an Accept list, in order.

    Raises:
        RequestError: the text is longer than `MAX_CHARS`, or has more than `MAX_RANGES` members.
    """
    if len(text) > MAX_CHARS:
        raise RequestError(f"Accept is longer than {MAX_CHARS} characters")
    members = _MEMBER.findall(text)
    if len(members) > MAX_RANGES:
        raise RequestError(f"Accept has more than {MAX_RANGES} members")
    ranges = (_parse_member(member) for member in members)
    return tuple(asked for asked in ranges if asked is not None)


def normal_media_type(text: str) -> str | None:
    """A media type or range in lower case; None if it is neither.

    A blank inside stands for a `+` that lost its percent-encoding: `application/dicom json` (PS3.18 §8.3.3.1 has
    clients write `%2B`; not all do).
    """
    name = "/".join(part.strip() for part in text.lower().split("/"))
    if name == "*":
        return "*/*"
    name = "+".join(name.split())
    return name if _MEDIA_TYPE.fullmatch(name) else None


def _parse_member(member: str) -> MediaRange | None:
    first, *rest = _PIECE.findall(member) or [""]
    media_type = normal_media_type(first)
    if media_type is None:
        return None
    parameters: dict[str, str] = {}
    for piece in rest:
        name, _, raw = piece.partition("=")
        value = _unquote(raw.strip())
        if value is None:
            return None
        name = name.strip().lower()
        if name == "type" and ";" in value:  # Orthanc's spelling: type="image/jp2; transfer-syntax=1.2.840…"
            value, _, inner = value.partition(";")
            for key, inner_value in _plain_parameters(inner):
                parameters.setdefault(key, inner_value)
        if name and value:
            parameters.setdefault(name, value.strip())
    weight = parameters.pop("q", "1")
    if not _WEIGHT.fullmatch(weight):
        return None
    return MediaRange(media_type, min(float(weight), 1.0), tuple(parameters.items()))


def _plain_parameters(text: str) -> Iterable[tuple[str, str]]:
    for piece in text.split(";"):
        name, _, value = piece.partition("=")
        if name.strip() and value.strip():
            yield name.strip().lower(), value.strip().strip('"')


def _unquote(value: str) -> str | None:
    """The text of a token or quoted string; None for a quote that does not close."""
    if not value.startswith('"'):
        return value
    whole = _WHOLE_QUOTED.fullmatch(value)
    return None if whole is None else _ESCAPE.sub(r"\1", whole[1])
