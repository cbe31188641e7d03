"""Cloud Optimized DICOM over byte ranges: buckets, COD series, series indexes, catalogue, archive. Knows no HTTP.

What scripts and notebooks need stands here, and is loaded when it is first asked for: see `storage.library`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.bucket.options import BucketOptions, GcsOptions, S3Options
    from storage.errors import StorageError
    from storage.library import (
        AppendResult,
        DependencyReport,
        Fate,
        Hints,
        Instance,
        NewFile,
        Series,
        open_series,
    )

_HOMES = {
    "AppendResult": "storage.library",
    "BucketOptions": "storage.bucket.options",
    "DependencyReport": "storage.library",
    "Fate": "storage.library",
    "GcsOptions": "storage.bucket.options",
    "Hints": "storage.library",
    "Instance": "storage.library",
    "NewFile": "storage.library",
    "S3Options": "storage.bucket.options",
    "Series": "storage.library",
    "StorageError": "storage.errors",
    "open_series": "storage.library",
}

__all__ = [
    "AppendResult",
    "BucketOptions",
    "DependencyReport",
    "Fate",
    "GcsOptions",
    "Hints",
    "Instance",
    "NewFile",
    "S3Options",
    "Series",
    "StorageError",
    "open_series",
]


def __getattr__(name: str) -> object:
    """Source: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
