"""Objects by key over byte ranges. `open_bucket` takes an address and returns the bucket that stands behind it."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.bucket.base import Bucket, ObjectBytes, ObjectInfo, Piece, StoredRange
from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.bucket.object_key import is_key
from storage.bucket.options import BucketOptions
from storage.bucket.remote import RemoteBucket
from storage.errors import StorageUnavailable

__all__ = ["Bucket", "BucketOptions", "ObjectBytes", "ObjectInfo", "Piece", "StoredRange", "open_bucket"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")

_DEFAULTS = BucketOptions()

_in_memory: dict[str, MemoryBucket] = {}
"""Buckets of `memory://name`: one for each name, as long as the process lives."""


def open_bucket(url: str | Path, *, create: bool = False, options: BucketOptions = _DEFAULTS) -> Bucket:
    """Open the bucket at an address.

    Args:
        url: a folder's path, `file:///path` (percent-encoded), `s3://bucket/prefix` or `gs://bucket/prefix` (taken
            literally, prefix optional), or `memory://name`.
        create: make a folder that does not exist yet; buckets on the network are never made.
        options: what an address does not say; a folder needs none.

    Raises:
        ValueError: an address that cannot be read.
        StorageUnavailable: the folder does not exist, or cannot be made; no credentials. A bucket on the network is
            not asked for anything yet.
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
        case "s3":
            return _open_s3(*_bucket_and_prefix(str(url), scheme), options)
        case "gs":
            return _open_gcs(*_bucket_and_prefix(str(url), scheme), options)
        case other:
            raise ValueError(
                f"{other}:// is no address of a datastore; name s3://bucket/prefix, gs://bucket/prefix, or a folder,"
                " as a path or as file:///path"
            )


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path.startswith("/"):
        raise ValueError(f"{url}: a folder is named as file:///absolute/path, with %3F for ? and %23 for #")
    return Path(unquote(parts.path))


def _bucket_and_prefix(url: str, scheme: re.Match[str]) -> tuple[str, str]:
    """Messages leave out what stands before an @: it may be a secret."""
    name, _, prefix = url[scheme.end() :].partition("/")
    example = f"{scheme[0]}bucket/prefix"
    if "@" in name:
        raise ValueError(f"an address holds no credentials; write {example}, and see the settings for who asks")
    if "?" in url or "#" in url:
        raise ValueError(f"an address ends with its prefix: {example}; endpoint, region and such are settings")
    if not _BUCKET_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} cannot name a bucket; write {example}")
    prefix = prefix.removesuffix("/")
    if prefix and not is_key(prefix):
        raise ValueError(f"{prefix[:80]!r} cannot be the prefix of a datastore; write {example}")
    return name, prefix


def _open_s3(bucket: str, prefix: str, options: BucketOptions) -> Bucket:
    from storage.bucket.s3 import S3Store  # a folder needs no client of S3: 20 ms and more

    return RemoteBucket(S3Store.open(bucket, prefix, options), options.patience)


def _open_gcs(bucket: str, prefix: str, options: BucketOptions) -> Bucket:
    from storage.bucket.gcs import GcsStore  # nor one of Google's

    return RemoteBucket(GcsStore.open(bucket, prefix, options), options.patience)


def _open_folder(folder: Path, *, create: bool) -> FolderBucket:
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailable(f"the folder {folder} cannot be made: {error.strerror}") from error
    return FolderBucket(folder)
