"""Which texts are keys: the same in every bucket, so that what one keeps another can keep too.

Stricter than S3 and GCS are: a key must also be a safe relative path, because a folder is a bucket.
"""

import re

MAX_KEY_BYTES = 1024
"""UTF-8 bytes of a key: the limit of S3 and GCS."""

RESERVED_PREFIX = ".codweb-tmp-"
"""How the names of unfinished writes begin. No key has such a segment, so no listing and no read ever meets one."""

_SEGMENT = rf"(?!\.\.?(?:/|\Z))(?!{re.escape(RESERVED_PREFIX)})[^/\\\x00-\x1f\x7f]+"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_PREFIX = re.compile(rf"(?:{_SEGMENT}/)*[^/\\\x00-\x1f\x7f]*")


def is_key(text: str) -> bool:
    """Whether `text` can name an object: no empty, `.` or `..` segment, no control character, at most 1024 bytes."""
    return _KEY.fullmatch(text) is not None and _fits(text)


def check_key(key: str) -> None:
    """Raise ValueError unless `key` can name an object."""
    if not is_key(key):
        raise ValueError(f"not a key of a bucket: {key[:80]!r}")


def check_prefix(prefix: str) -> None:
    """Raise ValueError unless some key could start with `prefix`; its last segment may be empty or cut anywhere."""
    if _PREFIX.fullmatch(prefix) is None or not _fits(prefix):
        raise ValueError(f"not the beginning of a key of a bucket: {prefix[:80]!r}")


def _fits(text: str) -> bool:
    if text.isascii():
        return len(text) <= MAX_KEY_BYTES
    try:
        return len(text.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:  # lone surrogates: a file name that is not UTF-8
        return False
