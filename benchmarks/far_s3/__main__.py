"""Serves a folder as an S3 bucket that is far away: `python -m benchmarks.far_s3 FOLDER`.

Prints the address when it listens, and ends when its standard input ends or it is told to (SIGTERM, Ctrl-C).
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from benchmarks.far_s3.distance import Distance
from benchmarks.far_s3.server import FarS3

HOST = "127.0.0.1"


def main() -> int:
    """The command."""
    options = _options()
    rate = options.megabytes * 1e6 if options.megabytes else float("inf")
    distance = Distance(options.latency, rate, options.jitter, options.tail, options.tail_factor, options.seed)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(FarS3(options.folder, options.bucket, distance), options.port))
    return 0


async def _serve(store: FarS3, port: int) -> None:
    server = await store.listen(HOST, port)
    print(f"http://{HOST}:{server.sockets[0].getsockname()[1]}", flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if not sys.stdin.isatty():
        loop.run_in_executor(None, _wait_for_the_end, loop, stopped)
    await stopped.wait()
    server.close()


def _wait_for_the_end(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(stopped.set)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.far_s3",
        description="Serve a folder as an S3 bucket that is far away (unsigned requests, path style).",
        epilog="Counters: GET /_far; DELETE /_far counts anew.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bucket", default="bench", help="name of the bucket (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (%(default)s)")
    parser.add_argument("--megabytes", type=float, default=100, help="per second and stream; 0: no limit (%(default)s)")
    parser.add_argument("--jitter", type=float, default=0.0, help="part of the latency, either way (%(default)s)")
    parser.add_argument("--tail", type=float, default=0.0, help="how many requests, of 1, are slow (%(default)s)")
    parser.add_argument("--tail-factor", type=float, default=10.0, help="and how many times slower (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
