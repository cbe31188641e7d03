"""What an instance alone decides of its entry in metadata.json, before its place in the tar is known."""

import threading
from dataclasses import dataclass

import zstandard

from storage.keys import SeriesKey

ZSTD_LEVEL = 3
"""The published library's level. Its reader needs the content size in the frame header, which `compress` writes."""


@dataclass(frozen=True, slots=True)
class OffsetTable:
    """Where the frames of one instance lie, from the first byte of its P10: payloads, without item headers."""

    positions: tuple[int, ...]
    lengths: tuple[int, ...]


def instance_uri(datastore_url: str, series: SeriesKey, instance_uid: str) -> str:
    """The `uri` of an instance: its tar, `://`, its member. A claim for others; we never read by it."""
    return f"{datastore_url.rstrip('/')}/{series.tar}://instances/{instance_uid}.dcm"


def compress_attributes(attributes_json: bytes) -> bytes:
    """The DICOM JSON of one instance as one zstd frame that states its content size."""
    compressor: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True)
    return compressor.compress(attributes_json)


_local = threading.local()
"""A compressor serves one thread, and making one takes longer than compressing with it."""
