"""Single reads: equal ones that are in flight together are one request."""

import asyncio

from storage.bucket import Bucket
from storage.bucket.base import ObjectBytes
from storage.ranges import ByteRange

_Name = tuple[str, str, int, int]


class _Shared:
    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[ObjectBytes]) -> None:
        self.task = task
        self.waiters = 0


class SharedReads:
    """Reads ranges of a bucket; a failure is everyone's who waited, and is forgotten."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._reads: dict[_Name, _Shared] = {}

    async def read(self, key: str, range: ByteRange, version: str) -> ObjectBytes:
        """As `Bucket.read`. One caller's cancellation harms no other; that of the last one cancels the request."""
        name = (key, version, range.start, range.stop)
        shared = self._reads.get(name)
        if shared is None:
            shared = _Shared(asyncio.create_task(self._bucket.read(key, range, version=version)))
            self._reads[name] = shared
        shared.waiters += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiters -= 1
            if self._reads.get(name) is shared and (shared.task.done() or shared.waiters == 0):
                del self._reads[name]
            if shared.waiters == 0 and not shared.task.cancel() and not shared.task.cancelled():
                shared.task.exception()  # looked at, so that nobody is told that it never was
