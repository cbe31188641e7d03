"""The new metadata.json of a series, from its entries as they are stored and those that are new."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from storage.cod.metadata import SeriesMetadata
from storage.cod.tar import TarMember
from storage.cod.writing import NewEntry, PackedSeries, corrected_entry, encode_entry, moved_entry, noted_entry
from storage.keys import SeriesKey
from storage.writing.change import Change, NewInstance
from storage.writing.stored import StoredSeries, kept_members
from storage.writing.tar_plan import TarPlan


def pack_present(key: SeriesKey, document: SeriesMetadata | None, *, is_deid: bool = False) -> PackedSeries:
    """metadata.json as it is, to be kept in a lock."""
    entries = {} if document is None else {uid: entry.stored for uid, entry in document.entries.items()}
    return PackedSeries(kept_members(key, document, is_deid=is_deid), entries.items())


def pack_changed(
    stored: StoredSeries, change: Change, plan: TarPlan | None, *, datastore_url: str, modified: datetime
) -> PackedSeries:
    """metadata.json as it will be.

    Args:
        plan: of the new tar; None: the present one stays.
        datastore_url: what the `uri` of a new entry begins with; those of others are left as they are.
    """
    members = kept_members(stored.key, stored.document, is_deid=change.is_deid)
    if change.remove or change.is_rewrite:
        members.pop("thumbnail", None)  # it shows instances that are gone
    if change.thumbnail is not None:
        members["thumbnail"] = change.thumbnail
    for name, value in change.fields.items():
        members.pop(name, None)
        if value is not None:
            members[name] = value
    return PackedSeries(members, _entries(stored, change, plan, datastore_url, modified))


def _entries(
    stored: StoredSeries, change: Change, plan: TarPlan | None, datastore_url: str, modified: datetime
) -> Iterator[tuple[str, msgspec.Raw | bytes]]:
    """First those that stay, in their order, then those that are added."""
    places: Mapping[str, TarMember] = {} if plan is None else {member.name: member for member in plan.stays}
    for uid, entry in stored.entries.items():
        if change.is_rewrite or uid in change.remove:
            continue
        text: msgspec.Raw | bytes = entry.stored
        place = places.get(f"instances/{uid}.dcm")
        if place is not None and place.start != entry.start:
            text = moved_entry(entry.stored, place)
        correction = change.corrected.get(uid)
        if correction is not None:
            text = corrected_entry(
                msgspec.Raw(text),
                metadata=correction.metadata,
                offset_table=correction.offset_table,
                has_pixeldata=correction.has_pixeldata,
                original_uids=correction.original_uids,
            )
        if uid in change.conflicts:
            text = noted_entry(msgspec.Raw(text), change.conflicts[uid])
        yield uid, text
    for new, member in () if plan is None else plan.added:
        entry_text = encode_entry(stored.key, _entry(new, member), datastore_url=datastore_url, modified=modified)
        yield new.instance_uid, entry_text


def _entry(new: NewInstance, member: TarMember) -> NewEntry:
    return NewEntry(
        instance_uid=new.instance_uid,
        member=member,
        crc32c=new.crc32c,
        has_pixeldata=new.has_pixeldata,
        metadata=new.metadata,
        offset_table=new.offset_table,
        original_path=new.original_path,
        dependencies=new.dependencies,
        original_uids=new.original_uids,
    )
