"""The thumbnail of a stored series: made from the instances in its tar, written under its lock, named in metadata.json.

Of a series with one frame it is `thumbnail.jpg`, else `thumbnail.mp4`, as the published library has them.
"""

import asyncio
from collections.abc import Iterator

import msgspec

from storage.bucket.base import Bucket
from storage.keys import SeriesObject
from storage.pixels.thumbnail import NoThumbnail, make_thumbnail
from storage.ranges import ByteRange
from storage.writing import Change, SeriesWriter

_KINDS = {"jpg": SeriesObject.THUMBNAIL_IMAGE, "mp4": SeriesObject.THUMBNAIL_VIDEO}


async def write_thumbnail(bucket: Bucket, series: SeriesWriter) -> str | None:
    """Make the thumbnail anew and put it beside the series: the picture first, then what says of it.

    Returns:
        Why there is none; None if there is one now, or if no instance has a frame that could be shown.

    Raises:
        StorageUnavailable, SeriesLocked: as a commit does; the series itself is complete.
    """
    stored = series.stored
    tar = stored.tar
    if tar is None:
        return None
    loop = asyncio.get_running_loop()

    def instances() -> Iterator[tuple[str, bytes | memoryview]]:
        """One at a time, read when it is its turn; called from a thread."""
        for uid, entry in stored.entries.items():
            if entry.problem is None:
                reading = bucket.read(tar.key, ByteRange(entry.start, entry.stop), version=tar.version)
                yield uid, asyncio.run_coroutine_threadsafe(reading, loop).result().data

    place = f"{bucket.url.rstrip('/')}/{stored.key.stem}"
    made = await asyncio.to_thread(make_thumbnail, instances(), place)
    if isinstance(made, NoThumbnail):
        return made.reason if any(entry.has_pixeldata for entry in stored.entries.values()) else None
    await bucket.write(stored.key.object_key(_KINDS[made.kind]), made.data)
    await series.commit(Change(thumbnail=msgspec.Raw(made.metadata)))
    for kind, name in _KINDS.items():
        if kind != made.kind:
            await bucket.delete(stored.key.object_key(name))
    return None
