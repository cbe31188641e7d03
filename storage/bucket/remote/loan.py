"""What a stream holds while its consumer works, given back when the consumer takes too long."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from types import TracebackType
from typing import TypeVar

Held = TypeVar("Held")


class Loan:
    """Places and an open answer. Used as a context; at its end everything is given back.

    A generator cannot act while its consumer has the floor: a timer of the event loop does, and a task of this loan
    closes what is held.
    """

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._stack = AsyncExitStack()
        self._giving_back: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Loan":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._giving_back is None:
            await self._stack.__aexit__(kind, error, trace)
        else:
            await asyncio.gather(self._giving_back, return_exceptions=True)

    @property
    def is_given_back(self) -> bool:
        """Nothing may be read of what was held any more."""
        return self._giving_back is not None

    async def enter(self, context: AbstractAsyncContextManager[Held]) -> Held:
        """Hold one thing more."""
        return await self._stack.enter_async_context(context)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """The consumer has the floor; if it keeps it too long, everything is given back."""
        timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._give_back)
        try:
            yield
        finally:
            timer.cancel()

    def _give_back(self) -> None:
        if self._giving_back is None:
            self._giving_back = asyncio.create_task(self._stack.aclose())
