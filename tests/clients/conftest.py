"""A server as people run it: `codweb ingest`, `codweb index` and `codweb serve`, each in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from requests import HTTPError, Session

CODWEB = Path(sys.executable).with_name("codweb")
"""The command that the installation put beside this Python."""

SHUTDOWN_SECONDS = 5
"""A server that is asked to stop, and has nothing to finish, is gone sooner than this."""

START_SECONDS = 60

PREFERRED = {"MR_small_jpeg_ls_lossless.dcm", "emri_small_big_endian.dcm", "rtdose_rle.dcm"}
"""Of files that share a SOP Instance UID one can be stored: these, so that every transfer syntax is there; else the first."""

NO_STUDY_UID = {"UN_sequence.dcm", "no_meta.dcm", "rtstruct.dcm"}
"""Files of the fixtures that no archive can keep: without a Study Instance UID, or not in the DICOM file format."""


@dataclass(frozen=True, slots=True)
class Source:
    """One ingested file, and what the oracle says of it (tests/data/manifest.json, computed with pydicom)."""

    path: Path
    study_uid: str
    series_uid: str
    instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    frame_hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def uids(self) -> tuple[str, str, str]:
        return self.study_uid, self.series_uid, self.instance_uid

    @property
    def series_path(self) -> str:
        """The path of the series, below the service root."""
        return f"/studies/{self.study_uid}/series/{self.series_uid}"

    @property
    def instance_path(self) -> str:
        return f"{self.series_path}/instances/{self.instance_uid}"

    def read(self) -> Dataset:
        """The file as pydicom reads it; one object for all who ask, so look and do not touch."""
        return _read(self.path)


@cache
def _read(path: Path) -> Dataset:
    return dcmread(path)


class Sources(dict[str, Source]):
    """Everything that was ingested, by file name."""

    def of_study(self, study_uid: str) -> list[Source]:
        return [source for source in self.values() if source.study_uid == study_uid]

    def of_series(self, series_uid: str) -> list[Source]:
        return [source for source in self.values() if source.series_uid == series_uid]

    def with_syntax(self, transfer_syntax_uid: str) -> list[Source]:
        """The images of a transfer syntax."""
        return [
            source
            for source in self.values()
            if source.transfer_syntax_uid == transfer_syntax_uid and source.frame_hashes
        ]


@dataclass(frozen=True, slots=True)
class Server:
    """A running `codweb serve`."""

    root: str
    """The service root, as the command prints it."""
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def base(self) -> str:
        return self.root.removesuffix("/dicomweb")

    @property
    def address(self) -> str:
        """Host and port."""
        return self.base.removeprefix("http://")

    def kill(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self.process.wait()

    def fetch(self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> httpx.Response:
        """Send a request target, as it is, with these headers and `Host`, and no other: no Accept unless it is among them."""
        connection = HTTPConnection(self.address, timeout=20)
        try:
            connection.putrequest(method, "/dicomweb" + path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
        finally:
            connection.close()


def environment() -> dict[str, str]:
    """This process's environment without the settings that somebody may have exported."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CODWEB_")}


def run_codweb(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    command = [str(CODWEB), *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=START_SECONDS)


def start_server(datastore: Path, folder: Path) -> Server:
    """Run `codweb serve` on a free port, with state and log in `folder`, until its catalogue is complete."""
    log = folder / "serve.log"
    command = [str(CODWEB), "serve", str(datastore), "--port", "0", "--state", str(folder / "state")]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment(), stdout=output, stderr=output, start_new_session=True)
    try:
        return _ready(process, log)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        greeting = re.search(r"DICOMweb root for viewers: +(\S+/dicomweb)\n", log.read_text())
        if greeting is not None:
            server = Server(greeting[1], process, log)
            if _is_complete(server):
                return server
        time.sleep(0.05)
    raise AssertionError(f"not ready in {START_SECONDS} s:\n{log.read_text()}")


def _is_complete(server: Server) -> bool:
    try:
        answer = httpx.get(server.base + "/readyz", timeout=5)
    except httpx.TransportError:  # it prints where it will listen before it does
        return False
    return bool(answer.status_code == 200 and answer.json()["catalogue"]["complete"])


def stop_server(server: Server, number: signal.Signals) -> tuple[int, float]:
    """Ask a server to stop: Ctrl+C goes to all of its processes, SIGTERM to the first; returns exit code and seconds."""
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(server.process.pid, number)
    else:
        server.process.send_signal(number)
    try:
        code = server.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        server.kill()
        raise
    return code, time.monotonic() - began


def refused(call: Callable[[], object]) -> int:
    """The status of a call that is refused."""
    with pytest.raises(HTTPError) as failure:
        call()
    assert failure.value.response is not None
    return failure.value.response.status_code


@pytest.fixture(scope="session")
def sources(data_folder: Path, manifest: dict[str, Any]) -> Sources:
    """The files that are ingested: one for each SOP Instance UID."""
    chosen: dict[str, Source] = {}
    for name, entry in sorted(manifest["p10"].items(), key=lambda item: (item[0] not in PREFERRED, item[0])):
        if name in NO_STUDY_UID or entry["sop"] in chosen:
            continue
        chosen[entry["sop"]] = Source(
            data_folder / "p10" / name,
            entry["study"],
            entry["series"],
            entry["sop"],
            entry["transfer_syntax"],
            entry["sha256"],
            tuple(frame.get("sha256_le", frame["sha256"]) for frame in entry["frames"]),
        )
    return Sources({source.name: source for source in chosen.values()})


@pytest.fixture(scope="session")
def datastore(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datastore that `codweb ingest` made of the sources."""
    folder = tmp_path_factory.mktemp("clients") / "datastore"
    done = run_codweb("ingest", *(source.path for source in sources.values()), "--to", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def errands(datastore: Path) -> "Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]":
    """Other runs of the command, made beside the rest of the set-up, for starting Python is what takes the time."""
    with ThreadPoolExecutor(1) as pool:
        yield {
            "check": pool.submit(run_codweb, "check", datastore, "--json", "--all-bytes"),
            "version": pool.submit(run_codweb, "version"),
        }


@pytest.fixture(scope="session")
def indexing(
    datastore: Path, errands: "dict[str, Future[subprocess.CompletedProcess[str]]]"
) -> "subprocess.CompletedProcess[str]":
    """`codweb index`, run over the datastore."""
    return run_codweb("index", datastore, "--state", datastore.parent / "state")


@pytest.fixture(scope="session")
def server(datastore: Path, indexing: "subprocess.CompletedProcess[str]") -> Iterator[Server]:
    """The datastore, served. It has to stop at once and in peace when everybody is through."""
    running = start_server(datastore, datastore.parent)
    try:
        yield running
    finally:
        code, seconds = stop_server(running, signal.SIGTERM)
    assert (code, seconds < SHUTDOWN_SECONDS) == (0, True), f"exit code {code} after {seconds:.1f} s"
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def client(server: Server) -> Iterator[DICOMwebClient]:
    with Session() as session:
        made = DICOMwebClient(server.root, session=session, permissive_uid=True)  # one fixture has UIDs of hex letters
        made.set_http_retry_params(retry=False)
        yield made
