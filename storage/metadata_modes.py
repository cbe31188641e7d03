"""The short metadata modes `main` and `extrapolate`, as Orthanc's DICOMweb plugin defines them.

main: of each instance its main DICOM tags, then those of series, study and patient. extrapolate: the same, and some
more attributes taken from a sample of three instances of the series (first, middle, last) and told of all of them.
An instance's own value is never overridden.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from pydicom.datadict import tag_for_keyword

from storage.attributes import json_object, parse_object
from storage.dicom.vr import standard_vr
from storage.instance_rows import UTF8
from storage.levels import (
    ORTHANC_INSTANCE_TAGS,
    ORTHANC_PATIENT_TAGS,
    ORTHANC_SERIES_TAGS,
    ORTHANC_STUDY_TAGS,
    SPECIFIC_CHARACTER_SET,
)
from storage.series_index.reader import SeriesIndex

MetadataMode = Literal["full", "main", "extrapolate"]
Rule = Literal["majority", "plurality"]

# The sample lists of the Orthanc Book, chapter DICOMweb, "Fast access to metadata".
STUDY_EXTRAPOLATED_TAGS = ("AcquisitionDate",)
SERIES_EXTRAPOLATED_TAGS = (
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "PhotometricInterpretation", "PixelSpacing",
    "PlanarConfiguration", "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID", "SamplesPerPixel", "SliceThickness",
)  # fmt: skip

_LEVEL_TAGS = frozenset(ORTHANC_SERIES_TAGS + ORTHANC_STUDY_TAGS + ORTHANC_PATIENT_TAGS)
_NOT_EXTRAPOLATED = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """What `extrapolate` samples and how it decides."""

    study_tags: tuple[int, ...]
    series_tags: tuple[int, ...]
    rule: Rule = "majority"


def tags_of_keywords(keywords: Iterable[str]) -> tuple[int, ...]:
    """Tags of a configured list. Raises ValueError for an unknown keyword, or a sequence, which cannot be sampled."""
    tags = []
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is no keyword of PS3.6")
        if not _NOT_EXTRAPOLATED.isdisjoint(standard_vr(tag).split(" or ")):
            raise ValueError(f"{keyword} is a sequence or binary: it cannot be extrapolated")
        tags.append(tag)
    return tuple(sorted(tags))


def main_attributes(index: SeriesIndex) -> Iterator[bytes]:
    """The DICOM JSON objects of all instances in mode `main`."""
    return _merged(index, _level_attributes(index))


def extrapolated_attributes(index: SeriesIndex, rules: Extrapolation) -> Iterator[bytes]:
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


def _level_attributes(index: SeriesIndex) -> dict[int, bytes]:
    shared = parse_object(index.header.shared)
    own = {tag: value for tag, value in shared.items() if tag in _LEVEL_TAGS}
    return {SPECIFIC_CHARACTER_SET: UTF8, **own}


def _merged(index: SeriesIndex, level: Mapping[int, bytes]) -> Iterator[bytes]:
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
