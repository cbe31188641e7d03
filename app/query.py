"""From the query of a search URL to a `Query` (PS3.18 §8.3.4, §10.6.1).

What is malformed is 400, what is merely unknown is ignored: an attribute that DICOM does not define is a mistake to be
told (`PatientNmae=`), a word such as `includedefaults` belongs to somebody's client. What is understood and not done is
said in `Warning: 299`. Messages name the key, never its value: that is often a patient's name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from app.attributes import is_attribute_like, is_private, parse_path, vr_of
from app.dates import MatchedRange, combine
from app.errors import RequestError
from app.match_keys import TEMPORAL_VRS, read_match, read_range, significant, single_value
from storage.catalogue.query import Condition, DateTimeInterval, Level, Query, Tag, TagPath, Universal

MAX_PAIRS = 20_000
"""Most `key=value` pairs of a URL: wsidicom repeats a key for each series of a study."""

MAX_OFFSET = 2**53
"""Beyond any archive, within what every database counts."""

TIMEZONE_OFFSET_FROM_UTC = 0x00080201

COMBINED_PAIRS: tuple[tuple[Tag, Tag], ...] = (
    (0x00080020, 0x00080030),  # Study
    (0x00080021, 0x00080031),  # Series
    (0x00080022, 0x00080032),  # Acquisition
    (0x00080023, 0x00080033),  # Content
    (0x00080012, 0x00080013),  # Instance Creation
    (0x00100030, 0x00100032),  # Patient's Birth
    (0x00400244, 0x00400245),  # Performed Procedure Step Start
)
"""Date and time attributes whose ranges are matched as one interval (PS3.18 §8.3.4.1.1)."""

_PARAMETERS = frozenset(
    {
        "accept", "charset", "emptyvaluematching", "fuzzymatching", "includefield", "limit", "multiplevaluematching",
        "offset", "orderby",
    }
)  # fmt: skip
_NAMED_IN_WARNING = 5
_UINT = re.compile(r"[0-9]+", re.ASCII)

_NO_EMPTY_VALUE_MATCHING = (
    "The emptyvaluematching parameter is not supported. Empty Value Matching has not been performed."
)
_NO_MULTIPLE_VALUE_MATCHING = (
    "The multiplevaluematching parameter is not supported. Multiple Value Matching has not been performed."
)
_NO_TIMEZONE = (
    "TimezoneOffsetFromUTC and offsets in date-times are not applied: values are compared as they are stored."
)


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What one search may ask for."""

    default_limit: int = 1000
    """Results where the client names no limit."""
    max_limit: int = 5000
    """Results at most; asking for more is answered with this many and a warning."""
    max_keys: int = 100
    """Different attributes to match."""
    max_include: int = 1000
    """Attributes named in `includefield`."""


@dataclass(frozen=True, slots=True)
class ParsedSearch:
    """A search, and the sentences for `Warning: 299` (printable ASCII without quotes)."""

    query: Query
    warnings: tuple[str, ...] = ()


def decode_query(raw: bytes) -> list[tuple[str, str]]:
    """The pairs of a raw query string, in order. Empty pairs (`?&includefield=`, Weasis) are dropped.

    Raises:
        RequestError: more than `MAX_PAIRS` pairs, or a text that is not UTF-8.

    Source: the form encoding of the URL standard: `&` separates, `+` is a blank; `;` is an ordinary character.
    """
    if raw.count(b"&") >= MAX_PAIRS:
        raise RequestError(f"the query has more than {MAX_PAIRS} parts")
    pairs = []
    for pair in raw.split(b"&"):
        key, _, value = pair.replace(b"+", b" ").partition(b"=")
        if key:
            try:
                pairs.append((unquote_to_bytes(key).decode(), unquote_to_bytes(value).decode()))
            except UnicodeDecodeError:
                raise RequestError("the query is not UTF-8") from None
    return pairs


def parse_search(
    level: Level,
    study_uid: str | None,
    series_uid: str | None,
    items: Iterable[tuple[str, str]],
    limits: SearchLimits = SearchLimits(),
) -> ParsedSearch:
    """Read a search.

    Args:
        study_uid, series_uid: from the path, already checked.
        items: the decoded query in its order, as `decode_query` gives it.

    Raises:
        RequestError: an attribute that DICOM does not define, a value that does not suit its VR, a parameter that is
            not what it should be, or more of something than `limits` allow.

    Source: PS3.18 §8.3.4, §10.6.1.2; PS3.4 §C.2.2.2.
    """
    warnings: list[str] = []
    keys, parameters = _sort_out(items, limits, warnings)
    _check_charset(parameters)
    has_empty_matching = _flag(parameters, "emptyvaluematching", warnings, _NO_EMPTY_VALUE_MATCHING)
    _flag(parameters, "multiplevaluematching", warnings, _NO_MULTIPLE_VALUE_MATCHING)
    if has_empty_matching:
        keys = {path: [value for value in values if value != '""'] for path, values in keys.items()}
    include, include_all = _include(parameters, limits, warnings)
    conditions, intervals = _conditions(keys, warnings)
    query = Query(
        level=level,
        study_uid=study_uid,
        series_uid=series_uid,
        conditions=conditions,
        intervals=intervals,
        include=include,
        include_all=include_all,
        fuzzy=_flag(parameters, "fuzzymatching"),
        limit=_limit(parameters, limits, warnings),
        offset=min(_uint(parameters, "offset", 0), MAX_OFFSET),
    )
    return ParsedSearch(query, tuple(dict.fromkeys(warnings)))


