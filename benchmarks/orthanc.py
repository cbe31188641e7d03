"""Orthanc with its DICOMweb plugin as packaged by Debian (`orthanc`, `orthanc-dicomweb`), over the same files.

It keeps a store of its own, so that the instances of a datastore of few studies, and of enough small ones for a page, are
sent to it first. Its answers are checked like codweb's, as far as it says the same things.
"""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.load import HOST
from benchmarks.server import Server, running

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_SENDERS = 4
_TIMEOUT_SECONDS = 60


def program() -> str | None:
    """Where Orthanc is, if it and its plugin are installed."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return found if PLUGIN.exists() else None


def version(program: str) -> str:
    """As it tells it."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return told.splitlines()[0].rpartition(" ")[2]


@contextmanager
def orthanc(program: str, folder: Path, port: int) -> Iterator[Server]:
    """An empty Orthanc that keeps its store in `folder`, which must not be there yet."""
    folder.mkdir()
    configuration = folder / "orthanc.json"
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpPort": port,
        "HttpBindAddresses": [HOST],  # since 1.11; those before listen everywhere and refuse all but this machine
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "KeepAlive": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }
    configuration.write_text(json.dumps(settings))
    with running([program, str(configuration)], port, folder / "orthanc.log", "/system", {}) as server:
        yield server


def send(server: Server, datastore: Path, series: Iterable[tuple[str, str]], advance: Callable[[], None]) -> None:
    """Store the instances of these series, as they lie in their tars. Raises RuntimeError: it took one for wrong."""

    def send_series(study_uid: str, series_uid: str) -> None:
        connection = HTTPConnection(HOST, server.port, timeout=_TIMEOUT_SECONDS)
        with tarfile.open(datastore / "studies" / study_uid / "series" / f"{series_uid}.tar") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".dcm"):
                    _post(connection, file.read())
        connection.close()
        advance()

    with ThreadPoolExecutor(_SENDERS) as pool:
        for future in [pool.submit(send_series, *uids) for uids in series]:
            future.result()


def send_files(server: Server, files: Sequence[Path]) -> None:
    """Store files, over four connections. Raises RuntimeError: it took one for wrong."""

    def send_some(some: Sequence[Path]) -> None:
        connection = HTTPConnection(HOST, server.port, timeout=_TIMEOUT_SECONDS)
        for file in some:
            _post(connection, file.read_bytes())
        connection.close()

    with ThreadPoolExecutor(_SENDERS) as pool:
        for future in [pool.submit(send_some, files[first::_SENDERS]) for first in range(_SENDERS)]:
            future.result()


def _post(connection: HTTPConnection, content: bytes) -> None:
    connection.request("POST", "/instances", content)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"Orthanc does not take an instance: {answer.status}")
