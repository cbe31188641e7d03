"""Objects by key over byte ranges. `open_bucket` takes an address and returns the bucket that stands behind it."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.bucket.base import Bucket, ObjectBytes, ObjectInfo
from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.errors import StorageUnavailable

__all__ = ["Bucket", "ObjectBytes", "ObjectInfo", "open_bucket"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_in_memory: dict[str, MemoryBucket] = {}
"""Buckets of `memory://name`: one for each name, as long as the process lives."""


def open_bucket(url: str | Path, *, create: bool = False) -> Bucket:
    """Open the bucket at an address.

    Args:
        url: a folder's path, `file:///path` (percent-encoded), or `memory://name`.
        create: make a folder that does not exist yet.

    Raises:
        ValueError: an address that this release does not read.
        StorageUnavailable: the folder does not exist, or cannot be made.
    """
    scheme = None if isinstance(url, Path) else _SCHEME.match(url)
    if scheme is None:
        if not str(url):
            raise ValueError("the address of the datastore is empty: name a folder")
        return _open_folder(Path(url), create=create)
    match scheme[1].lower():
        case "file":
            return _open_folder(_folder_of(str(url)), create=create)
        case "memory":
            name = str(url)[scheme.end() :]
            return _in_memory.setdefault(name, MemoryBucket(name))
        case "s3" | "gs":
            raise ValueError(f"{url}: this release reads folders only; copy or mount the bucket and name that folder")
        case other:
            raise ValueError(f"{other}:// is no address of a datastore; name a folder, as a path or as file:///path")


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise ValueError(f"{url}: a folder is named as file:///absolute/path, with %3F for ? and %23 for #")
    return Path(unquote(parts.path))


def _open_folder(folder: Path, *, create: bool) -> FolderBucket:
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailable(f"the folder {folder} cannot be made: {error.strerror}") from error
    return FolderBucket(folder)
