"""Does a data set satisfy match keys? PS3.4 §C.2.2.2, on attributes in the DICOM JSON Model.

Pure: no database, no I/O. Catalogues use SQL where SQL gives the same answer, and this everywhere else; the archive uses
it on instances. In short:

- an attribute of several values matches if any of them does; a universal key matches an absent attribute too;
- PN ignores case and accents, by component group (`storage.catalogue.person_name`);
- wildcards in LO LT SH ST UC UT ignore case and accents as well, for people type them; without a wildcard these VRs,
  and AE AS CS UI UR always, compare trimmed and case-sensitive;
- keys inside one sequence must all hold in the same item (§C.2.2.2.6).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from storage.catalogue.folding import fold
from storage.catalogue.pattern import Pattern
from storage.catalogue.person_name import name_test
from storage.catalogue.query import AnyOf, Condition, DateTimeInterval, Interval, Match, Number, Tag, Text, Universal
from storage.errors import CorruptSeries

FOLDED_WILDCARD_VRS = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
DEEPEST_PATH = 16
"""Sequences within sequences that a key may name; a deeper key matches nothing."""

_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)", re.ASCII)
_LEGACY_DATE = re.compile(r"(\d{4})\.(\d\d)\.(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d):?(?:(\d\d):?(?:(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_DATE_TIME = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(\d{2,6}(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER = 64

ValueTest = Callable[[object], bool]


class Attributes(Protocol):
    """Attributes by tag, each as Annex F JSON or decoded from it. A dict will do."""

    def get(self, tag: Tag, /) -> bytes | Mapping[str, object] | None: ...


def matches(attributes: Attributes, condition: Condition, *, fuzzy: bool = False) -> bool:
    """Whether one match key is satisfied."""
    return Matcher((condition,), fuzzy=fuzzy).matches(attributes)


def matches_all(
    attributes: Attributes,
    conditions: Sequence[Condition],
    intervals: Sequence[DateTimeInterval] = (),
    *,
    fuzzy: bool = False,
) -> bool:
    """Whether all match keys are satisfied together: those inside one sequence by the same item."""
    return Matcher(conditions, intervals, fuzzy=fuzzy).matches(attributes)


class Matcher:
    """Match keys made ready for many data sets.

    Raises (from `matches`): CorruptSeries when an attribute that a key names is not DICOM JSON.
    """

    def __init__(
        self, conditions: Sequence[Condition], intervals: Sequence[DateTimeInterval] = (), *, fuzzy: bool = False
    ) -> None:
        self._tests: list[tuple[Tag, ValueTest]] = []
        self._items: list[tuple[Tag, Matcher]] = []
        self._intervals = tuple(intervals)
        inner: defaultdict[Tag, list[Condition]] = defaultdict(list)
        for condition in conditions:
            if is_universal(condition.match):
                continue
            if len(condition.path) == 1:
                self._tests.append((condition.path[0], value_test(condition.vr, condition.match, fuzzy=fuzzy)))
            elif len(condition.path) > DEEPEST_PATH:
                self._tests.append((condition.path[0], lambda value: False))
            else:
                inner[condition.path[0]].append(Condition(condition.path[1:], condition.vr, condition.match))
        for tag, within in inner.items():
            self._items.append((tag, Matcher(within, fuzzy=fuzzy)))

    @property
    def tags(self) -> frozenset[Tag]:
        """The attributes that are looked at; everything else of a data set may be left out."""
        spans = {tag for interval in self._intervals for tag in (interval.date, interval.time)}
        return frozenset(spans | {tag for tag, _ in self._tests} | {tag for tag, _ in self._items})

    def matches(self, attributes: Attributes) -> bool:
        """Whether a data set satisfies all keys."""
        return (
            all(any(test(value) for value in _values(attributes, tag)) for tag, test in self._tests)
            and all(_within_interval(attributes, interval) for interval in self._intervals)
            and all(
                any(isinstance(item, dict) and matcher.matches(_item(item)) for item in _values(attributes, tag))
                for tag, matcher in self._items
            )
        )


def is_universal(match: Match) -> bool:
    """Whether a key restricts nothing: universal, empty, a list without members, or only `*` (PS3.4 §C.2.2.2.3, .4)."""
    match match:
        case Universal():
            return True
        case AnyOf():
            return not exact_values(match)
        case Text(pattern=pattern, is_wildcard=is_wildcard):
            return pattern.strip().strip("*" if is_wildcard else "") == ""
        case _:
            return False


def value_test(vr: str, match: Match, *, fuzzy: bool) -> ValueTest:
    """The test of one value of an attribute: text, number, or PN object."""
    match match:
        case Universal():
            return lambda value: True
        case Number(value=number):
            return lambda value: number_of(value) == number
        case Interval(low=low, high=high):
            return lambda value: _inside(sortable(vr, text_of(value)), low, high)
        case AnyOf(values=wanted) if vr == "PN":
            tests = [name_test(text, is_wildcard=False, fuzzy=fuzzy) for text in wanted if text.strip()]
            return lambda value: any(test(value) for test in tests)
        case AnyOf():
            exact = frozenset(exact_values(match) or ())
            return lambda value: text_of(value) in exact
        case Text(pattern=pattern, is_wildcard=is_wildcard) if vr == "PN":
            return name_test(pattern, is_wildcard=is_wildcard, fuzzy=fuzzy)
        case Text(pattern=pattern, is_wildcard=is_wildcard):
            return _text_test(vr, pattern, is_wildcard=is_wildcard)


def exact_values(match: Match) -> list[str] | None:
    """The values of which one is to be equal, trimmed, without empty ones; None for a key of another kind."""
    match match:
        case AnyOf(values=values):
            return [text for value in values if (text := value.strip())]
        case Text(pattern=pattern, is_wildcard=is_wildcard) if not (is_wildcard and ("*" in pattern or "?" in pattern)):
            return [pattern.strip()]
        case _:
            return None


def text_of(value: object) -> str | None:
    """A value as trimmed text; None for what is no text and no number."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def number_of(value: object) -> float | None:
    """A value as a number: JSON numbers, and the text that stands for one where a number would lose digits."""
    text = text_of(value)
    if text is None or len(text) > _LONGEST_NUMBER or _DECIMAL.fullmatch(text) is None:
        return None
    return float(text)


