"""What attacks on a running server have found: each test here was a way to stop it or to fill its memory."""

import asyncio
import gc
import gzip
from collections.abc import AsyncIterator
from itertools import count

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.responses import streamed
from storage.cod.metadata import parse_series_metadata
from storage.errors import CorruptSeries
from storage.keys import SeriesKey

LIMIT_CHUNKS = 100_000


async def test_a_stream_that_never_waits_ends_when_its_client_has_gone() -> None:
    """A terabyte of holes, and a client that left: the loop goes on, and the rest is not read."""
    taken = count(1)
    last = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal last
        while last < LIMIT_CHUNKS:
            last = next(taken)
            yield b"\0"

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """As uvicorn's after a disconnect: it takes everything, and never waits."""

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "GET", "path": "/", "headers": [],
        "query_string": b"",
    }  # fmt: skip
    answer = await streamed(Request(scope), chunks(), {}, None)
    async with asyncio.timeout(5):
        await answer(scope, receive, send)
    assert last < 100


def test_the_error_of_a_bomb_does_not_keep_what_it_unpacked() -> None:
    """While an error lives so do the variables of its frames: hundreds of megabytes for each request."""
    bomb = gzip.compress(b" " * (64 << 20))
    with pytest.raises(CorruptSeries, match="unpacks to more than") as failure:
        parse_series_metadata(bomb, SeriesKey("1.2", "1.2.3"))
    gc.collect()
    held = 0
    trace = failure.value.__traceback__
    while trace is not None:
        lists = [value for value in trace.tb_frame.f_locals.values() if isinstance(value, list)]
        held += sum(len(item) for each in lists for item in each if isinstance(item, bytes))
        trace = trace.tb_next
    assert held == 0
