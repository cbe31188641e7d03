"""The short metadata modes `main` and `extrapolate`, as Orthanc's DICOMweb plugin defines them.

main: of each instance its main DICOM tags, then those of series, study and patient. extrapolate: the same, and some
more attributes taken from a sample of three instances of the series (first, middle, last) and told of all of them.
An instance's own value is never overridden.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from storage.attributes import json_object, parse_object
from storage.extrapolation import Extrapolation, Rule
from storage.instance_rows import UTF8
from storage.levels import (
    ORTHANC_INSTANCE_TAGS,
    ORTHANC_PATIENT_TAGS,
    ORTHANC_SERIES_TAGS,
    ORTHANC_STUDY_TAGS,
    SPECIFIC_CHARACTER_SET,
)

if TYPE_CHECKING:
    from storage.series_index.reader import SeriesIndex

_LEVEL_TAGS = frozenset(ORTHANC_SERIES_TAGS + ORTHANC_STUDY_TAGS + ORTHANC_PATIENT_TAGS)


def main_attributes(index: "SeriesIndex") -> Iterator[bytes]:
    """The DICOM JSON objects of all instances in mode `main`."""
    return _merged(index, _level_attributes(index))


def extrapolated_attributes(index: "SeriesIndex", rules: Extrapolation) -> Iterator[bytes]:
    """The DICOM JSON objects of all instances in mode `extrapolate`; decodes at most three blocks."""
    level = _level_attributes(index)
    samples = [parse_object(index.instance_json(ordinal)) for ordinal in sample_ordinals(index.header.count)]
    for tag in (*rules.study_tags, *rules.series_tags):
        values = [sample[tag] for sample in samples if tag in sample and _is_told(sample[tag])]
        value = _elected(values, len(samples), rules.rule)
        if value is not None:
            level[tag] = value
    return _merged(index, level)


def sample_ordinals(count: int) -> Sequence[int]:
    """First, middle and last of a series; fewer when there are fewer."""
    return sorted({0, count // 2, count - 1}) if count else ()


def _level_attributes(index: "SeriesIndex") -> dict[int, bytes]:
    shared = parse_object(index.header.shared)
    own = {tag: value for tag, value in shared.items() if tag in _LEVEL_TAGS}
    return {SPECIFIC_CHARACTER_SET: UTF8, **own}


def _merged(index: "SeriesIndex", level: Mapping[int, bytes]) -> Iterator[bytes]:
    wanted = frozenset(ORTHANC_INSTANCE_TAGS)
    for ordinal in range(index.header.count):
        own = {tag: value for tag, value in parse_object(index.kept(ordinal)).items() if tag in wanted}
        yield json_object({**level, **own})


def _is_told(value: bytes) -> bool:
    """Whether a sampled value may stand for others: a link leads to the bulk data of its own instance only."""
    return b'"BulkDataURI":' not in value and b'"InlineBinary":' not in value


def _elected(values: Sequence[bytes], samples: int, rule: Rule) -> bytes | None:
    """The value told of all instances: more than half of the samples agree, or (plurality) the commonest, ties smallest."""
    counts = Counter(values)
    if not counts:
        return None
    value = min(counts, key=lambda each: (-counts[each], _text(each)))
    if rule == "majority" and counts[value] * 2 <= samples:
        return None
    return value


def _text(value: bytes) -> str:
    """The value as Orthanc compares it: a string, several values joined by a backslash."""
    values = msgspec.json.decode(value).get("Value", [])
    return "\\".join(str(each) for each in values)
