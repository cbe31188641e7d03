"""Deep builds outside of the server's process end with it, however it ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.stores import DATA

SERVER = """
import asyncio, os, signal, sys
from pathlib import Path
from storage.bucket import open_bucket
from storage.indexing.build_processes import BuildProcesses
from storage.indexing.indexer import Indexer
from storage.keys import parse_object_key
from storage.state import StateFolder

async def main():
    bucket = open_bucket(sys.argv[1])
    state = Path(sys.argv[2])
    indexer = Indexer(bucket, StateFolder(state, bucket.url), root="http://x/dicomweb")
    builds = BuildProcesses(indexer, bucket.url, state, "http://x/dicomweb")
    async for info in bucket.list("studies/"):
        await builds.build(parse_object_key(info.key)[0], "deep")
        break
    print(*builds._pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="tells whether a process lives by /proc")
def test_a_build_process_ends_when_its_server_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    datastore = DATA / "cod" / "append" / "dicomweb"

    killed = subprocess.run(
        [sys.executable, str(script), str(datastore), str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=False,
    )

    workers = [int(pid) for pid in killed.stdout.split()]
    assert killed.returncode == -9
    assert workers
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
