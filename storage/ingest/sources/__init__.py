"""Where DICOM files come from: folders, archives, DICOMDIRs, buckets. Each file is a `Place` that any process can open.

    with Scratch() as scratch:
        async for place in find_places(["scans", "cd.zip", "s3://bucket/prefix"], refused, skipped, scratch=scratch):
            with place.open() as source:
                ...

What may hold an instance and cannot be read is refused with its reason; what holds none by its nature (a DICOMDIR, a
link in a tar) is skipped, and listed apart.
"""

from storage.ingest.sources.find import find_places
from storage.ingest.sources.open_source import OpenSource, SourceChanged
from storage.ingest.sources.place import Place, SkippedFile
from storage.ingest.sources.scratch import Scratch

__all__ = ["OpenSource", "Place", "Scratch", "SkippedFile", "SourceChanged", "find_places"]
