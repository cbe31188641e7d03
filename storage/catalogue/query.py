"""A search as a value: what a QIDO request asks, without HTTP (PS3.18 §8.3.4, §10.6; matching: PS3.4 §C.2.2.2).

`app/query.py` makes a `Query` from a URL and refuses what is malformed; catalogues and the archive answer it.
A tag is an int (0x00100010). A path is the tags from the data set down to the attribute: `(0x00400275, 0x00401001)`.
"""

from dataclasses import dataclass
from enum import StrEnum

Tag = int
TagPath = tuple[Tag, ...]


class Level(StrEnum):
    """The level of DICOM's information model whose members a search lists."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class Universal:
    """Matches everything, also an absent attribute; the attribute is returned (PS3.4 §C.2.2.2.3)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A value or a wildcard pattern, for text VRs (PS3.4 §C.2.2.2.1, .4).

    `pattern` holds `*` and `?` only where the VR allows wildcards; `is_wildcard` says whether they mean anything.
    VR decides the comparison: PN folds case and accents, AE CS LO SH … compare trimmed, case-sensitive.
    """

    pattern: str
    is_wildcard: bool


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Any of several values: a UID list (PS3.4 §C.2.2.2.2), or several modalities joined by comma or backslash."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric value, compared as a number (DS IS US SS UL SL FL FD SV UV): `1` equals `1.0` and `01`."""

    value: float


@dataclass(frozen=True, slots=True)
class Interval:
    """An inclusive range of dates, times or date-times (PS3.4 §C.2.2.2.5), as text that sorts.

    Dates `YYYYMMDD`, times `HHMMSS.ffffff`, date-times `YYYYMMDDHHMMSS.ffffff`; partial precision is already expanded
    (`10` as a time is 100000.000000 to 105959.999999); None is an open end.
    """

    low: str | None
    high: str | None


Match = Universal | Text | AnyOf | Number | Interval


@dataclass(frozen=True, slots=True)
class Condition:
    """One match key: an attribute, its VR from the dictionary, and what its value must be."""

    path: TagPath
    vr: str
    match: Match


@dataclass(frozen=True, slots=True)
class DateTimeInterval:
    """A date range and a time range on one pair of attributes, matched as one interval (PS3.18 §8.3.4.1.1).

    `low`, `high` are `YYYYMMDDHHMMSS.ffffff`; None is an open end. The two attributes get no `Condition` of their own.
    """

    date: Tag
    time: Tag
    low: str | None
    high: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """One search request."""

    level: Level
    study_uid: str | None = None
    """From the path; also filled from a single StudyInstanceUID key is NOT done: path only."""
    series_uid: str | None = None
    conditions: tuple[Condition, ...] = ()
    intervals: tuple[DateTimeInterval, ...] = ()
    include: tuple[TagPath, ...] = ()
    include_all: bool = False
    fuzzy: bool = False
    limit: int = 1000
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a search: finished DICOM JSON objects in a stable total order."""

    rows: list[bytes]
    """Each row is one JSON object with sorted keys; links begin with `storage.links.ROOT` and are filled in by the caller."""
    remaining: int
    """How many further matches lie behind this page."""
    warnings: tuple[str, ...] = ()
    """Sentences for `Warning: 299`: unknown fields, limits applied."""
