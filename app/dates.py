"""Dates, times and ranges of them in match keys (PS3.4 §C.2.2.2.5; DA, TM and DT: PS3.5 §6.2).

A single value is a range too: all that its precision covers. `10` as a time is 100000.000000 to 105959.999999.
Legacy spellings `YYYY.MM.DD` and `HH:MM:SS` (ACR-NEMA, PS3.5 §6.2) are read. A range whose ends are swapped is kept:
it matches nothing.
"""

import re
from calendar import monthrange
from dataclasses import dataclass

from storage.catalogue.query import Interval

DAY_START = "000000.000000"
DAY_END = "235959.999999"

_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})", re.ASCII)
_TIME = re.compile(r"([0-9]{2})(?:(:?)([0-9]{2})(?:\2([0-9]{2})(?:\.([0-9]{1,6}))?)?)?", re.ASCII)
_DATE_TIME = re.compile(
    r"([0-9]{4})([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?([0-9]{2})?(?:\.([0-9]{1,6}))?", re.ASCII
)
_ZONE = re.compile(r"[+-](?:0[0-9]|1[0-4])[0-5][0-9]\Z", re.ASCII)

MAX_CHARS = 64
"""Longest date, time or range that is read; the longest legal one, two DT with zones, has 53 characters."""


@dataclass(frozen=True, slots=True)
class MatchedRange:
    """The interval that a match key covers. `is_range` tells `a-b`, `a-` and `-b` from a single value."""

    interval: Interval
    is_range: bool
    has_zone: bool = False
    """A DT carried an offset from UTC; the interval is in that zone's own time."""


def parse_date_range(text: str) -> MatchedRange:
    """A DA match key. Raises ValueError, without the text, for anything that is no date or range of dates."""
    low, high, is_range = _ends(text)
    return MatchedRange(Interval(low and _date(low), high and _date(high)), is_range)


def parse_time_range(text: str) -> MatchedRange:
    """A TM match key. Raises ValueError, without the text, for anything that is no time or range of times."""
    low, high, is_range = _ends(text)
    return MatchedRange(Interval(low and _time(low)[0], high and _time(high)[1]), is_range)


def parse_date_time_range(text: str) -> MatchedRange:
    """A DT match key. Raises ValueError, without the text, for anything that is no date-time or range of them.

    A hyphen before four digits that can be an offset from UTC is read as one: `2024-0500` is a year in a zone, and
    `2024-2025` is a range of years (PS3.5 §6.2, DT).
    """
    stripped = text.strip()
    if len(stripped) > MAX_CHARS:
        raise ValueError("longer than a date-time can be")
    low, has_low_zone, rest = _take_date_time(stripped)
    if low and not rest:
        bounds = _date_time(low)
        return MatchedRange(Interval(*bounds), False, has_low_zone)
    if not rest.startswith("-"):
        raise ValueError("not a date-time")
    high, has_high_zone, rest = _take_date_time(rest[1:])
    if rest or not (low or high):
        raise ValueError("not a range of date-times")
    interval = Interval(_date_time(low)[0] if low else None, _date_time(high)[1] if high else None)
    return MatchedRange(interval, True, has_low_zone or has_high_zone)


def combine(date: Interval, time: Interval) -> tuple[str | None, str | None]:
    """A date range and a time range as one interval of date-times (PS3.18 §8.3.4.1.1).

    An open date end leaves that end open; an open time end takes the whole day.
    """
    low = None if date.low is None else date.low + (time.low or DAY_START)
    high = None if date.high is None else date.high + (time.high or DAY_END)
    return low, high


def _ends(text: str) -> tuple[str | None, str | None, bool]:
    stripped = text.strip()
    if len(stripped) > MAX_CHARS:
        raise ValueError("longer than a range can be")
    low, dash, high = (part.strip() for part in stripped.partition("-"))
    if not (low or high):
        raise ValueError("neither a value nor a range")
    if not dash:
        return low, low, False
    return low or None, high or None, True


def _date(text: str) -> str:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    return match[1] + match[3] + _checked_day(match[1], match[3], match[4])


def _checked_day(year: str, month: str, day: str) -> str:
    """The day, once year and month are known to hold it."""
    if int(year) < 1 or not 1 <= int(month) <= 12 or not 1 <= int(day) <= monthrange(int(year), int(month))[1]:
        raise ValueError("no such day")
    return day


def _time(text: str) -> tuple[str, str]:
    """The first and last moment of a time of any precision."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a time")
    return _moments(match[1], match[3], match[4], match[5])


def _moments(hour: str | None, minute: str | None, second: str | None, fraction: str | None) -> tuple[str, str]:
    """Seconds may be 60: leap seconds are legal in TM and DT (PS3.5 §6.2)."""
    if int(hour or 0) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        raise ValueError("no such time")
    low = f"{hour or '00'}{minute or '00'}{second or '00'}.{(fraction or '').ljust(6, '0')}"
    high = f"{hour or '23'}{minute or '59'}{second or '59'}.{(fraction or '').ljust(6, '9')}"
    return low, high


def _date_time(text: str) -> tuple[str, str]:
    """The first and last moment of a date-time of any precision."""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a date-time")
    year, month, day, hour, minute, second, fraction = match.groups()
    if fraction is not None and second is None:
        raise ValueError("a fraction of no second")
    _checked_day(year, month or "01", day or "01")
    first, last = _moments(hour, minute, second, fraction)
    last_month = month or "12"
    last_day = day or str(monthrange(int(year), int(last_month))[1])
    return f"{year}{month or '01'}{day or '01'}{first}", f"{year}{last_month}{last_day}{last}"


def _take_date_time(text: str) -> tuple[str, bool, str]:
    """Split a date-time off the start: its digits, whether a zone followed (dropped), and the rest."""
    digits = re.match(r"[0-9.]*", text, re.ASCII)
    end = digits.end() if digits else 0
    zone = re.match(r"[+-][0-9]{4}(?=-|\Z)", text[end:], re.ASCII)
    if end and zone and _ZONE.match(zone[0]):
        return text[:end], True, text[end + 5 :].strip()
    return text[:end], False, text[end:].strip()
