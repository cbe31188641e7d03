"""What a search must answer, by the plainest means: lists, regular expressions, no index. The oracle of the contract."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from storage import levels
from storage.catalogue.base import SeriesSummary
from storage.catalogue.query import (
    AnyOf,
    Condition,
    DateTimeInterval,
    Interval,
    Level,
    Number,
    Query,
    Text,
    Universal,
)

STUDY_LEVEL = levels.PATIENT_TAGS | levels.STUDY_TAGS | {0x00080061, 0x00080062, 0x00201206, 0x00201208, 0x00080056}
SERIES_LEVEL = levels.SERIES_TAGS | {0x00080016, 0x00201209}
FOLDED = ("LO", "LT", "SH", "ST", "UC", "UT")


def folded(text: str) -> str:
    """Without case and accents; good for the Latin letters that the tests use."""
    return "".join(char for char in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(char))


def value_of(summary: SeriesSummary, tag: int) -> list[Any]:
    return json.loads(summary.attributes[tag]).get("Value", []) if tag in summary.attributes else []


def commonest(candidates: Sequence[SeriesSummary], tag: int) -> list[Any]:
    texts = Counter(one.attributes[tag] for one in candidates if value_of(one, tag))
    if not texts:
        return []
    best = max(texts.values())
    return json.loads(min(text for text, count in texts.items() if count == best))["Value"]


class Model:
    """A catalogue as a list."""

    def __init__(self, summaries: Sequence[SeriesSummary]) -> None:
        self.series = [one for one in {one.key: one for one in summaries}.values() if one.problem is None]

    def study_values(self, study_uid: str) -> dict[int, list[Any]]:
        members = [one for one in self.series if one.key.study_uid == study_uid]
        patient_id = commonest(members, 0x00100020)
        of_patient = [one for one in members if value_of(one, 0x00100020) in ([], patient_id)]
        values = {tag: commonest(members, tag) for tag in levels.STUDY_TAGS}
        values |= {tag: commonest(of_patient, tag) for tag in levels.PATIENT_TAGS}
        values[0x0020000D] = [study_uid]
        values[0x00080061] = sorted({text for one in members for text in value_of(one, 0x00080060)})
        values[0x00080062] = sorted({uid for one in members for uid in one.sop_class_uids})
        values[0x00201206] = [len(members)]
        values[0x00201208] = [sum(one.instance_count for one in members)]
        values[0x00080056] = ["ONLINE"]
        return values

    def series_values(self, one: SeriesSummary) -> dict[int, list[Any]]:
        values = {tag: value_of(one, tag) for tag in levels.SERIES_TAGS}
        values[0x0020000E] = [one.key.series_uid]
        values[0x00080016] = [*one.sop_class_uids]
        values[0x00201209] = [one.instance_count]
        return values

    def series_order(self, one: SeriesSummary) -> tuple[Any, ...]:
        number = value_of(one, 0x00200011)
        return (*self.study_order(one.key.study_uid), number[0] if number else float("inf"), one.key.series_uid)

    def study_order(self, study_uid: str) -> tuple[Any, ...]:
        """Newest first: text cannot be negated, so its code points are."""
        values = self.study_values(study_uid)
        date, time = [*values[0x00080020], ""][0], moment("TM", [*values[0x00080030], ""][0])
        return (
            tuple(-ord(char) for char in date.ljust(8, "\0")),
            tuple(-ord(c) for c in time.ljust(13, "\0")),
            study_uid,
        )

    def search(self, query: Query) -> list[tuple[str, ...]]:
        """The UIDs of all matches in order, without limit and offset."""
        of_study, of_series = split(query)
        matching = []
        for one in sorted(self.series, key=self.series_order):
            if query.study_uid not in (None, one.key.study_uid) or query.series_uid not in (None, one.key.series_uid):
                continue
            if holds(self.study_values(one.key.study_uid), of_study, query.fuzzy) and holds(
                self.series_values(one), of_series, query.fuzzy
            ):
                matching.append(one)
        if query.level is Level.STUDY:
            return [(uid,) for uid in dict.fromkeys(one.key.study_uid for one in matching)]
        return [(one.key.study_uid, one.key.series_uid) for one in matching]


def split(query: Query) -> tuple[list[Any], list[Any]]:
    """The keys of the study and of the series; those of instances are no business of a catalogue."""
    keys = [(one.path[0], one) for one in query.conditions] + [(one.date, one) for one in query.intervals]
    return [one for tag, one in keys if tag in STUDY_LEVEL], [one for tag, one in keys if tag in SERIES_LEVEL]


def holds(values: dict[int, list[Any]], keys: list[Any], fuzzy: bool) -> bool:
    flat = [one for one in keys if isinstance(one, Condition) and len(one.path) == 1]
    spans = [one for one in keys if isinstance(one, DateTimeInterval)]
    nested = [one for one in keys if isinstance(one, Condition) and len(one.path) == 2]
    return (
        all(
            isinstance(one.match, Universal) or any(equal(one, value, fuzzy) for value in values.get(one.path[0], []))
            for one in flat
        )
        and all(inside(values, span) for span in spans)
        and all(
            any(
                all(
                    any(equal(one, value, fuzzy) for value in item.get(f"{one.path[1]:08X}", {}).get("Value", []))
                    for one in nested
                    if one.path[0] == tag
                )
                for item in values.get(tag, [])
            )
            for tag in {one.path[0] for one in nested}
        )
    )


def moment(vr: str, text: str) -> str:
    if vr != "TM" or not text:
        return text
    digits, _, fraction = text.partition(".")
    return digits.ljust(6, "0") + "." + fraction.ljust(6, "0")


def inside(values: dict[int, list[Any]], span: DateTimeInterval) -> bool:
    if not values.get(span.date):
        return False
    day = values[span.date][0]
    time = moment("TM", values[span.time][0]) if values.get(span.time) else None
    first, last = day + (time or "000000.000000"), day + (time or "235959.999999")
    return (span.low is None or last >= span.low) and (span.high is None or first <= span.high)


def equal(key: Condition, value: Any, fuzzy: bool) -> bool:
    match key.match:
        case Number(value=number):
            return float(value) == number
        case Interval(low=low, high=high):
            text = moment(key.vr, value)
            return (low is None or low <= text) and (high is None or text <= high)
        case AnyOf(values=values):
            return str(value) in values
        case Text(pattern=pattern, is_wildcard=wild) if key.vr == "PN":
            return any(same_name(pattern, group, wild, fuzzy) for group in value.values())
        case Text(pattern=pattern, is_wildcard=True) if "*" in pattern or "?" in pattern:
            return like(pattern, str(value), fold=key.vr in FOLDED)
        case Text(pattern=pattern):
            return pattern == str(value)
    raise AssertionError(key)


def like(pattern: str, text: str, *, fold: bool) -> bool:
    if fold:
        pattern, text = folded(pattern), folded(text)
    return re.fullmatch(re.sub(r"\\\*", ".*", re.escape(pattern)).replace(r"\?", "."), text, re.S) is not None


def same_name(pattern: str, group: str, wild: bool, fuzzy: bool) -> bool:
    pattern, group = folded(pattern).rstrip("^"), folded(group).rstrip("^")
    # A key that speaks of five components means five components, also where the last of them are empty.
    padded = group + "^" * max(0, pattern.count("^") - group.count("^"))
    if (like(pattern, group, fold=False) or like(pattern, padded, fold=False)) if wild else pattern == group:
        return True
    words = [word for word in re.split(r"[\s^,]+", pattern) if word]
    parts = re.split(r"[\s^,]+", group)
    return (
        fuzzy
        and bool(words)
        and all(
            any(like(word + "*", part, fold=False) if wild else part.startswith(word) for part in parts)
            for word in words
        )
    )
