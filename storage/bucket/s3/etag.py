"""ETags as versions. In an answer a tag is quoted; a version is the text between the quotes.

A tag is the MD5 of a body, or of the MD5s of its parts with their number: other bytes have another tag, the same bytes
written again may have the same one (RFC 9110 §8.8.3; Amazon S3 User Guide, "Checking object integrity").
"""

from storage.errors import StorageUnavailable


def version_of(e_tag: str | None) -> str:
    """Raises StorageUnavailable: without a tag two reads of one object could be mixed."""
    tag = (e_tag or "").removeprefix("W/").strip('"')
    if not tag:
        raise StorageUnavailable("the S3 service names no ETag: reads of one object could not be told apart")
    return tag


def quoted(version: str) -> str:
    return f'"{version}"'
