"""Describing many files at once: processes for many, a thread for few."""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple

from storage.child_process import end_with_the_parent, interrupts_blocked
from storage.ingest.described import Described
from storage.ingest.describing import Unusable, describe_all
from storage.ingest.sources import Place

MIN_POOL_FILES = 1000
"""From so many files on, processes pay: starting one takes as long as describing some three hundred files."""

BATCH_FILES = 32
BATCH_BYTES = 32 << 20
"""What one task of the pool is at most: enough to make its overhead small, little enough for a lively progress bar."""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Pool:
    """Where files are described."""

    def __init__(self, files: int, jobs: int | None = None) -> None:
        """Start nothing yet.

        Args:
            files: how many there are, at least.
            jobs: processes at most; None: as many as there are cores.
        """
        self.jobs = jobs or _usable_cores()
        self._executor: Executor
        self._processes: ProcessPoolExecutor | None = None
        if files < MIN_POOL_FILES:
            # One: descriptions hold the interpreter, and what they remember of each other is of one thread.
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest")
        else:
            self._processes = self._executor = ProcessPoolExecutor(
                max_workers=self.jobs,
                mp_context=multiprocessing.get_context("spawn"),  # a fork of a process with threads may hang
                initializer=end_with_the_parent,
            )

    def describe(self, places: Sequence[Place], datastore_url: str) -> "asyncio.Future[list[Described | Unusable]]":
        """Begin to describe files; the answer is in their order, or `BrokenProcessPool`: a process died of them."""
        return self.run(describe_all, places, datastore_url)

    def run(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> "asyncio.Future[Result]":
        """Begin some other work."""
        with interrupts_blocked(), _main_left_out():
            return asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def close(self) -> None:
        """Stop what is under way; nobody waits for it any more."""
        workers = [] if self._processes is None else [*(self._processes._processes or {}).values()]
        self._executor.shutdown(wait=False, cancel_futures=True)
        for worker in workers:  # or the interpreter would wait for them when it exits
            worker.terminate()


@contextmanager
def _main_left_out() -> Iterator[None]:
    """A process that is started now does not import the program again: the command line alone takes two seconds."""
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    kept = {name: vars(main)[name] for name in names if name in vars(main)}
    vars(main).update(dict.fromkeys(kept))
    try:
        yield
    finally:
        vars(main).update(kept)


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
