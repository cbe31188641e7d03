"""Requests repeated: exponential backoff with full jitter, and an end that says what was tried.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog (full jitter); RFC 9110 §10.2.3 (Retry-After).
"""

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from storage.bucket.options import Patience
from storage.bucket.remote.clock import Clock
from storage.errors import StorageUnavailable, TryAgain

Result = TypeVar("Result")


class Attempts:
    """Tries as often as `patience` allows. Only `TryAgain` is tried again; everything else is an answer."""

    def __init__(self, patience: Patience, clock: Clock | None = None) -> None:
        self._patience = patience
        self._clock = clock or Clock()

    async def run(self, what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """The result of the first attempt that has one.

        Args:
            what: begins the message of the last failure: a key, or the verb and the key.

        Raises:
            StorageUnavailable: the last attempt failed too; or the store asks to wait longer than we would.
        """
        trial = self.trial(what)
        while True:
            try:
                return await attempt()
            except TryAgain as error:
                await trial.after(error)

    def trial(self, what: str) -> "Trial":
        """For work that goes on where it broke off, instead of from its beginning."""
        return Trial(what, self._patience, self._clock)


class Trial:
    """One piece of work and how often it has failed."""

    __slots__ = ("_began", "_clock", "_failures", "_patience", "_what")

    def __init__(self, what: str, patience: Patience, clock: Clock) -> None:
        self._what = what
        self._patience = patience
        self._clock = clock
        self._began = clock.now()
        self._failures = 0

    def progress(self) -> None:
        """Something arrived: failures are counted anew."""
        self._failures = 0

    async def after(self, error: TryAgain) -> None:
        """Wait until the next attempt. Raises StorageUnavailable, from `error`, if there is none."""
        self._failures += 1
        longest = self._patience.longest_backoff_seconds
        asked = error.after_seconds
        if self._failures >= self._patience.attempts or (asked is not None and asked > longest):
            raise self._given_up(error) from error
        backoff = min(self._patience.backoff_seconds * 2 ** (self._failures - 1), longest)
        await self._clock.sleep((asked or 0) + self._clock.draw() * backoff)

    def _given_up(self, error: TryAgain) -> StorageUnavailable:
        seconds = self._clock.now() - self._began
        times = "1 attempt" if self._failures == 1 else f"{self._failures} attempts"
        failure = StorageUnavailable(f"{self._what}: given up after {times} in {seconds:.1f} s; the last: {error}")
        if error.after_seconds is not None:
            # Who asks us shall wait as long as the store wants us to.
            failure.retry_after_seconds = max(math.ceil(error.after_seconds), failure.retry_after_seconds)
        return failure
