"""What an object is, in the words of HTTP: stores on the network keep them beside the bytes and repeat them to everyone.

Not decoration: the published COD library reads metadata.json from Cloud Storage as text, and gets text only where the
object says that it is compressed. Source: cod_object.py of cloud-optimized-dicom 2.2.0 (`_gzip_and_upload_metadata`).
"""

from dataclasses import dataclass

GZIP = b"\x1f\x8b"
_MEDIA_TYPES = {
    ".tar": "application/x-tar",
    ".json": "application/json",
    ".lock": "application/json",
    ".sqlite": "application/vnd.sqlite3",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
}
"""By the end of the key; those that the published library writes."""


@dataclass(frozen=True, slots=True)
class Content:
    """Content-Type and Content-Encoding of an object."""

    media_type: str
    coding: str
    """`gzip`, or empty."""


def content_of(key: str, beginning: bytes | bytearray | memoryview) -> Content:
    """What an object of this key is that begins so: JSON may be compressed, everything else is what its name says."""
    media_type = next((kind for end, kind in _MEDIA_TYPES.items() if key.endswith(end)), "application/octet-stream")
    is_packed = media_type == "application/json" and bytes(beginning[:2]) == GZIP
    return Content(media_type, "gzip" if is_packed else "")
