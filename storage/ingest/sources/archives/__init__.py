"""Archives as sources: tar and zip read in place, compressed tars unpacked once; nothing is written by a member's name.

All of them may be hostile: sizes are bounded, positions proven, and what an archive says of itself is checked before
its bytes count. An archive inside an archive is refused.
"""

from storage.ingest.sources.archives.archive import Archive, archive_places

__all__ = ["Archive", "archive_places"]
