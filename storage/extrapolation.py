"""What the short metadata modes are told by settings: names, tag lists, the rule; see `storage.metadata_modes`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from storage.dicom.dictionary import tag_of_keyword
from storage.dicom.vr import standard_vr

MetadataMode = Literal["full", "main", "extrapolate"]
Rule = Literal["majority", "plurality"]

# The sample lists of the Orthanc Book, chapter DICOMweb, "Fast access to metadata".
STUDY_EXTRAPOLATED_TAGS = ("AcquisitionDate",)
SERIES_EXTRAPOLATED_TAGS = (
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "PhotometricInterpretation", "PixelSpacing",
    "PlanarConfiguration", "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID", "SamplesPerPixel", "SliceThickness",
)  # fmt: skip

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
        tag = tag_of_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is no keyword of PS3.6")
        if not _NOT_EXTRAPOLATED.isdisjoint(standard_vr(tag).split(" or ")):
            raise ValueError(f"{keyword} is a sequence or binary: it cannot be extrapolated")
        tags.append(tag)
    return tuple(sorted(tags))
