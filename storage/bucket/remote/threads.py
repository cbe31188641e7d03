"""Blocking requests of a client, each in a thread: what was begun to change the store is never left behind.

A thread cannot be cancelled. If its request were repeated meanwhile, the first one could land after the second, or
after a later write of somebody else.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.bucket.options import Patience
from storage.bucket.remote.finish import to_the_end
from storage.bucket.remote.in_flight import uploads_of

PARTS_IN_FLIGHT = 3
"""Requests of one upload at once; all of them may be in threads."""

Result = TypeVar("Result")


def threads_of(patience: Patience) -> int:
    """One for each request that may be in flight: none waits in a queue while its time runs."""
    return patience.requests + uploads_of(patience.requests) * PARTS_IN_FLIGHT


class Threads:
    """A thread for each request, made when it is needed."""

    def __init__(self, name: str, patience: Patience) -> None:
        self._pool = ThreadPoolExecutor(threads_of(patience), thread_name_prefix=name)

    async def run(self, call: Callable[[], Result], *, changes: bool) -> Result:
        """The result of `call`.

        Args:
            changes: it changes the store: a time-out or a cancellation is raised only when the thread has ended, which
                the client's own time-outs see to. What was not begun is never begun then.
        """
        future = self._pool.submit(call)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel() and changes:
                await to_the_end(asyncio.wait([waiting]))
            raise
        finally:
            waiting.add_done_callback(_heard)

    def close(self) -> None:
        """What a cancelled read left running ends by its own time-outs."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _heard(waiting: "asyncio.Future[Result]") -> None:
    """A failure that came after everybody had left is no news to the event loop."""
    if not waiting.cancelled():
        waiting.exception()
