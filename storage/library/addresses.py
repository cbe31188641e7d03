"""Single files by their address: an object of a bucket, or a file of a disk."""

import re
from urllib.parse import unquote, urlsplit

from storage.bucket import BucketOptions
from storage.errors import ObjectNotFound
from storage.ingest.sources.background import background
from storage.ingest.sources.objects import ObjectPlace
from storage.ingest.sources.place import Place

NO_ADDRESS = "is no address that can be read; s3://bucket/key, gs://bucket/key and file:///path are"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET_SCHEMES = ("s3", "gs")
_NESTED = re.compile(r"\.(?:tar|zip)(?:\.gz)?://")


def is_remote(source: object) -> bool:
    """Whether a source is the address of something that others can reach too."""
    scheme = _SCHEME.match(source) if isinstance(source, str) else None
    return scheme is not None and scheme[1].lower() != "file"


def is_nested(source: str) -> bool:
    """Whether an address names something inside an archive, `….tar://member` or `….zip://member`."""
    return _NESTED.search(source) is not None


def split(url: str) -> tuple[str, str]:
    """The address of the bucket of an object, as `open_bucket` takes it, and the object's key there.

    The whole bucket, whatever folder the object is in: who reads keeps each bucket open, and folders are many.

    Raises:
        ValueError: the address of a bucket, not of an object, or of another sort altogether.
    """
    scheme = _SCHEME.match(url)
    assert scheme is not None  # `is_remote`
    if scheme[1].lower() not in _BUCKET_SCHEMES:
        raise ValueError(f"{scheme[0]} {NO_ADDRESS}")
    bucket, _, key = url[scheme.end() :].partition("/")
    if not bucket or not key or key.endswith("/"):
        raise ValueError(f"{url} names no object")
    return url[: scheme.end()] + bucket, key


def object_place(url: str, options: BucketOptions) -> Place:
    """The object at an address; one request. Blocks, so it is called in a thread.

    Raises:
        ValueError: the address cannot be read.
        ObjectNotFound: nothing is stored there.
        StorageUnavailable: the bucket does not answer.
    """
    root, key = split(url)
    loop = background()
    bucket = loop.bucket(root, options)
    try:
        info = loop.run(bucket.head(key))
    except ObjectNotFound as error:
        raise ObjectNotFound(f"{url}: nothing is stored there; the address of a folder ends with /") from error
    shown = key.rpartition("/")[2]
    return ObjectPlace(root, options, key, info.version, info.size, shown, 0, info.size, mtime=info.updated)


def local_path(source: str) -> str:
    """The path of a file on this machine, from a path or `file://`. Raises ValueError: an address of another sort."""
    scheme = _SCHEME.match(source)
    if scheme is None:
        return source
    parts = urlsplit(source)
    if scheme[1].lower() != "file" or parts.netloc not in ("", "localhost"):
        raise ValueError(f"{scheme[0]} {NO_ADDRESS}")
    return unquote(parts.path)
