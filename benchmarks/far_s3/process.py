"""The far bucket in a process of its own, so that it costs the measured ones nothing but a core."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import msgspec

from benchmarks.far_s3.distance import Distance
from benchmarks.far_s3.server import CONTROL, Counts

STOP_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class FarStore:
    """A far bucket that listens."""

    endpoint: str
    bucket: str
    pid: int

    def counts(self) -> Counts:
        """What it has counted."""
        with urlopen(f"{self.endpoint}/{CONTROL}", timeout=STOP_TIMEOUT_SECONDS) as answer:
            return msgspec.json.decode(answer.read(), type=Counts)

    def count_anew(self) -> None:
        """Begin counting."""
        request = Request(f"{self.endpoint}/{CONTROL}", method="DELETE")
        with urlopen(request, timeout=STOP_TIMEOUT_SECONDS):
            pass


@contextmanager
def far_store(folder: Path, distance: Distance, *, bucket: str = "bench") -> Iterator[FarStore]:
    """Serve `folder` until the block ends. Raises RuntimeError: it did not start."""
    rate = 0.0 if distance.bytes_per_second == float("inf") else distance.bytes_per_second / 1e6
    command = [sys.executable, "-m", "benchmarks.far_s3", str(folder), "--bucket", bucket]
    for name, value in (
        ("latency", distance.latency_seconds),
        ("megabytes", rate),
        ("jitter", distance.jitter),
        ("tail", distance.tail_probability),
        ("tail-factor", distance.tail_factor),
        ("seed", distance.seed),
    ):
        command += [f"--{name}", str(value)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise RuntimeError("the far bucket did not start")
        yield FarStore(endpoint, bucket, process.pid)
    finally:
        process.terminate()
        process.stdin.close()
        process.wait(STOP_TIMEOUT_SECONDS)
        process.stdout.close()
