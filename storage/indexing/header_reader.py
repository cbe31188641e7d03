"""Drives a parser over ranges of an object: it says which bytes it lacks, they are fetched, it starts again.

Parsers stay plain functions over a `Window` and are tested without a loop; every restart brings a larger piece, so a
header of n bytes costs O(log n) requests and parses.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from storage.bucket import Bucket
from storage.dicom.p10 import Header
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from storage.ranges import ByteRange

Result = TypeVar("Result")

FIRST_READ_BYTES = 64 * 1024
"""Covers the header of nearly every image; with pixels of a small one behind it."""
_LARGEST_STEP_BYTES = 16 << 20
_MOST_READS = 400
_OFF_LOOP_BYTES = 4 << 20
"""Windows above this are parsed in a thread: below, a parse takes less than the hop."""


async def parse_range(
    bucket: Bucket,
    key: str,
    version: str,
    place: ByteRange,
    parse: Callable[[Window], Result],
    window: Window | None = None,
) -> Result:
    """Run `parse` over the bytes of `place`, fetching what it asks for.

    Args:
        parse: a synchronous parser; its positions count from `place.start`.
        window: what is known already.

    Raises:
        InstanceUnreadable: from the parser, or when it asks for more pieces than any sound file needs.
        ObjectChanged, ObjectTruncated, StorageUnavailable: from the bucket.
    """
    window = window if window is not None else Window(place.length)
    step = FIRST_READ_BYTES
    loaded = 0
    for _ in range(_MOST_READS):
        try:
            if loaded > _OFF_LOOP_BYTES:
                return await asyncio.to_thread(parse, window)
            return parse(window)
        except MissingBytes as missing:
            stop = min(place.length, max(missing.stop, missing.start + step))
            wanted = ByteRange(missing.start, stop).shifted(place.start)
            window.add(missing.start, (await bucket.read(key, wanted, version=version)).data)
            loaded += wanted.length
            step = min(step * 4, _LARGEST_STEP_BYTES)
    raise InstanceUnreadable(f"{key}: the instance at {place.start} asks for more than {_MOST_READS} pieces")


def check_identity(header: Header, original_uid: str) -> None:
    """Raises InstanceUnreadable unless the header is that of the instance it should be."""
    if header.sop_instance_uid != original_uid:  # neither is named: in a de-identified store they are secrets
        raise InstanceUnreadable("the bytes at its place in the tar belong to another instance")
