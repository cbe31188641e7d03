"""What a process that codweb starts of itself needs at its birth: deaf to Ctrl+C, and gone when its parent is."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """A process that is started now is deaf to Ctrl+C, from its first line on: its parent acts on it and ends it.

    A terminal sends SIGINT to all processes of a command at once; a child that died of it would look like a failure.
    """
    resource_tracker.ensure_running()  # or multiprocessing would start it with the process, and unblock signals then
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_the_parent() -> None:
    """Called first in a child: when its parent was killed it ends too, at once and whatever it is at."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a child

    def watch() -> None:
        parent.join()  # the end of a pipe that only the parent holds open: works on macOS too
        os._exit(1)

    threading.Thread(target=watch, name="end-with-the-parent", daemon=True).start()
