"""An ingest that is broken off, by Ctrl-C or by a kill: each series is whole, and the same command goes on from there."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ingest.corpus_table import read_back
from tests.ingest.reading import made

pytestmark = pytest.mark.long

SERIES, INSTANCES = 60, 8
PROGRAM = "from app.cli import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty series of eight instances."""
    folder = tmp_path_factory.mktemp("many")
    template = made(folder / "template", "1.2.3.4444", SeriesInstanceUID="1.2.826.0.1.5555").read_bytes()
    for series in range(1000, 1000 + SERIES):
        for number in range(1000, 1000 + INSTANCES):
            data = template.replace(b"1.2.826.0.1.5555", b"1.2.826.0.1.%d" % series)
            uid = b"%d" % (series * INSTANCES + number)
            data = data.replace(b"1.2.3.4444", b"1.2.%06d" % int(uid))
            (folder / f"{series}-{number}").write_bytes(data)
    (folder / "template").unlink()
    return folder


def started(folder: Path, tmp_path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, "ingest", str(folder), "--to", str(tmp_path / "out"), "--no-index"]
    return subprocess.Popen(
        [*command, "--json", "--state", str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_the_first_series(process: "subprocess.Popen[str]", datastore: Path) -> None:
    deadline = time.monotonic() + 60
    while not any(datastore.rglob("metadata.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_command_repeated_completes_what_is_missing(
    with_signal: signal.Signals, folder: Path, tmp_path: Path
) -> None:
    datastore = tmp_path / "out"
    process = started(folder, tmp_path)
    wait_for_the_first_series(process, datastore)
    process.send_signal(with_signal)
    output, errors = process.communicate(timeout=60)
    done = len(list(datastore.rglob("metadata.json")))

    again = started(folder, tmp_path)
    report = json.loads(again.communicate(timeout=60)[0])

    if with_signal is signal.SIGINT:
        assert process.returncode == 130
        assert "Run the same command again: it goes on where it stopped" in errors
        assert len(json.loads(output)["series"]) == done
    assert 0 < done < SERIES
    assert again.returncode == 0
    assert len(report["new"]) + len(report["same"]) == SERIES * INSTANCES
    assert len(report["same"]) >= done * INSTANCES
    stored = read_back(datastore)
    assert sorted(stored.values()) == sorted(path.read_bytes() for path in folder.iterdir())
    names = {path.name for path in datastore.rglob("*") if path.is_file()}
    drafts = {name for name in names if name.startswith(".codweb-tmp-")}  # die with a killed process; nobody lists them
    assert with_signal is signal.SIGKILL or not drafts
    assert names - drafts == {
        "metadata.json", "index.sqlite", *(f"1.2.826.0.1.{series}.tar" for series in range(1000, 1000 + SERIES)),
    }  # fmt: skip
