"""Where DICOM files come from: folders, archives, DICOMDIRs, buckets. Each file is a `Place` that any process can open.

    with Scratch() as scratch:
        async for place in find_places(["scans", "cd.zip", "s3://bucket/prefix"], refused, skipped, scratch=scratch):
            with place.open() as source:
                ...

What may hold an instance and cannot be read is refused with its reason; what holds none by its nature (a DICOMDIR, a
link in a tar) is skipped, and listed apart.

Who opens places needs no archives and no buckets, so what stands here is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.ingest.sources.find import find_places
    from storage.ingest.sources.open_source import OpenSource, SourceChanged
    from storage.ingest.sources.place import Place, SkippedFile
    from storage.ingest.sources.scratch import Scratch

_HOMES = {
    "OpenSource": "open_source",
    "Place": "place",
    "Scratch": "scratch",
    "SkippedFile": "place",
    "SourceChanged": "open_source",
    "find_places": "find",
}

__all__ = ["OpenSource", "Place", "Scratch", "SkippedFile", "SourceChanged", "find_places"]


def __getattr__(name: str) -> object:
    """Source: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
