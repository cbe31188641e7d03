"""Requests in threads: none that may still land is overtaken by its own repeat."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from storage.bucket.options import Patience
from storage.bucket.remote.finish import to_the_end
from storage.bucket.remote.threads import Threads, threads_of
from storage.errors import TryAgain


class Held:
    """A call that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = False

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(10)
        self.has_ended = True
        return "done"

    async def wait_until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 10)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads("test", Patience(requests=1))
    yield threads
    threads.close()


async def test_a_change_that_times_out_is_over_when_the_time_out_is_told(threads: Threads) -> None:
    held = Held()
    asyncio.get_running_loop().call_later(0.1, held.may_end.set)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await threads.run(held, changes=True)

    assert held.has_ended


async def test_a_change_that_is_cancelled_twice_is_over_when_the_cancellation_is_told(threads: Threads) -> None:
    held = Held()
    run = asyncio.create_task(threads.run(held, changes=True))
    await held.wait_until_begun()

    for _ in range(2):
        run.cancel()
        await asyncio.sleep(0.01)
        assert not run.done()
    held.may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await run
    assert held.has_ended


async def test_what_only_asks_is_left_at_once(threads: Threads) -> None:
    held = Held()
    run = asyncio.create_task(threads.run(held, changes=False))
    await held.wait_until_begun()

    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert not held.has_ended
    held.may_end.set()


async def test_a_change_that_waits_for_a_thread_is_never_begun_once_it_is_cancelled(threads: Threads) -> None:
    patience = Patience(requests=1)
    busy = [Held() for _ in range(threads_of(patience))]
    runs = [asyncio.create_task(threads.run(held, changes=True)) for held in busy]
    for held in busy:
        await held.wait_until_begun()
    late = Held()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await threads.run(late, changes=True)
    for held in busy:
        held.may_end.set()

    assert await asyncio.gather(*runs) == ["done"] * len(busy)
    assert not late.begun.is_set()


async def test_as_many_requests_as_may_be_in_flight_need_not_wait_for_a_thread() -> None:
    patience = Patience(requests=20)
    threads = Threads("test", patience)
    held = [Held() for _ in range(patience.requests)]

    runs = [asyncio.create_task(threads.run(each, changes=True)) for each in held]

    for each in held:
        await each.wait_until_begun()
    for each in held:
        each.may_end.set()
    await asyncio.gather(*runs)
    threads.close()


async def test_results_and_errors_are_those_of_the_call(threads: Threads) -> None:
    def fail() -> None:
        raise TryAgain("no answer")

    assert await threads.run(lambda: 7, changes=True) == 7
    with pytest.raises(TryAgain, match="no answer"):
        await threads.run(fail, changes=True)
    assert await to_the_end(asyncio.sleep(0, 8)) == 8
