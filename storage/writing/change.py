"""What shall become of a series: a value, checked against what is stored before anything is touched."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from storage.cod.entry import OriginalUids
from storage.cod.entry_parts import OffsetTable
from storage.errors import InstanceExists, InstanceNotFound
from storage.writing.stored import StoredSeries

RESERVED_FIELDS = frozenset(
    {"study_uid", "series_uid", "deid_study_uid", "deid_series_uid", "cod", "thumbnail", "codweb", "codweb_journal"}
)
"""Top-level members of metadata.json that no user may set."""


@dataclass(frozen=True, slots=True)
class NewInstance:
    """One instance to be stored: everything that its entry says, and how to come by its bytes."""

    instance_uid: str
    """Its key: the SOP Instance UID of the outside world."""
    size: int
    """Bytes of the P10."""
    mtime: float
    """Seconds since the epoch; the tar states it."""
    crc32c: int
    has_pixeldata: bool
    metadata: bytes
    """`storage.cod.entry_parts.compress_attributes` of its DICOM JSON."""
    offset_table: OffsetTable | None
    original_path: str
    read: Callable[[], AsyncIterator[bytes | memoryview]]
    """The P10, `size` bytes from the first to the last, as often as it is asked: an upload may have to begin again."""
    original_uids: OriginalUids | None = None
    """What the P10 says, in a store of hashed UIDs; None: it says what the keys say."""
    dependencies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Correction:
    """What the entry of a stored instance says from now on of the bytes that it has; they stay as they are."""

    metadata: bytes
    """`storage.cod.entry_parts.compress_attributes` of its DICOM JSON."""
    offset_table: OffsetTable | None
    has_pixeldata: bool
    original_uids: OriginalUids


@dataclass(frozen=True, slots=True)
class Change:
    """Instances added and removed, conflicts noted, fields set; what is not named stays as it is."""

    add: tuple[NewInstance, ...] = ()
    """In the order in which they follow in the tar."""
    remove: frozenset[str] = frozenset()
    is_rewrite: bool = False
    """Of what is stored no instance stays: `add` takes its place. Fields of users stay."""
    conflicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By instance UID: paths of files with this UID and other bytes, to be noted at the entry."""
    fields: Mapping[str, msgspec.Raw | None] = field(default_factory=dict)
    """Top-level fields of users to be set, or (None) taken away."""
    corrected: Mapping[str, Correction] = field(default_factory=dict)
    """By instance UID: entries that told something wrong of their instance."""
    closes_gaps: bool = False
    """Zeros between members are left out of the tar: no tar reader goes on behind them."""
    rebuilds_index: bool = False
    """index.sqlite is written anew, of the tar as it is; a change of the tar does so by itself."""
    is_deid: bool = False
    """The keys are hashed UIDs. Counts for a new series only; a stored one says so itself."""
    thumbnail: msgspec.Raw | None = None
    """The `thumbnail` field of metadata.json, if it shall be set."""

    @property
    def touches_tar(self) -> bool:
        return bool(self.add or self.remove or self.is_rewrite or self.closes_gaps)

    def check(self, stored: StoredSeries) -> None:
        """Raises: InstanceExists, InstanceNotFound, ValueError (a reserved field)."""
        stays = frozenset[str]() if self.is_rewrite else stored.entries.keys() - self.remove
        added = [each.instance_uid for each in self.add]
        for instance_uid in added:
            if instance_uid in stays:
                raise InstanceExists(f"instance {instance_uid} of {stored.key} is stored already")
        if len(set(added)) < len(added):
            raise ValueError("one instance is to be added twice")
        for instance_uid in (*self.remove, *self.conflicts, *self.corrected):
            if instance_uid not in stored.entries:
                raise InstanceNotFound(f"{stored.key} holds no instance {instance_uid}")
        for name in self.fields:
            if name in RESERVED_FIELDS:
                raise ValueError(f'the field "{name}" of metadata.json belongs to the format')
