"""One instance of a series, as a person looks at it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zstandard

from storage.cod.entry import Entry
from storage.writing import NewInstance

TRANSFER_SYNTAX_UID = "00020010"
"""metadata.json keeps the file meta information beside the data set."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance, stored or about to be."""

    uid: str
    """Its key: the SOP Instance UID, or its hash in a store of hashed UIDs."""
    size: int
    """Bytes of the P10."""
    crc32c: int | None
    """Of the P10; None if metadata.json does not state one."""
    has_pixeldata: bool | None
    is_stored: bool
    """False: appended in this session and not committed yet."""
    original_path: str
    """Where it came from; empty if unknown."""
    dependencies: tuple[str, ...]
    _attributes_json: Callable[[], bytes] = field(repr=False, compare=False)

    @property
    def transfer_syntax_uid(self) -> str | None:
        """Of the stored bytes; None if metadata.json does not say. Raises InstanceUnreadable."""
        element = self.metadata().get(TRANSFER_SYNTAX_UID)
        values = element.get("Value") if isinstance(element, dict) else None
        return str(values[0]) if values else None

    def metadata(self) -> dict[str, Any]:  # DICOM JSON
        """Its DICOM JSON as metadata.json has it, file meta information included. Raises InstanceUnreadable."""
        attributes: dict[str, Any] = json.loads(self._attributes_json())  # as above
        return attributes

    @classmethod
    def stored(cls, entry: Entry) -> "Instance":
        """An instance of metadata.json. Raises InstanceUnreadable: the entry makes no sense."""
        return cls(
            uid=entry.instance_uid_key,
            size=entry.size,
            crc32c=entry.crc32c,
            has_pixeldata=entry.has_pixeldata,
            is_stored=True,
            original_path=_text(entry, "original_path"),
            dependencies=stored_dependencies(entry),
            _attributes_json=entry.attributes_json,
        )

    @classmethod
    def pending(cls, new: NewInstance) -> "Instance":
        """One that was appended and is not stored yet."""
        return cls(
            uid=new.instance_uid,
            size=new.size,
            crc32c=new.crc32c,
            has_pixeldata=new.has_pixeldata,
            is_stored=False,
            original_path=new.original_path,
            dependencies=new.dependencies,
            _attributes_json=lambda: zstandard.decompress(new.metadata),
        )


def stored_dependencies(entry: Entry) -> tuple[str, ...]:
    """The `dependencies` of an entry; none where they are of no readable shape."""
    try:
        return msgspec.convert(_field(entry, "dependencies"), tuple[str, ...])
    except msgspec.ValidationError:
        return ()


def _text(entry: Entry, name: str) -> str:
    value = _field(entry, name)
    return value if isinstance(value, str) else ""


def _field(entry: Entry, name: str) -> object:
    try:
        raw = msgspec.json.decode(entry.stored, type=dict[str, msgspec.Raw]).get(name)
        return None if raw is None else json.loads(bytes(raw))  # lone surrogates of odd file names pass
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