def sortable(vr: str, text: str | None) -> str:
    """A stored DA, TM or DT as the earliest moment that it can mean, in the form of `Interval`; else empty.

    The retired forms `YYYY.MM.DD` and `HH:MM:SS` are understood. An offset from UTC in DT is not applied.
    """
    if text is None:
        return ""
    if vr == "DA":
        found = _DATE.fullmatch(text) or _LEGACY_DATE.fullmatch(text)
        return "".join(found.groups()) if found is not None else ""
    if vr == "TM":
        found = _TIME.fullmatch(text)
        return "{}{}{}.{:0<6}".format(*(part or "00" for part in found.groups())) if found is not None else ""
    if vr == "DT" and (found := _DATE_TIME.fullmatch(text)) is not None:
        year, month, day, time = found.groups()
        clock = sortable("TM", time) if time else "000000.000000"
        return f"{year}{month or '01'}{day or '01'}{clock}" if clock else ""
    return ""


def values_of(element: "bytes | Mapping[str, object] | None") -> list[object]:
    """The values of one attribute; none if it is absent or empty. Raises CorruptSeries for what is not DICOM JSON."""
    if isinstance(element, bytes):
        try:
            decoded: object = msgspec.json.decode(element)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptSeries(f"an attribute of {len(element)} bytes is not DICOM JSON") from error
        element = decoded if isinstance(decoded, dict) else None
    values = element.get("Value") if element is not None else None
    return values if isinstance(values, list) else []


def _values(attributes: Attributes, tag: Tag) -> list[object]:
    return values_of(attributes.get(tag))


def _text_test(vr: str, text: str, *, is_wildcard: bool) -> ValueTest:
    folds = vr in FOLDED_WILDCARD_VRS
    pattern = text_pattern(vr, text, is_wildcard=is_wildcard)
    if not pattern.is_wildcard:
        exact = text.strip()
        return lambda value: text_of(value) == exact
    return lambda value: (own := text_of(value)) is not None and pattern.matches(fold(own) if folds else own)


def text_pattern(vr: str, text: str, *, is_wildcard: bool) -> Pattern:
    """The pattern of a text key other than PN; over folded text where the VR's wildcards ignore case and accents."""
    return Pattern(text.strip(), is_wildcard=is_wildcard, normalize=fold if vr in FOLDED_WILDCARD_VRS else str)


def _inside(value: str, low: str | None, high: str | None) -> bool:
    return value != "" and (low is None or low <= value) and (high is None or value <= high)


def _within_interval(attributes: Attributes, interval: DateTimeInterval) -> bool:
    """Whether the moment of a date and a time lies in an interval; a date of unknown time stands for its whole day."""
    dates = [date for value in _values(attributes, interval.date) if (date := sortable("DA", text_of(value)))]
    times = [time for value in _values(attributes, interval.time) if (time := sortable("TM", text_of(value)))]
    spans = [(date + time, date + time) for date in dates for time in times] or [
        (f"{date}000000.000000", f"{date}235959.999999") for date in dates
    ]
    return any(
        (interval.low is None or interval.low <= last) and (interval.high is None or first <= interval.high)
        for first, last in spans
    )


def _item(item: Mapping[str, object]) -> dict[Tag, Mapping[str, object]]:
    """An item of a sequence by tags; what is no attribute is left out."""
    found: dict[Tag, Mapping[str, object]] = {}
    for name, element in item.items():
        if isinstance(element, dict) and len(name) == 8:
            try:
                found[int(name, 16)] = element
            except ValueError:
                continue
    return found
