"""The reading face of a datastore: series, instances, frames, metadata, searches. All that routes know.

archive.py    Archive: opens everything, and is asked for everything
proof.py      from a UID to bytes that are certainly that instance's
frames.py     instances.py     metadata.py     bulkdata.py     search.py

Settings need values from here and no archive, so that is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.archive.archive import Archive

__all__ = ["Archive"]


def __getattr__(name: str) -> object:
    """Source: PEP 562."""
    if name != "Archive":
        raise AttributeError(f"module 'storage.archive' has no attribute {name!r}")
    from storage.archive.archive import Archive

    return Archive
