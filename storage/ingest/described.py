"""A description on its way from the process that made it: pickled once, and what the plan asks for beside it."""

import copyreg
import pickle
from dataclasses import dataclass
from typing import Any

from storage.cod.entry_parts import OffsetTable
from storage.ingest.describe import Description
from storage.ingest.sources.files import FilePlace, FileState
from storage.keys import SeriesKey


def _by_fields(value: Any) -> tuple[Any, ...]:  # Any: whatever its fields are
    kind = type(value)
    return kind, tuple(getattr(value, name) for name in kind.__slots__)


@dataclass(frozen=True, slots=True)
class Described:
    """One file that could be described."""

    series: SeriesKey
    instance_uid: str
    size: int
    crc32c: int
    pickled: bytes
    """The description."""

    @classmethod
    def of(cls, description: Description) -> "Described":
        return cls(
            description.series,
            description.instance_uid,
            description.size,
            description.crc32c,
            pickle.dumps(description, protocol=pickle.HIGHEST_PROTOCOL),
        )


for _kind in (Described, Description, FilePlace, FileState, OffsetTable, SeriesKey):
    # What dataclasses do by themselves takes 60 µs for a description, there and back again for every file.
    copyreg.pickle(_kind, _by_fields)
