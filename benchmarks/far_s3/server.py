"""The far bucket's server: takes requests, waits as long as the distance says, sends bytes at the pace of a stream.

`GET /_far` tells what it has counted, `DELETE /_far` counts anew; no bucket has such a name.
"""

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import msgspec

from benchmarks.far_s3.distance import Distance, Latencies, Pace
from benchmarks.far_s3.messages import HEAD_BYTES, Answer, Request, read_request
from benchmarks.far_s3.objects import Objects
from benchmarks.far_s3.service import Service

CONTROL = "_far"
PIECE_BYTES = 256 * 1024
"""Sent at once: 2.6 ms of 100 MB/s."""


class Counts(msgspec.Struct):
    """What was asked since the start, or since it was counted anew."""

    requests: int = 0
    bytes: int = 0
    """Of bodies sent, errors and listings included."""
    busiest: int = 0
    """Most requests at one moment."""
    by_kind: dict[str, int] = msgspec.field(default_factory=dict)
    """Requests by method and by what the key ends with, e.g. `GET .tar`."""


class FarS3:
    """A folder as an S3 bucket that is far away."""

    def __init__(self, folder: Path, bucket: str, distance: Distance) -> None:
        self._objects = Objects(folder)
        self._service = Service(bucket, self._objects)
        self._distance = distance
        self._latencies = Latencies(distance)
        self._counts = Counts()
        self._under_way = 0

    async def listen(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._talk, host, port, limit=HEAD_BYTES, backlog=256)

    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection from its beginning to its end."""
        writer.transport.set_write_buffer_limits(high=PIECE_BYTES)
        try:
            while (request := await read_request(reader, writer)) is not None:
                if request.bucket == CONTROL:
                    writer.write(self._control(request))
                else:
                    await self._reply(request, writer)
        except (ConnectionError, asyncio.CancelledError):  # the client went away, or the server ends
            pass
        finally:
            writer.close()

    def _control(self, request: Request) -> bytes:
        body = msgspec.json.encode(self._counts)
        if request.method == "DELETE":
            self._counts = Counts(busiest=self._under_way)
        return Answer(200, {"Content-Length": str(len(body))}).head() + body

    async def _reply(self, request: Request, writer: StreamWriter) -> None:
        self._under_way += 1
        counts = self._counts
        counts.busiest = max(counts.busiest, self._under_way)
        counts.requests += 1
        kind = _kind(request)
        counts.by_kind[kind] = counts.by_kind.get(kind, 0) + 1
        try:
            latency = self._latencies.next(request.name)
            if latency:
                await asyncio.sleep(latency)
            answer = self._service.answer(request)
            if answer.file is None or request.method == "HEAD":
                body = b"" if request.method == "HEAD" else answer.body
                counts.bytes += len(body)
                writer.write(answer.head() + body)
                await writer.drain()
            else:
                await self._send(answer, answer.file, writer)
        finally:
            self._under_way -= 1

    async def _send(self, answer: Answer, key: str, writer: StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(self._distance.bytes_per_second, loop.time())
        is_paced = self._distance.bytes_per_second != float("inf")
        begun = answer.head()
        with self._objects.open(key) as (descriptor, stored):
            if stored.etag != answer.headers["ETag"]:  # replaced since the head was made
                raise ConnectionAbortedError(key)
            position = answer.start
            while position < answer.stop or begun:
                piece = os.pread(descriptor, min(PIECE_BYTES, answer.stop - position), position)
                if is_paced:
                    now = loop.time()
                    await asyncio.sleep(max(0.0, pace.due(len(piece), now) - now))
                if writer.is_closing():
                    raise ConnectionAbortedError(key)
                writer.write(begun + piece if begun else piece)
                await writer.drain()
                position += len(piece)
                self._counts.bytes += len(piece)
                begun = b""
                if not piece and position < answer.stop:
                    raise ConnectionAbortedError(key)


def _kind(request: Request) -> str:
    if not request.key:
        return "LIST"
    return f"{request.method} {Path(request.key).suffix or request.key.rpartition('/')[2]}"
