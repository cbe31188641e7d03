"""The finished answer of an instance search, and which attributes stand for a whole series."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from storage.attributes import json_object, ui_value
from storage.keys import SeriesKey
from storage.levels import (
    AVAILABLE_TRANSFER_SYNTAX_UID,
    INSTANCE_AVAILABILITY,
    INSTANCE_RETURN_KNOWN,
    INSTANCE_RETURN_REQUIRED,
    INSTANCE_TAGS,
    PATIENT_TAGS,
    RETRIEVE_URL,
    SERIES_TAGS,
    SPECIFIC_CHARACTER_SET,
    STUDY_TAGS,
)
from storage.links import ROOT

SHARED_TAGS = PATIENT_TAGS | STUDY_TAGS | (SERIES_TAGS - INSTANCE_TAGS)
"""What is told once for the series; ImageOrientationPatient counts to both levels and is kept per instance."""
UTF8 = b'{"vr":"CS","Value":["ISO_IR 192"]}'
ONLINE = b'{"vr":"CS","Value":["ONLINE"]}'
_EMPTY = {0x00080016: b'{"vr":"UI"}', 0x00080018: b'{"vr":"UI"}', 0x00200013: b'{"vr":"IS"}'}


def instance_row(
    key: SeriesKey, instance_uid: str, kept: Mapping[int, bytes], transfer_syntax_uid: str | None
) -> bytes:
    """One row of PS3.18 Table 10.6.3-5, with what clients read beyond it; links rootless."""
    row: dict[int, bytes] = {tag: kept.get(tag, _EMPTY[tag]) for tag in INSTANCE_RETURN_REQUIRED}
    row.update((tag, kept[tag]) for tag in INSTANCE_RETURN_KNOWN if tag in kept)
    row[SPECIFIC_CHARACTER_SET] = UTF8
    row[INSTANCE_AVAILABILITY] = ONLINE
    row[RETRIEVE_URL] = retrieve_url(f"/{key.stem}/instances/{instance_uid}")
    if transfer_syntax_uid is not None:
        row[AVAILABLE_TRANSFER_SYNTAX_UID] = ui_value(transfer_syntax_uid)
    row[0x00080018] = ui_value(instance_uid)
    row[0x0020000D] = ui_value(key.study_uid)
    row[0x0020000E] = ui_value(key.series_uid)
    return json_object(row)


def retrieve_url(path: str) -> bytes:
    """A RetrieveURL (0008,1190) without a host yet."""
    return b'{"vr":"UR","Value":["' + ROOT.encode() + path.encode() + b'"]}'


SHARED_SAMPLE = 9
"""Instances that are asked for the attributes of their series: by definition all should say the same (PS3.3 §A.1.2)."""


def shared_attributes(kepts: Sequence[Mapping[int, bytes]], key: SeriesKey) -> dict[int, bytes]:
    """The patient, study and series attributes that stand for a series: the values most of a sample have.

    The sample is spread over the series; ties go to the smallest value. The UIDs are those of the series' place.
    """
    step = max(1, len(kepts) // SHARED_SAMPLE)
    votes: dict[int, Counter[bytes]] = defaultdict(Counter)
    for kept in kepts[::step]:
        for tag, value in kept.items():
            if tag in SHARED_TAGS:
                votes[tag][value] += 1
    winners = {tag: min(counts, key=lambda value: (-counts[value], value)) for tag, counts in votes.items()}
    winners[0x0020000D] = ui_value(key.study_uid)
    winners[0x0020000E] = ui_value(key.series_uid)
    return winners


def instance_number(kept: Mapping[int, bytes]) -> float:
    """InstanceNumber for ordering; absent or unreadable ones sort last."""
    raw = kept.get(0x00200013)
    if raw is None:
        return float("inf")
    values = msgspec.json.decode(raw).get("Value") or [None]
    try:
        return float(values[0])
    except (TypeError, ValueError):
        return float("inf")


def sop_classes(kepts: Iterable[Mapping[int, bytes]]) -> set[str]:
    """The SOP Class UIDs that occur."""
    found: set[str] = set()
    for raw in {kept[0x00080016] for kept in kepts if 0x00080016 in kept}:
        values = msgspec.json.decode(raw).get("Value")
        found.update(value for value in values or () if isinstance(value, str))
    return found
