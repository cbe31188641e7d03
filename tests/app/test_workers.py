"""`codweb serve --workers N`: the same answers, work done once for all, and processes that come back and end together."""

import asyncio
import ctypes
import json
import os
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.bucket import open_bucket
from storage.catalogue.sqlite import SqliteCatalogue
from storage.keys import SeriesKey
from storage.state import StateFolder
from tests.clients.conftest import CODWEB, environment
from tests.support.server import serving
from tests.support.stores import DATA, instance_path, series_key

DATASTORE = DATA / "cod" / "v2_raw" / "dicomweb"
DEADLINE_SECONDS = 60
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc, at files by inotify")


@dataclass(frozen=True, slots=True)
class Server:
    """A running `codweb serve --workers 2`."""

    base: str
    process: "subprocess.Popen[bytes]"
    log: Path
    state: StateFolder

    @property
    def processes(self) -> dict[str, int]:
        """Process ids by name, as the server tells them."""
        return {row["name"]: row["pid"] for row in httpx.get(self.base + "/readyz", timeout=20).json()["processes"]}

    def connect(self) -> HTTPConnection:
        """A connection that stays open."""
        connection = HTTPConnection(self.base.removeprefix("http://"), timeout=20)
        connection.connect()
        return connection

    def get(self, path: str) -> httpx.Response:
        """An answer on a connection of its own."""
        return httpx.get(self.base + path, timeout=20)


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Server]:
    """Serve the fixture store with two workers; the test may end it itself."""
    log = folder / "serve.log"
    variables = {f"CODWEB_{name.upper()}": value for name, value in settings.items()}
    command = [str(CODWEB), "serve", str(DATASTORE), "--workers", "2", "--port", "0", "--state", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment() | variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        until(lambda: "stop with" in log.read_text() or process.poll() is not None)
        greeting = re.search(r"DICOMweb root for viewers: +(\S+)/dicomweb\n", log.read_text())
        assert greeting is not None, log.read_text()
        yield Server(greeting[1], process, log, StateFolder(folder, open_bucket(DATASTORE).url))
    finally:
        process.kill()
        process.wait()


def until(claim: Callable[[], object]) -> None:
    """Wait until something is so; bounded."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def ask(connection: HTTPConnection, path: str) -> httpx.Response:
    """An answer on a connection that stays open."""
    connection.request("GET", path, headers={"Accept-Encoding": "identity"})
    answer = connection.getresponse()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def is_complete(server: Server) -> bool:
    return bool(server.get("/readyz").json()["catalogue"]["complete"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it running."""
    with running(tmp_path_factory.mktemp("workers"), deepen="opened", sync_seconds="1") as started:
        until(lambda: is_complete(started))
        yield started
    assert "Traceback" not in started.log.read_text()


@pytest.fixture(scope="module")
def keys(manifest: dict[str, Any]) -> list[SeriesKey]:
    """The series of the store; each test that wants one that nobody has opened takes another."""
    return sorted({series_key(entry) for entry in manifest["stores"]["v2_raw"]["instances"]})


async def test_workers_answer_as_one_process_does(server: Server, manifest: dict[str, Any], tmp_path: Path) -> None:
    instance = instance_path(manifest["stores"]["v2_raw"]["instances"][0])
    paths = ["/dicomweb/studies", "/dicomweb/series?limit=7", instance, f"{instance}/metadata"]
    headers = {"host": server.base.removeprefix("http://"), "accept-encoding": "identity"}

    with ExitStack() as connections:
        opened = [connections.enter_context(closing(server.connect())) for _ in range(4)]
        answers = {
            path: {content_of(await asyncio.to_thread(ask, connection, path)) for connection in opened}
            for path in paths
        }
    async with serving(open_bucket(DATASTORE), tmp_path) as alone:
        expected = {path: {content_of(await alone.get(path, headers=headers))} for path in paths}

    assert answers == expected


def content_of(answer: httpx.Response) -> bytes:
    """The body of a success; of a multipart one without its boundary, which is random."""
    assert answer.status_code == 200
    body = answer.content
    return body.replace(body.split(b"\r\n", 1)[0], b"--") if body.startswith(b"--") else body


@contextmanager
def closing(connection: HTTPConnection) -> Iterator[HTTPConnection]:
    try:
        yield connection
    finally:
        connection.close()


@on_linux
def test_connections_that_stay_open_are_spread_evenly(server: Server) -> None:
    workers = [pid for name, pid in server.processes.items() if name.startswith("worker")]
    time.sleep(0.5)  # connections of other tests are closed by then
    before = [sockets_of(pid) for pid in workers]
    with ExitStack() as connections:
        for connection in [connections.enter_context(closing(server.connect())) for _ in range(6)]:
            ask(connection, "/healthz")

        assert [sockets_of(pid) - count for pid, count in zip(workers, before, strict=True)] == [3, 3]


def sockets_of(pid: int) -> int:
    """How many sockets a process has."""
    return sum("socket:" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())


def test_every_process_is_reported_with_its_memory(server: Server) -> None:
    rows = server.get("/readyz").json()["processes"]

    assert [row["name"] for row in rows] == ["supervisor", "maintenance", "worker 1", "worker 2"]
    assert rows[0]["pid"] == server.process.pid
    for row in rows:
        os.kill(row["pid"], 0)  # it lives
        assert row["rss_bytes"] >= row["private_bytes"] > 10_000_000


@on_linux
def test_workers_that_need_an_index_at_once_build_it_once(server: Server, keys: list[SeriesKey]) -> None:
    """And the maintenance process deepens it, once too."""
    file = server.state.series_index(keys[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as connections, appearances(file) as count:
        opened = [connections.enter_context(closing(server.connect())) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda connection: ask(connection, f"/dicomweb/{keys[1].stem}/metadata"), opened))
        until(lambda: [depth_on(connection, keys[1]) for connection in opened] == ["deep"] * 8)

        assert {answer.status_code for answer in answers} == {200}
        assert count() == 2


@contextmanager
def appearances(file: Path) -> Iterator[Callable[[], int]]:
    """Counts how often a file is put in place by renaming, as the kernel tells it (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    moved_from, moved_to = 0x40, 0x80  # both, or the kernel would make one of two events that are the same
    assert libc.inotify_add_watch(descriptor, os.fsencode(file.parent), moved_from | moved_to) >= 0
    names: list[str] = []

    def count() -> int:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            data = b""
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            if mask & moved_to:
                names.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
        return names.count(file.name)

    try:
        yield count
    finally:
        os.close(descriptor)


def depth_on(connection: HTTPConnection, key: SeriesKey) -> str | None:
    return ask(connection, f"/dicomweb/{key.stem}/metadata").headers["x-cod-metadata"]


def test_a_series_opened_in_one_worker_is_deepened_and_all_answer_deep(server: Server, keys: list[SeriesKey]) -> None:
    with ExitStack() as connections:
        opened = [connections.enter_context(closing(server.connect())) for _ in range(4)]
        first = [depth_on(connection, keys[2]) for connection in opened[:1]]
        until(lambda: [depth_on(connection, keys[2]) for connection in opened] == ["deep"] * 4)

    assert first == ["quick"]
    known = catalogued_depths(server)
    until(lambda: catalogued_depths(server)[keys[2]] == "deep")
    assert known[keys[-1]] == "quick"  # nobody opened it


def catalogued_depths(server: Server) -> dict[SeriesKey, str]:
    with sqlite3.connect(server.state.catalogue) as connection:
        rows = connection.execute("SELECT study_uid, series_uid, depth FROM series").fetchall()
    connection.close()
    return {SeriesKey(study_uid, series_uid): depth for study_uid, series_uid, depth in rows}


@pytest.mark.parametrize("name", ["worker 1", "maintenance"])
def test_a_process_that_is_killed_is_started_again_while_others_answer(server: Server, name: str) -> None:
    killed = server.processes[name]

    os.kill(killed, signal.SIGKILL)
    statuses = {server.get("/healthz").status_code for _ in range(20)}
    until(lambda: server.processes.get(name, killed) != killed)

    assert statuses == {200}
    assert f"{name} (process {killed}) was ended by SIGKILL" in server.log.read_text()


def test_searches_warn_until_the_first_sync_is_through(tmp_path: Path) -> None:
    """Whether it is complete stands in the catalogue's file. The sync is held up by a writer that does not let go."""
    state = StateFolder(tmp_path, open_bucket(DATASTORE).url)
    asyncio.run(made_catalogue(state.catalogue))
    writer = sqlite3.connect(state.catalogue, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with running(tmp_path, sync_seconds="0.1", deepen="off") as server:
        before = [server.get("/dicomweb/studies").headers.get("warning") for _ in range(2)]
        writer.execute("ROLLBACK")
        writer.close()
        until(lambda: is_complete(server))
        after = [server.get("/dicomweb/studies") for _ in range(2)]

    assert all(warning is not None and "still being filled" in warning for warning in before)
    assert [answer.headers.get("warning") for answer in after] == [None, None]
    assert all(json.loads(answer.content) for answer in after)


async def made_catalogue(path: Path) -> None:
    catalogue = SqliteCatalogue(path)
    await catalogue.status()
    await catalogue.close()


def test_sigterm_lets_a_download_end_and_everybody_exits_in_peace(tmp_path: Path, manifest: dict[str, Any]) -> None:
    entry = next(e for e in manifest["stores"]["v2_raw"]["instances"] if e["source"] == "JPEG-LL.dcm")
    repeats = 300  # 35 MB: more than the sockets between the two hold
    with running(tmp_path, deepen="off") as server:
        until(lambda: len(server.processes) == 4)
        processes = server.processes
        with closing(server.connect()) as connection:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            connection.request("GET", f"{instance_path(entry)}/frames/{','.join(['1'] * repeats)}")
            answer = connection.getresponse()
            beginning = answer.read(100_000)

            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            is_waiting = server.process.poll() is None
            body = beginning + answer.read()
        code = server.process.wait(20)

    assert is_waiting
    assert body.endswith(b"--\r\n")
    assert body.count(b"Content-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70\r\n") == repeats
    assert code == 0
    assert not [name for name, pid in processes.items() if lives(pid)]
    assert "Traceback" not in server.log.read_text()


@on_linux
def test_a_supervisor_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    with running(tmp_path, deepen="off") as server:
        until(lambda: len(server.processes) == 4)
        session = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if session_of(pid) == server.process.pid
        ]

        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()

        assert len(session) > 4
        until(lambda: not [pid for pid in session if lives(pid)])


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def lives(pid: int) -> bool:
    """Whether a process lives; one that has ended may wait for somebody to ask how."""
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