def _sort_out(
    items: Iterable[tuple[str, str]], limits: SearchLimits, warnings: list[str]
) -> tuple[dict[TagPath, list[str]], dict[str, list[str]]]:
    """Tell match keys from parameters; unknown ones are refused, or left out."""
    keys: dict[TagPath, list[str]] = {}
    parameters: dict[str, list[str]] = {}
    private: dict[str, None] = {}
    for key, value in items:
        name = key.strip()
        if name.lower() in _PARAMETERS:
            parameters.setdefault(name.lower(), []).append(value)
            continue
        path = parse_path(name)
        if path is not None:
            keys.setdefault(path, []).append(value)
        elif is_attribute_like(name):
            if not is_private(name):
                raise RequestError(f"{name[:128]} is no attribute of the DICOM dictionary, nor a path to one")
            private[name] = None
    if len(keys) > limits.max_keys:
        raise RequestError(f"the query matches {len(keys)} attributes, at most {limits.max_keys} are taken")
    if private:
        warnings.append(f"Private attributes are not matched: {_some(list(private))}.")
    return keys, parameters


def _conditions(
    keys: Mapping[TagPath, Sequence[str]], warnings: list[str]
) -> tuple[tuple[Condition, ...], tuple[DateTimeInterval, ...]]:
    """One condition for each key, but one interval for a date range and a time range that belong together."""
    ranges: dict[TagPath, MatchedRange] = {}
    for path, values in keys.items():
        vr = vr_of(path)
        meant = significant(values)
        if vr in TEMPORAL_VRS and meant:
            ranges[path] = read_range(path, vr, single_value(path, meant))
    intervals = []
    combined: set[TagPath] = set()
    for date, time in COMBINED_PAIRS:
        days, hours = ranges.get((date,)), ranges.get((time,))
        if days is not None and hours is not None and days.is_range and hours.is_range:
            intervals.append(DateTimeInterval(date, time, *combine(days.interval, hours.interval)))
            combined |= {(date,), (time,)}
    has_zone = any(read.has_zone for read in ranges.values())
    conditions = []
    for path, values in keys.items():
        if path == (TIMEZONE_OFFSET_FROM_UTC,):  # the zone of the request's times, not a filter (PS3.18 §8.3.4.1.1)
            has_zone = has_zone or bool(significant(values))
            conditions.append(Condition(path, vr_of(path), Universal()))
        elif path not in combined:
            match = ranges[path].interval if path in ranges else read_match(path, vr_of(path), values)
            conditions.append(Condition(path, vr_of(path), match))
    if has_zone and ranges:
        warnings.append(_NO_TIMEZONE)
    return tuple(conditions), tuple(intervals)


def _include(
    parameters: Mapping[str, Sequence[str]], limits: SearchLimits, warnings: list[str]
) -> tuple[tuple[TagPath, ...], bool]:
    """`includefield`: comma lists and repeats of keywords, tags and paths, or `all`, which beats the others."""
    names = [
        name for value in parameters.get("includefield", ()) for part in value.split(",") if (name := part.strip())
    ]
    if len(names) > limits.max_include:
        raise RequestError(f"includefield names {len(names)} attributes, at most {limits.max_include} are taken")
    if any(name.lower() == "all" for name in names):
        return (), True
    paths = {name: parse_path(name) for name in names}
    unknown = [name for name, path in paths.items() if path is None]
    if unknown:
        warnings.append(f"includefield: attributes unknown here are left out: {_some(unknown)}.")
    return tuple(dict.fromkeys(path for path in paths.values() if path is not None)), False


def _limit(parameters: Mapping[str, Sequence[str]], limits: SearchLimits, warnings: list[str]) -> int:
    limit = _uint(parameters, "limit", limits.default_limit)
    if limit > limits.max_limit:
        warnings.append(f"The limit is cut to {limits.max_limit} results; ask for more with offset.")
    return min(limit, limits.max_limit)


def _uint(parameters: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    value = _once(parameters, name)
    if value is None:
        return default
    if not _UINT.fullmatch(value):
        raise RequestError(f"{name} is no unsigned integer")
    digits = value.lstrip("0") or "0"
    return int(digits) if len(digits) <= 20 else 10**20


def _flag(
    parameters: Mapping[str, Sequence[str]], name: str, warnings: list[str] | None = None, warning: str = ""
) -> bool:
    """A parameter that is `true` or `false`; `warning` is due where it is true."""
    value = (_once(parameters, name) or "false").lower()
    if value not in ("true", "false"):
        raise RequestError(f"{name} is neither true nor false")
    if value == "true" and warnings is not None:
        warnings.append(warning)
    return value == "true"


def _once(parameters: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = {value.strip() for value in parameters.get(name, ())}
    if len(values) > 1:
        raise RequestError(f"{name} is given more than once")
    return values.pop() if values else None


def _check_charset(parameters: Mapping[str, Sequence[str]]) -> None:
    """Answers are UTF-8 (PS3.18 §8.3.3.2, §8.8)."""
    charset = _once(parameters, "charset")
    if charset is not None and charset.lower() not in ("utf-8", "utf8", "*"):
        raise RequestError("charset: answers are available in utf-8 only")


def _some(names: Sequence[str]) -> str:
    """A few names for a warning, which becomes a header: only those that are harmless there."""
    shown = [name for name in names if is_attribute_like(name) and len(name) <= 64][:_NAMED_IN_WARNING]
    hidden = len(names) - len(shown)
    return ", ".join([*shown, f"{hidden} more"] if shown and hidden else shown or [f"{hidden} names"])
