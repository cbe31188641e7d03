"""A series index in the making: instances in any order, JSON spooled, then written in the order of the answers."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from storage.attributes import json_object, parse_object, ui_value
from storage.bucket import ObjectInfo
from storage.deid import UidMap
from storage.instance_rows import instance_number, instance_row, shared_attributes, sop_classes
from storage.keys import SeriesKey
from storage.levels import INSTANCE_TAGS, KEPT_TAGS
from storage.ranges import ByteRange
from storage.series_index.layout import Depth, Hint
from storage.series_index.writer import IndexedInstance, IndexWriter
from storage.spool import Spool


@dataclass(frozen=True, slots=True)
class SeriesVersions:
    """The pair of objects an index is built for."""

    metadata: str
    tar: ObjectInfo | None
    """None: the bucket holds no tar of this series."""


class DraftInstance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One instance as a build has found it."""

    uid: str
    place: ByteRange
    crc32c: int | None
    transfer_syntax_uid: str | None
    kept: dict[int, bytes]
    json_place: tuple[int, int] | None
    """In the spool; None: only a deep build can tell its metadata."""
    locator: bytes | None = None
    hint: Hint | None = None
    problem: str | None = None


class Draft:
    """Collects the instances of one series and writes the file."""

    def __init__(self, key: SeriesKey, spool: Spool, *, root: str, uid_map: UidMap | None) -> None:
        self.key = key
        self.spool = spool
        self.root = root
        self.uid_map = uid_map
        self.instances: list[DraftInstance] = []

    def add(self, instance: DraftInstance) -> None:
        self.instances.append(instance)

    def bulkdata_base(self, instance_uid: str) -> str:
        """What precedes the attribute path in the links of an instance."""
        return f"{self.root}/{self.key.stem}/instances/{instance_uid}/bulkdata"

    def disclosed(self, text: bytes, kept: dict[int, bytes]) -> tuple[bytes, dict[int, bytes]]:
        """The attributes as they may be given out: in a de-identified store without any original UID."""
        if self.uid_map is None:
            return text, kept
        text = self.uid_map.redact(text)
        return text, kept_of(text)

    def bare_json(self, instance_uid: str) -> bytes:
        """The attributes of an instance of which nothing but its place in the hierarchy is readable."""
        return json_object(
            {
                0x00080018: ui_value(instance_uid),
                0x0020000D: ui_value(self.key.study_uid),
                0x0020000E: ui_value(self.key.series_uid),
            }
        )

    def write(self, path: Path, versions: SeriesVersions, depth: Depth) -> None:
        """Write the index, instances ordered by InstanceNumber, then UID (PS3.18 §8.3.4.4: a stable order)."""
        kepts = [instance.kept for instance in self.instances]
        writer = IndexWriter(
            path,
            self.key,
            metadata_version=versions.metadata,
            tar_version=versions.tar.version if versions.tar is not None else None,
            depth=depth,
            root=self.root,
            is_deid=self.uid_map is not None,
        )
        try:
            for instance in sorted(self.instances, key=lambda each: (instance_number(each.kept), each.uid)):
                place = instance.json_place
                writer.add(self._indexed(instance), None if place is None else self.spool.get(place))
            writer.finish(
                shared=json_object(shared_attributes(kepts, self.key)),
                sop_classes=sop_classes(kepts),
            )
        finally:
            writer.discard()

    def _indexed(self, instance: DraftInstance) -> IndexedInstance:
        return IndexedInstance(
            uid=instance.uid,
            start=instance.place.start,
            size=instance.place.length,
            crc32c=instance.crc32c,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            row=instance_row(self.key, instance.uid, instance.kept, instance.transfer_syntax_uid),
            kept=json_object(instance.kept, INSTANCE_TAGS),
            locator=instance.locator,
            hint=instance.hint,
            problem=instance.problem,
        )


def kept_of(attributes: bytes) -> dict[int, bytes]:
    """The attributes that derived rows keep, out of a DICOM JSON object."""
    return {tag: value for tag, value in parse_object(attributes).items() if tag in KEPT_TAGS}
