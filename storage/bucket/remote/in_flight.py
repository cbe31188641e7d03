"""How many requests of one process are in flight at once. Waiting is fair: first come, first served."""

import asyncio


class InFlight:
    """Places for requests, and two narrower gates, so that nobody waits for a place while keeping others from theirs.

    A stream holds a place as long as its consumer takes; a consumer that reads something else meanwhile needs a second
    one. Streams therefore never fill all places. An upload pulls its bytes from whatever its caller reads, often a
    stream of this bucket: it takes no place, only a gate of its own.
    """

    def __init__(self, requests: int) -> None:
        if requests < 1:
            raise ValueError(f"{requests} requests in flight: at least 1 is needed")
        self.places = asyncio.Semaphore(requests)
        self.streams = asyncio.Semaphore(max(1, requests // 2))
        self.uploads = asyncio.Semaphore(max(1, requests // 8))
