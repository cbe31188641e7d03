"""Work in the background stands back while somebody waits: it has the time, and on few cores they share the processor."""

import asyncio
from types import TracebackType

LONGEST_SECONDS = 0.5
"""However many are waiting, each piece of background work gets its turn after this."""


class Courtesy:
    """Counts who waits: `with courtesy:` around an answer that is being made. For one event loop."""

    def __init__(self) -> None:
        self._waiting = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __enter__(self) -> None:
        self._waiting += 1
        self._quiet.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            self._quiet.set()

    async def stand_back(self) -> None:
        """Return when nobody waits, or after `LONGEST_SECONDS`."""
        if self._waiting:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    await self._quiet.wait()
            except TimeoutError:
                pass
