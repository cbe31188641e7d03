"""The processes that are measured: `codweb serve` with an empty or a warm state, and nginx with the same bytes as files."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.load import Connection, Unanswered, encode

START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 20
INDEX_TIMEOUT_SECONDS = 600
HOST = "127.0.0.1"
_NGINX_PLACES = ("/usr/sbin/nginx", "/usr/local/sbin/nginx", "/opt/homebrew/bin/nginx")


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers on a port of this machine."""

    pid: int
    port: int
    begun: float
    """When the command was given (`time.perf_counter`)."""
    ready_seconds: float
    """From the command to the first answer."""


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextmanager
def codweb(
    datastore: Path | str,
    state: Path,
    port: int,
    *,
    deepen: str = "all",
    workers: int = 1,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """`codweb serve` over a datastore; an empty `state` folder makes it a cold start.

    Args:
        workers: more than one only where `has_workers`.
        variables: further `CODWEB_…` settings.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    command = [_codweb(), "serve", str(datastore), "--host", HOST, "--port", str(port), "--state", str(state)]
    if workers > 1:
        command += ["--workers", str(workers)]
    settings = {"CODWEB_DEEPEN": deepen, **(variables or {})}
    with running(command, port, state.parent / f"codweb-{port}.log", "/healthz", settings) as server:
        yield server


@cache
def has_workers() -> bool:
    """Whether this codweb can serve with several workers."""
    told = subprocess.run([_codweb(), "serve", "--help"], capture_output=True, text=True, timeout=30, check=True)
    return "--workers" in told.stdout


def index(datastore: Path, state: Path, port: int) -> float:
    """Run `codweb index` for a server that will listen on `port`; how many seconds it took, from start to end."""
    begun = perf_counter()
    done = subprocess.run(
        [_codweb(), "index", str(datastore), "--state", str(state)],
        env=_environment({"CODWEB_PORT": str(port)}),  # links are stored as the server will be asked for them
        capture_output=True,
        text=True,
        timeout=INDEX_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"codweb index failed:\n{done.stderr[-2000:]}")
    return perf_counter() - begun


def nginx_program() -> str | None:
    """Where nginx is, if it is installed."""
    return shutil.which("nginx") or next((place for place in _NGINX_PLACES if Path(place).exists()), None)


def nginx_version(program: str) -> str:
    """As it tells it."""
    told = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10, check=True).stderr
    return told.strip().rpartition("/")[2]


@contextmanager
def nginx(program: str, folder: Path, port: int, *, gzipped: Sequence[str]) -> Iterator[Server]:
    """nginx with one worker over the files of `folder`.

    Args:
        gzipped: folders below it whose files are gzip already, and are named so.
    """
    place = folder.parent / "nginx-run"
    place.mkdir()
    configuration = place / "nginx.conf"
    configuration.write_text(_configuration(folder, place, port, gzipped))
    command = [program, "-p", str(place), "-c", str(configuration), "-e", str(place / "error.log")]
    with running(command, port, place / "nginx.log", "/", {}) as server:
        yield server


def _configuration(folder: Path, place: Path, port: int, gzipped: Sequence[str]) -> str:
    """One worker as codweb has one; everything that makes files fast is on, tcp_nopush off as it delays small ones."""
    user = "user root;" if os.geteuid() == 0 else ""  # or the worker could not read the files of root
    scratch = "\n".join(
        f"  {kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    coded = "\n".join(f"    location /{name}/ {{ add_header Content-Encoding gzip; }}" for name in gzipped)
    return f"""daemon off; worker_processes 1; {user}
pid {place}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; tcp_nopush off;
  keepalive_requests 100000000; keepalive_timeout 300s; open_file_cache max=4000 inactive=600s;
  default_type application/octet-stream;
{scratch}
  server {{
    listen {HOST}:{port};
    root {folder};
{coded}
  }}
}}
"""


@contextmanager
def running(command: Sequence[str], port: int, log: Path, path: str, variables: Mapping[str, str]) -> Iterator[Server]:
    """A process from its start until it answers, and until it has ended."""
    begun = perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=_environment(variables), stdout=output, stderr=output)
    try:
        _wait_until_it_answers(process, port, path)
        yield Server(process.pid, port, begun, perf_counter() - begun)
    finally:
        if process.poll() is not None:
            print(f"{Path(command[0]).name} ended by itself:\n{_end_of(log)}", file=sys.stderr)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_SECONDS)


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int, path: str) -> None:
    until = perf_counter() + START_TIMEOUT_SECONDS
    while True:
        try:
            with Connection(port) as connection:
                connection.get(encode(path))
                return
        except (OSError, Unanswered):
            if process.poll() is not None or perf_counter() > until:
                raise RuntimeError(f"nothing answers on port {port}") from None
            sleep(0.005)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without its own settings of codweb: those are the measurement's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODWEB_")}
    return {**kept, "CODWEB_LOG_LEVEL": "warning", **variables}


def _codweb() -> str:
    return str(Path(sys.executable).with_name("codweb"))
