"""The end of a process that has read by obstore: its threads finish before the interpreter is taken down.

A thread of obstore hands its result to the event loop, and lets go of Python's objects a moment later. If that moment
comes while the interpreter ends, the process ends by SIGABRT (19 of 30 exits right after a failed read; with a wait of
10 ms none of 30).
"""

import atexit
import time
from functools import cache

SETTLE_SECONDS = 0.05
"""What the threads get, once, at the exit."""


@cache
def settle_at_exit() -> None:
    """Called by whoever makes a client of obstore; the first call counts."""
    atexit.register(time.sleep, SETTLE_SECONDS)
