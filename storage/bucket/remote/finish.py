"""Work that is finished although who waits for it is cancelled: what must not be left half done on a store."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def to_the_end(work: Awaitable[Result]) -> Result:
    """The result of `work`. A cancellation, or several, is raised when the work has ended, and not before.

    The work needs an end of its own: nothing here bounds it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # told to nobody: the cancellation is
        raise cancelled
    return task.result()
