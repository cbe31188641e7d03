"""The value of a match key as a `Match`, by the VR of its attribute (PS3.4 §C.2.2.2; PS3.5 §6.2).

Empty and `*` match everything. Lists are read for UIDs (comma in PS3.18, backslash from OHIF) and for CS, where viewers
mean "any of these modalities". Wildcards live in text only.
"""

import math
import re
from collections.abc import Callable, Sequence

from app.attributes import path_text
from app.dates import MatchedRange, parse_date_range, parse_date_time_range, parse_time_range
from app.errors import RequestError
from storage.catalogue.query import AnyOf, Match, Number, TagPath, Text, Universal
from storage.keys import is_path_uid

MAX_PATTERN_CHARS = 1024
"""Longest text of one key; PS3.5 allows 64 characters in the attributes that people search."""

MAX_UIDS = 10_000

TEMPORAL_VRS: dict[str, Callable[[str], MatchedRange]] = {
    "DA": parse_date_range,
    "TM": parse_time_range,
    "DT": parse_date_time_range,
}
_NUMERIC_VRS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV"})
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_PLAIN_VRS = frozenset({"AS"})

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_SEPARATORS = re.compile(r"[,\\]")
_PADDING = " \0"


def significant(values: Sequence[str]) -> list[str]:
    """The values of a key that say anything: trimmed, each once, neither empty nor `*`."""
    trimmed = dict.fromkeys(value.strip(_PADDING) for value in values)
    return [value for value in trimmed if value.strip("*")]


def read_match(path: TagPath, vr: str, values: Sequence[str]) -> Match:
    """What the values of one key ask for.

    Args:
        values: as in the query, more than one only if the key was repeated. A repeated UID key is a union (wsidicom);
            any other may be repeated only with the same value.

    Raises:
        RequestError: the value does not suit the VR, or the VR cannot be matched.
    """
    meant = significant(values)
    if not meant:
        return Universal()
    if vr == "UI":
        return _uids(path, meant)
    value = single_value(path, meant)
    if vr in TEMPORAL_VRS:
        return read_range(path, vr, value).interval
    if vr in _NUMERIC_VRS:
        return _number(path, value)
    if vr == "CS":
        return _codes(path, value)
    if vr in _WILDCARD_VRS:
        return _text(path, value)
    if vr in _PLAIN_VRS:
        return Text(_checked(path, value), is_wildcard=False)
    if vr == "SQ":
        raise RequestError(f"{path_text(path)} is a sequence: name an attribute of its items after a dot")
    raise RequestError(f"{path_text(path)} has VR {vr}, which cannot be matched")


def single_value(path: TagPath, meant: Sequence[str]) -> str:
    """The one value of a key that may not be repeated (PS3.18 §8.3.4.1)."""
    if len(meant) > 1:
        raise RequestError(f"{path_text(path)} is given more than once")
    return meant[0]


def read_range(path: TagPath, vr: str, value: str) -> MatchedRange:
    """A DA, TM or DT value or range."""
    try:
        return TEMPORAL_VRS[vr](value)
    except ValueError as error:
        raise RequestError(f"{path_text(path)} is no {vr} value or range: {error}") from error


def _uids(path: TagPath, values: Sequence[str]) -> Match:
    uids = dict.fromkeys(uid for value in values for part in _SEPARATORS.split(value) if (uid := part.strip(_PADDING)))
    if len(uids) > MAX_UIDS:
        raise RequestError(f"{path_text(path)} lists {len(uids)} UIDs, at most {MAX_UIDS} are taken")
    if not all(is_path_uid(uid) for uid in uids):
        raise RequestError(f"{path_text(path)} is no UID or list of UIDs")
    return AnyOf(tuple(uids)) if uids else Universal()


def _codes(path: TagPath, value: str) -> Match:
    parts = [part for code in _SEPARATORS.split(_checked(path, value)) if (part := code.strip(_PADDING))]
    if not parts:
        return Universal()
    if len(parts) == 1:
        return _text(path, parts[0])
    if any(char in part for part in parts for char in "*?"):
        raise RequestError(f"{path_text(path)} mixes a list with wildcards")
    return AnyOf(tuple(dict.fromkeys(parts)))


def _text(path: TagPath, value: str) -> Match:
    pattern = re.sub(r"\*+", "*", _checked(path, value))
    if pattern == "*":
        return Universal()
    return Text(pattern, is_wildcard="*" in pattern or "?" in pattern)


def _number(path: TagPath, value: str) -> Match:
    number = float(value) if _NUMBER.fullmatch(value) else math.nan
    if not math.isfinite(number):
        raise RequestError(f"{path_text(path)} is no number")
    return Number(number)


def _checked(path: TagPath, value: str) -> str:
    if len(value) > MAX_PATTERN_CHARS:
        raise RequestError(f"{path_text(path)} has {len(value)} characters, at most {MAX_PATTERN_CHARS} are taken")
    if "\0" in value:
        raise RequestError(f"{path_text(path)} holds a NUL")
    return value
