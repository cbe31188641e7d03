"""wrk as the client: written in C, so that it does not limit what it measures (Debian package `wrk`).

A small script gives it the requests in turn; no callback looks at answers, so the number of bytes is compared afterwards.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import HOST, Asked, Times, Unanswered

TIMEOUT_SECONDS = 60
"""Longer than any stretch of asking."""
_HEAD_BYTES = 1500
"""No head of the measured answers is longer."""
_SCRIPT = """
local requests, count, position = {}, 0, 0
function init(arguments)
  local file = io.open(arguments[1], "rb")
  for length in file:lines() do
    count = count + 1
    requests[count] = file:read(tonumber(length))
  end
  file:close()
end
function request()
  position = position % count + 1
  return requests[position]
end
function done(summary, latency)
  local failed = summary.errors
  io.write(string.format("found %d %d %d %d %d %d %d\\n", summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
"""


def version() -> str | None:
    """Of the installed wrk; None: it is not installed."""
    program = shutil.which("wrk")
    if program is None:
        return None
    told = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"wrk (?:debian/)?([\w.]+)", told)
    return found[1] if found else "?"


def ask(port: int, asked: Sequence[Asked], clients: int, *, seconds: int) -> Times:
    """Keep `clients` connections busy for some whole seconds, from one thread.

    Raises:
        Unanswered: an answer failed, or answers have on average not the length of the checked ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        script, requests = Path(folder, "turns.lua"), Path(folder, "requests")
        script.write_text(_SCRIPT)
        requests.write_bytes(b"".join(b"%d\n%b" % (len(one.request), one.request) for one in asked))
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
        command += [f"http://{HOST}:{port}/", "--", str(requests)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + TIMEOUT_SECONDS, check=False)
    found = re.search(r"^found (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise Unanswered(f"wrk: {done.stderr[-500:]}")
    count, size, microseconds, p50, p95, p99, failed = map(int, found[1].split())
    if failed or not count:
        raise Unanswered(f"wrk: {failed} failures and {count} answers in {seconds} s")
    lengths = [one.length for one in asked]
    # at the end one answer per connection is cut off, of which bytes are counted
    if not min(lengths) <= size / count <= (max(lengths) + _HEAD_BYTES) * 1.03 * (1 + clients / count):
        raise Unanswered(f"wrk: {size / count:.0f} bytes an answer, {min(lengths)} to {max(lengths)} expected")
    return Times(p50 / 1e3, p95 / 1e3, p99 / 1e3, count, sum(lengths) * count // len(lengths), microseconds / 1e6)
