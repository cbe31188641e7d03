"""Series as the catalogue is told of them, from plain values; the JSON is Python's own, not the program's."""

import json
from collections.abc import Mapping, Sequence

from storage.catalogue.base import Depth, SeriesSummary
from storage.catalogue.query import AnyOf, Condition, Interval, Match, Text
from storage.keys import SeriesKey

CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"

VRS = {
    0x00080005: "CS", 0x00080016: "UI", 0x00080018: "UI", 0x00080020: "DA", 0x00080030: "TM", 0x00080050: "SH",
    0x00080060: "CS", 0x00080061: "CS", 0x00080062: "UI", 0x00080070: "LO", 0x00080080: "LO", 0x00080090: "PN",
    0x00080201: "SH", 0x00081030: "LO", 0x0008103E: "LO", 0x00100010: "PN", 0x00100020: "LO", 0x00100021: "LO",
    0x00100030: "DA", 0x00100040: "CS", 0x0020000D: "UI", 0x0020000E: "UI", 0x00200010: "SH", 0x00200011: "IS",
    0x00200013: "IS", 0x00201206: "IS", 0x00201208: "IS", 0x00201209: "IS", 0x00400244: "DA", 0x00400245: "TM",
    0x00400275: "SQ", 0x00401001: "SH", 0x00400009: "SH", 0x00180015: "CS",
}  # fmt: skip
"""VRs of PS3.6 for the tags that the tests use."""


def element(vr: str, values: Sequence[object]) -> bytes:
    return json.dumps({"vr": vr, "Value": list(values)} if values else {"vr": vr}, ensure_ascii=False).encode()


def name(text: str) -> dict[str, str]:
    """A PN value: alphabetic, ideographic and phonetic groups joined by `=`."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {group: part for group, part in groups if part}


def summary(
    study_uid: str,
    series_uid: str,
    values: Mapping[int, object] | None = None,
    *,
    instances: int = 1,
    classes: Sequence[str] = (CT,),
    version: str = "v1",
    tar_version: str | None = "t1",
    depth: Depth = "deep",
    problem: str | None = None,
) -> SeriesSummary:
    """A summary; a list is several values, None an empty attribute, a PN is written as in PS3.5."""
    attributes: dict[int, bytes] = {}
    for tag, value in (values or {}).items():
        several = value if isinstance(value, list) else [] if value is None else [value]
        vr = VRS[tag]
        attributes[tag] = element(vr, [name(str(one)) if vr == "PN" else one for one in several])
    return SeriesSummary(
        key=SeriesKey(study_uid, series_uid),
        metadata_version=version,
        tar_version=tar_version,
        is_deid=False,
        instance_count=instances,
        sop_class_uids=tuple(classes),
        attributes=attributes,
        depth=depth,
        problem=problem,
    )


def key_is(tag: int, match: Match | str) -> Condition:
    """A match key; a string is a value, or a pattern if it holds a wildcard."""
    if isinstance(match, str):
        match = Text(match, is_wildcard="*" in match or "?" in match)
    return Condition((tag,), VRS[tag], match)


def uids(*values: str) -> AnyOf:
    return AnyOf(values)


def between(low: str | None, high: str | None) -> Interval:
    return Interval(low, high)
