"""Debian's Ceph gateway as a real S3 service: `start.sh` unpacks and starts it, only where CODWEB_CEPH=1 asks for it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SKIPPED = "the Ceph gateway is not asked for: set CODWEB_CEPH=1"
MISSING = "the Ceph gateway cannot be had here: it needs apt-get, dpkg and curl"


@pytest.fixture(scope="session")
def ceph() -> Iterator[str]:
    """The endpoint of a gateway, one for all tests of the process; CODWEB_CEPH_FOLDER keeps its packages."""
    if not all(map(shutil.which, ("apt-get", "dpkg", "curl"))):
        pytest.skip(MISSING)
    kept = os.environ.get("CODWEB_CEPH_FOLDER")
    folder = kept or tempfile.mkdtemp(prefix="codweb-ceph-")
    port, monitor_port = _free_port(), _free_port()
    try:
        subprocess.run([HERE / "start.sh", folder, str(port), str(monitor_port)], check=True, timeout=600)
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run([HERE / "stop.sh", folder], check=False, timeout=60)
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
