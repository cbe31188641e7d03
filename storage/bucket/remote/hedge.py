"""The same question asked twice: when the first answer is late, the second one is often sooner.

Source: Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013 (hedged requests).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from storage.errors import TryAgain

Result = TypeVar("Result")

_Attempt = Callable[[], Coroutine[Any, Any, Result]]  # Any: what a coroutine sends and yields is nobody's business


async def hedged(attempt: _Attempt[Result], after_seconds: float, may_ask_again: Callable[[], bool]) -> Result:
    """The first answer of at most two attempts; the other attempt is cancelled and waited for.

    Args:
        after_seconds: when to begin the second, if the first has neither answered nor failed by then.
        may_ask_again: asked at that moment; a hedge must not make a busy store busier.

    Raises:
        TryAgain: every attempt that was begun failed so; the first failure. Any other error at once.
    """
    tasks = [asyncio.create_task(attempt())]
    try:
        await asyncio.wait(tasks, timeout=after_seconds)
        if not tasks[0].done() and may_ask_again():
            tasks.append(asyncio.create_task(attempt()))
        pending = set(tasks)
        failure: TryAgain | None = None
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    return task.result()
                except TryAgain as error:
                    failure = failure or error
        assert failure is not None
        raise failure
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
