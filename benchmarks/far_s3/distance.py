"""How far away a store is: what each request waits, and how fast its bytes come. Pure; whoever uses it sleeps."""

import random
from collections import Counter
from dataclasses import dataclass

RECEIVE_WINDOW_BYTES = 4 << 20
"""What a connection brings ahead of a slow reader: bandwidth × delay is 3 MB at 100 MB/s and 30 ms."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A store in a cloud, as one client sees it."""

    latency_seconds: float = 0.03
    """From a request to the first byte of its answer."""
    bytes_per_second: float = 100e6
    """Of each stream by itself."""
    jitter: float = 0.0
    """Part of the latency by which a request may wait more or less, evenly: 0.2 is ±20 %."""
    tail_probability: float = 0.0
    """How many requests, of 1, are slow ones."""
    tail_factor: float = 10.0
    """How many times longer a slow one waits."""
    seed: int = 1

    def latency_of(self, name: str) -> float:
        """The wait of a request, in seconds. The same seed and name give the same wait, whoever asks meanwhile."""
        chance = random.Random(f"{self.seed}/{name}")
        wait = self.latency_seconds * (1 + self.jitter * chance.uniform(-1, 1))
        return wait * self.tail_factor if chance.random() < self.tail_probability else wait


HERE = Distance(latency_seconds=0, bytes_per_second=float("inf"))
"""No distance at all."""


class Latencies:
    """The waits of one store's requests: a request that is made again has a chance of its own, as a retry must."""

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self._asked: Counter[str] = Counter()

    def next(self, name: str) -> float:
        """Seconds that the next request of this name waits."""
        if self._distance.latency_seconds == 0:
            return 0.0
        self._asked[name] += 1
        return self._distance.latency_of(f"{name}/{self._asked[name]}")


class Pace:
    """When the bytes of one stream are there.

    Bytes are due at fixed moments and not so long after the ones before: a reader that is busy for a moment finds what
    has arrived meanwhile, up to the receive window, as on a network.
    """

    def __init__(self, bytes_per_second: float, begun: float, window_bytes: int = RECEIVE_WINDOW_BYTES) -> None:
        """`begun`: when the first byte is due, in seconds of any clock that is used throughout."""
        self._bytes_per_second = bytes_per_second
        self._window_seconds = window_bytes / bytes_per_second
        self._due = begun

    def due(self, count: int, now: float) -> float:
        """The moment when the next `count` bytes have come; not before `now` only if they are late."""
        self._due = max(self._due, now - self._window_seconds) + count / self._bytes_per_second
        return self._due
