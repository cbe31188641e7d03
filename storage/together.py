"""Several reads at once: all finish, or the first failure cancels the others and is raised as itself."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

Result = TypeVar("Result")


async def together(work: Iterable[Coroutine[None, None, Result]]) -> list[Result]:
    """Results in the order given. Raises the first error, not a group: routes map single errors to a status."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
