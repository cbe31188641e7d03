"""An event loop in a thread of its own, one a process: what lets plain scripts, and notebooks whose loop already runs,
use what is written for asyncio."""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

LOOK_UP_SECONDS = 0.2
"""How late an interrupt may be noticed."""


class EventLoop:
    """The loop and its thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="codweb-library", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[None, None, Result]) -> Result:
        """Wait for a coroutine; raises what it raises.

        An interrupt (Ctrl-C) cancels it and waits until it has ended, so that no lock is left and no change half made.
        """
        tasks: list[asyncio.Task[Result]] = []
        ended: Future[None] = Future()

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set_result(None))

        self._loop.call_soon_threadsafe(begin)
        try:
            _wait(ended)
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # `begin` has run by then: first in, first out
            _wait(ended)
            if not tasks[0].cancelled():
                tasks[0].exception()  # looked at, so that asyncio does not complain of it
            raise
        return tasks[0].result()

    def close(self) -> None:
        """End the thread, at the end of the process."""
        if self.pid == os.getpid() and self._thread.is_alive():  # a fork has the object and not the thread
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _wait(ended: "Future[None]") -> None:
    """Wait, and look up now and then: a signal that comes just before the wait begins does not end it."""
    while True:
        try:
            ended.result(LOOK_UP_SECONDS)
        except TimeoutError:
            continue
        return


_lock = threading.Lock()
_event_loop: EventLoop | None = None


def event_loop() -> EventLoop:
    """The one of this process."""
    global _event_loop
    with _lock:
        if _event_loop is None or _event_loop.pid != os.getpid():
            _event_loop = EventLoop()
            atexit.register(_event_loop.close)
        return _event_loop
