"""The reading face of a datastore: series, instances, frames, metadata, searches. All that routes know.

archive.py    Archive: opens everything, and is asked for everything
proof.py      from a UID to bytes that are certainly that instance's
frames.py     instances.py     metadata.py     bulkdata.py     search.py
"""

from storage.archive.archive import Archive

__all__ = ["Archive"]
