"""What a session has collected and not committed: a change that grows, and what a newcomer is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from storage.errors import InstanceNotFound
from storage.ingest.order import in_order
from storage.ingest.stored import ORIGINALS_FIELD, originals_of
from storage.library.describing import Addition
from storage.writing import Change, NewInstance, StoredSeries

Fingerprint = tuple[int | None, int | None]
"""Size and CRC-32C of a P10."""


@dataclass(slots=True)
class Pending:
    """Additions, removals, notes and fields on top of a stored series."""

    stored: StoredSeries
    is_rewrite: bool = False
    """What is stored does not count: what is added takes its place."""
    is_deid: bool = False
    additions: dict[str, Addition] = field(default_factory=dict)
    removals: set[str] = field(default_factory=set)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    fields: dict[str, msgspec.Raw | None] = field(default_factory=dict)

    def copy(self) -> "Pending":
        """One that can be thrown away."""
        return Pending(
            self.stored,
            self.is_rewrite,
            self.is_deid,
            dict(self.additions),
            set(self.removals),
            {uid: list(paths) for uid, paths in self.conflicts.items()},
            dict(self.fields),
        )

    @property
    def is_empty(self) -> bool:
        return not (self.additions or self.removals or self.conflicts or self.fields or self.is_rewrite)

    @property
    def size(self) -> int:
        """Bytes of all instances as they would be after a commit."""
        kept = sum(entry.size for uid, entry in self.stored.entries.items() if self.is_kept(uid))
        return kept + sum(each.new.size for each in self.additions.values())

    def is_kept(self, uid: str) -> bool:
        """Whether a stored instance stays."""
        return uid in self.stored.entries and uid not in self.removals and not self.is_rewrite

    def holds(self, uid: str) -> bool:
        return uid in self.additions or self.is_kept(uid)

    def is_same(self, uid: str, size: int | None, crc32c: int) -> bool:
        """Whether the instance `uid` has these bytes, or was made from them by transcoding."""
        return any(
            known_crc32c == crc32c and (size is None or known_size is None or size == known_size)
            for known_size, known_crc32c in self.fingerprints(uid)
        )

    def has_to_be_read(self, uid: str, size: int | None) -> bool:
        """Whether only the bytes of a stored instance tell if they are the same: old versions left its checksum out."""
        if uid in self.additions or not self.is_kept(uid):
            return False
        entry = self.stored.entries[uid]
        return entry.crc32c is None and size in (None, entry.size)

    def fingerprints(self, uid: str) -> list[Fingerprint]:
        """Of the bytes of an instance that is held, and of the file that it was transcoded from."""
        addition = self.additions.get(uid)
        if addition is not None:
            return [(addition.new.size, addition.new.crc32c)]
        if not self.is_kept(uid):
            return []
        entry = self.stored.entries[uid]
        return [(entry.size, entry.crc32c), *original_fingerprints(self.stored, uid)]

    def remove(self, uid: str) -> None:
        """Take an instance away. Raises InstanceNotFound."""
        if not self.holds(uid):
            raise InstanceNotFound(f"{self.stored.key} holds no instance {uid}")
        if uid in self.additions:
            del self.additions[uid]
        else:
            self.removals.add(uid)
        self.conflicts.pop(uid, None)

    def note_conflict(self, uid: str, path: str) -> None:
        paths = self.conflicts.setdefault(uid, [])
        if path not in paths:
            paths.append(path)

    def changes(self) -> list[Change]:
        """All of it as one change; and the conflicts of instances that are new as a second, which touches no tar."""
        at_stored = {uid: tuple(paths) for uid, paths in self.conflicts.items() if uid not in self.additions}
        at_new = {uid: tuple(paths) for uid, paths in self.conflicts.items() if uid in self.additions}
        whole = Change(
            add=self._in_order(),
            remove=frozenset(() if self.is_rewrite else self.removals),
            is_rewrite=self.is_rewrite,
            conflicts=at_stored,
            fields=self._fields(),
            is_deid=self.is_deid,
        )
        return [whole, Change(conflicts=at_new)] if at_new else [whole]

    def _in_order(self) -> tuple[NewInstance, ...]:
        """As an ingest stores them, so that scrolling reads forward; whatever their UIDs have become."""
        by_uid = {each.described.instance_uid: each.new for each in self.additions.values()}
        return tuple(by_uid[each.instance_uid] for each in in_order(each.described for each in self.additions.values()))

    def _fields(self) -> Mapping[str, msgspec.Raw | None]:
        """Those that were set; and what is remembered of transcoded instances goes with them."""
        originals = _originals(self.stored)
        left = {uid: value for uid, value in originals.items() if self.is_kept(uid)}
        if len(left) == len(originals):
            return self.fields
        return {**self.fields, ORIGINALS_FIELD: msgspec.Raw(msgspec.json.encode(left)) if left else None}


def original_fingerprints(stored: StoredSeries, uid: str) -> list[Fingerprint]:
    """Of the file that a stored instance was transcoded from, if it was."""
    original = originals_of(stored).get(uid)
    return [original.identity] if original is not None and original.identity is not None else []


def _originals(stored: StoredSeries) -> dict[str, msgspec.Raw]:
    raw = None if stored.document is None else stored.document.custom.get(ORIGINALS_FIELD)
    try:
        return {} if raw is None else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
