"""The bytes of the new instances of one series, handed to the tar in their order.

A visit to a thread costs as much as reading several small files, so one visit reads as many as a few mebibytes hold.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

from storage.errors import InstanceUnreadable, StorageUnavailable
from storage.ingest.describe import Description
from storage.ingest.fetching import read_all
from storage.ingest.sources import SourceChanged

AHEAD_BYTES = 4 << 20
"""Files that are held at once: those behind the one that is asked for, as far as they fit."""

LARGE_BYTES = 2 << 20
"""From this size on, a file streams."""

CHUNKS_AT_ONCE = 4
"""Of a large file, each of about a mebibyte."""


class SeriesReader:
    """Reads the files of a series. They are asked for one after the other, and again when an upload begins again."""

    def __init__(self, instances: Sequence[Description]) -> None:
        self._instances = instances
        self._held: dict[int, bytes | InstanceUnreadable] = {}
        self.current: Description | None = None
        """The last one that was asked for: if the upload breaks off because of a file, it is this one."""
        self.reached = 0
        """How many were asked for, so far."""

    async def read(self, position: int) -> AsyncIterator[bytes]:
        """All bytes of one instance. Raises InstanceUnreadable: they cannot be read any more."""
        self.current = self._instances[position]
        self.reached = max(self.reached, position + 1)
        if self.current.size >= LARGE_BYTES:
            async for chunk in _streamed(self.current):
                yield chunk
            return
        held = self._held.pop(position, None)
        if held is None:
            last = self._last_ahead(position)
            self._held = await asyncio.to_thread(_read_ahead, self._instances, range(position, last))
            held = self._held.pop(position)
        if isinstance(held, InstanceUnreadable):
            raise held
        yield held

    def _last_ahead(self, position: int) -> int:
        """The first one behind `position` that does not fit beside it any more."""
        size = 0
        for last in range(position, len(self._instances)):
            each = self._instances[last]
            if each.size >= LARGE_BYTES:
                return last
            size += each.size
            if size > AHEAD_BYTES and last > position:
                return last
        return len(self._instances)


def _read_ahead(instances: Sequence[Description], positions: range) -> dict[int, bytes | InstanceUnreadable]:
    """The files at these positions; runs in a thread."""
    read = read_all([instances[position].place for position in positions])
    return {
        position: data if isinstance(data, bytes) else _unreadable(instances[position], data)
        for position, data in zip(positions, read, strict=True)
    }


async def _streamed(instance: Description) -> AsyncIterator[bytes]:
    """A large file, a few chunks at a time; checksums are the business of whoever takes them."""
    stack = ExitStack()

    def begin() -> Iterator[bytes]:
        return stack.enter_context(instance.place.open()).chunks()

    try:
        chunks = await asyncio.to_thread(begin)
        while taken := await asyncio.to_thread(list, islice(chunks, CHUNKS_AT_ONCE)):
            for chunk in taken:
                yield chunk
    except (SourceChanged, OSError, StorageUnavailable) as error:
        raise _unreadable(instance, error) from error
    finally:
        await asyncio.to_thread(stack.close)


def _unreadable(instance: Description, error: Exception) -> InstanceUnreadable:
    reason = (
        "changed while it was being ingested" if isinstance(error, SourceChanged) else f"can no longer be read: {error}"
    )
    return InstanceUnreadable(f"{instance.place.name} {reason}")
