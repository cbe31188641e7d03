"""The quick road: an index from metadata.json alone. Nothing in it is proven; pixels are located at first touch.

The published writer drops attributes silently, so a quick answer is a provisional one; where it lacks what the SOP
class needs to be shown (geometry, pixel description), its metadata is left out, and answered after a deep build only.
"""

import logging
import re

from storage.attributes import ui_value
from storage.cod.attributes import Normalised
from storage.cod.metadata import Entry, SeriesMetadata
from storage.cod.neighbours import Neighbours
from storage.errors import InstanceUnreadable
from storage.indexing.draft import Draft, DraftInstance, SeriesVersions
from storage.levels import AVAILABLE_TRANSFER_SYNTAX_UID
from storage.ranges import ByteRange
from storage.series_index.layout import Hint

logger = logging.getLogger(__name__)

LARGEST_QUICK_BYTES = 512 << 10
"""Stored metadata of one instance above this (some thousand per-frame items) is left to the deep road: taking it apart
in this process would hold up every frame that is being served, 60 ms for each MiB."""

_SYNTAX_TAG = b'"00020010"'
_BEGINNING = 2048
_STORED_SYNTAX = re.compile(rb'"00020010":\s*\{[^{}]*"Value":\s*\[\s*("[0-9.]{1,64}")')
"""Transfer Syntax UID as the published writer leaves it among the attributes; quotes inside strings are escaped."""


def fill_quick(
    draft: Draft, metadata: SeriesMetadata, versions: SeriesVersions, *, keep_incomplete: bool = False
) -> None:
    """Add every entry of metadata.json to the draft. CPU-bound: about 0.3 ms an instance.

    Args:
        keep_incomplete: also keep metadata that lack what their SOP class needs.
    """
    neighbours = Neighbours()
    for uid, entry in metadata.entries.items():
        problem = place_problem(entry, versions)
        draft.add(quick_instance(draft, uid, entry, problem, neighbours, keep_incomplete=keep_incomplete))


def quick_instance(
    draft: Draft,
    uid: str,
    entry: Entry,
    problem: str | None,
    neighbours: Neighbours | None = None,
    *,
    keep_incomplete: bool = False,
) -> DraftInstance:
    """One entry as metadata.json tells it.

    Args:
        problem: why its bytes cannot be served, if that is known already; a deep build falls back to this with one.
        neighbours: what the instances before it had in common; None for one that is looked at alone.
    """
    kept: dict[int, bytes] = {}
    json_place = syntax = None
    normalised = _normalised(draft, uid, entry, neighbours or Neighbours())
    if normalised is not None:
        syntax = normalised.transfer_syntax_uid
        text, kept = draft.disclosed(normalised.json, normalised.kept)
        if problem is not None or keep_incomplete or not normalised.lacks:
            json_place = draft.spool.put((text,))
    elif problem is not None:  # nothing better will come: the instance is listed by its UIDs
        json_place = draft.spool.put((draft.bare_json(uid),))
    kept[0x00080018] = ui_value(uid)
    return DraftInstance(
        uid=uid,
        place=ByteRange(entry.start, entry.stop) if entry.problem is None else ByteRange(0, 0),
        crc32c=entry.crc32c,
        transfer_syntax_uid=syntax,
        kept=kept,
        json_place=json_place,
        hint=hint_of(uid, entry) if problem is None else None,
        problem=problem,
    )


def place_problem(entry: Entry, versions: SeriesVersions) -> str | None:
    """Why the bytes of an entry cannot be where it says, if they cannot."""
    if entry.problem is not None:
        return entry.problem
    if versions.tar is None:
        return "metadata.json lists it, and there is no tar"
    if entry.stop > versions.tar.size:
        return f"its bytes [{entry.start}, {entry.stop}) lie beyond the end of the tar at {versions.tar.size}"
    return None


def original_uid(uid: str, entry: Entry) -> str:
    """The SOP Instance UID that the P10 itself must have."""
    try:
        return entry.original_uids().instance_uid or uid
    except InstanceUnreadable:
        return uid


def _normalised(draft: Draft, uid: str, entry: Entry, neighbours: Neighbours) -> Normalised | None:
    """The stored attributes in the form of Annex F; None if they are unreadable or too large for this road."""
    if memoryview(entry.metadata).nbytes > LARGEST_QUICK_BYTES:
        return None
    try:
        stored = entry.attributes_json()
        if len(stored) > LARGEST_QUICK_BYTES:
            return None
        near = stored.find(_SYNTAX_TAG, 0, _BEGINNING)  # file meta comes first, or last
        syntax = _STORED_SYNTAX.match(stored, max(0, near if near >= 0 else stored.rfind(_SYNTAX_TAG)))
        extra = {AVAILABLE_TRANSFER_SYNTAX_UID: b'{"vr":"UI","Value":[%b]}' % syntax[1]} if syntax else {}
        return neighbours.normalise(stored, bulkdata_base=draft.bulkdata_base(uid), extra=extra)
    except InstanceUnreadable as error:
        logger.warning("%s: stored metadata of instance %s: %s", draft.key, uid, error)
        return None


def hint_of(uid: str, entry: Entry) -> Hint:
    """What metadata.json claims of an instance, for whoever has to prove it or to locate its frames anew."""
    if entry.stored_table is None:
        return Hint(original_uid(uid, entry))
    positions, lengths = entry.stored_table
    return Hint(original_uid(uid, entry), list(positions), list(lengths))
