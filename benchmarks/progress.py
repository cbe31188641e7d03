"""How far a long step has come: a bar on a terminal, a line with its seconds in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def progress(name: str, steps: int) -> Iterator[Callable[[], None]]:
    """Yields what is called after each step."""
    begun = perf_counter()
    columns = (TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, refresh_per_second=2, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=steps)
        yield lambda: bar.advance(task)
    print(f"{name}: {perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
