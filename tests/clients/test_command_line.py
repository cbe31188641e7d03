"""The commands themselves: exit codes, and one line that says what is wrong and what to write instead."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import commands
from tests.clients.conftest import SHUTDOWN_SECONDS, Server, Sources, start_server, stop_server

DOUBTFUL = "syn_j2k_bot_short.dcm"
"""The one file of the fixtures with something wrong that `check` reports: two of its frames cannot be told apart."""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Runs commands in this process, which is faster, without settings that somebody may have exported."""
    for name in os.environ:
        if name.startswith("CODWEB_"):
            monkeypatch.delenv(name)
    return CliRunner()


def check_refusal(code: int, output: str, error: str, message: str) -> None:
    """The exit code of a failure, nothing on stdout, and one whole line on stderr."""
    assert (code, output) == (1, "")
    assert re.fullmatch(message + "\n", error), error


def test_help_shows_the_options_and_examples(runner: CliRunner) -> None:
    done = runner.invoke(commands, ["serve", "--help"], env={"COLUMNS": "140"})

    assert done.exit_code == 0
    for word in ("--host", "--port", "--state", "--workers", "codweb serve ./datastore", "config/codweb.env.example"):
        assert word in done.stdout


# serve


def test_serve_on_a_port_in_use_says_how_to_get_another(runner: CliRunner, server: Server, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]

    done = runner.invoke(commands, ["serve", str(tmp_path), "--port", port, "--state", str(tmp_path / "state")])

    message = rf"codweb serve: cannot listen on 127\.0\.0\.1 port {port}: Address already in use; try --port 0"
    check_refusal(done.exit_code, done.stdout, done.stderr, message)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CODWEB_PROT": "9000"}, r"there is no setting CODWEB_PROT; did you mean CODWEB_PORT\?"),
        ({"CODWEB_WHATEVER": ""}, r"there is no setting CODWEB_WHATEVER"),
        ({"CODWEB_PORT": "dicom"}, r"CODWEB_PORT: .*integer.*"),
        ({"CODWEB_SERIES_METADATA": "short"}, r"CODWEB_SERIES_METADATA: .*'full', 'main' or 'extrapolate'.*"),
        ({"CODWEB_WORKERS": "0"}, r"CODWEB_WORKERS: .*greater than or equal to 1"),
        ({"CODWEB_PUBLIC_URL": "pacs.example.org"}, r"CODWEB_PUBLIC_URL: .*https://pacs\.example\.org/dicomweb"),
        ({"CODWEB_SEARCH_DEFAULT_LIMIT": "9000"}, r"CODWEB_SEARCH_DEFAULT_LIMIT is above CODWEB_SEARCH_MAX_LIMIT.*"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
@pytest.mark.parametrize("command", ["serve", "index"])
def test_a_setting_that_cannot_be_is_refused_by_name(
    runner: CliRunner, tmp_path: Path, command: str, variables: dict[str, str], message: str
) -> None:
    done = runner.invoke(commands, [command, str(tmp_path)], env=variables)

    check_refusal(done.exit_code, done.stdout, done.stderr, f"codweb {command}: {message}")


def test_serve_and_index_name_what_is_missing(runner: CliRunner, tmp_path: Path) -> None:
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.touch()
    refusals = {
        (): r"name a datastore, e\.g\. codweb serve \./datastore \(or set CODWEB_DATASTORE\)",
        (str(missing),): rf"there is no folder {re.escape(str(missing))}: .*studies.*",
        (str(file),): rf"{re.escape(str(file))} is a file: .*studies.*",
        ("ftp://host/prefix",): r"ftp:// is no address of a datastore; name s3://bucket/prefix, .*",
        (str(tmp_path), "--state", str(file)): rf"the state folder {re.escape(str(file))}/\S+ cannot be made: .+",
    }

    for command in ("serve", "index"):
        for words, message in refusals.items():
            done = runner.invoke(commands, [command, *words])
            check_refusal(done.exit_code, done.stdout, done.stderr, f"codweb {command}: {message}")
    assert not missing.exists()


# index


def test_index_counts_what_it_found(indexing: "subprocess.CompletedProcess[str]", sources: Sources) -> None:
    studies = {source.study_uid for source in sources.values()}
    series = {source.series_uid for source in sources.values()}

    assert (indexing.returncode, indexing.stdout) == (0, "")
    assert indexing.stderr.startswith(f"{len(studies)} studies, {len(series)} series: {len(series)} new, ")


def test_index_of_a_folder_without_studies_says_so(runner: CliRunner, tmp_path: Path) -> None:
    """Not a failure, for it may be filled later; but more often it is the wrong folder."""
    (tmp_path / "datastore").mkdir()

    done = runner.invoke(commands, ["index", str(tmp_path / "datastore"), "--state", str(tmp_path / "state")])

    assert done.exit_code == 0
    assert re.search(r"^no series below studies/ of \S+/datastore: .*studies/\?$", done.stderr, re.MULTILINE)


# check


def test_check_names_the_one_instance_that_is_wrong(
    errands: "dict[str, Future[subprocess.CompletedProcess[str]]]", sources: Sources
) -> None:
    done = errands["check"].result()
    report = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (1, "")
    assert report["series"] == len({source.series_uid for source in sources.values()})
    [finding] = [finding for finding in report["findings"] if finding["severity"] != "note"]
    assert (finding["severity"], finding["instance_uid"]) == ("error", sources[DOUBTFUL].instance_uid)
    assert finding["advice"]


def test_check_of_a_sound_study_exits_with_0(runner: CliRunner, datastore: Path, sources: Sources) -> None:
    done = runner.invoke(commands, ["check", str(datastore), "--study", sources["CT_small.dcm"].study_uid])

    assert (done.exit_code, done.stderr) == (0, "")
    assert "1 series checked: 0 errors, 0 warnings" in done.stdout


def test_a_check_that_looked_at_nothing_is_no_clean_bill(runner: CliRunner, datastore: Path, tmp_path: Path) -> None:
    calls = [
        ([str(tmp_path / "missing")], r"there is no folder \S+/missing: .*"),
        ([str(tmp_path)], r"no series below studies/ of \S+: .*studies/\?"),
        ([str(datastore), "--study", "1.2.3"], r"no series below studies/1\.2\.3 of \S+: .*studies/\?"),
        ([str(datastore), "--study", "../1.2"], r"--study is not a UID"),
    ]

    for words, message in calls:
        done = runner.invoke(commands, ["check", *words])
        assert (done.exit_code, done.stdout) == (2, ""), words
        assert re.fullmatch(f"codweb check: {message}\n", done.stderr), done.stderr


def test_version_prints_the_version(errands: "dict[str, Future[subprocess.CompletedProcess[str]]]") -> None:
    done = errands["version"].result()

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", done.stdout)


def test_the_version_can_also_be_asked_for_as_an_option(runner: CliRunner) -> None:
    done = runner.invoke(commands, ["--version"])

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == runner.invoke(commands, ["version"]).stdout


# The end of a server


@pytest.fixture
def second_server(datastore: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that the test itself stops; it begins with an empty state folder, so there is much to do behind."""
    running = start_server(datastore, tmp_path)
    try:
        yield running
    finally:
        running.kill()


def running_processes() -> dict[int, int]:
    """Every process that lives (a dead one may wait for somebody to ask how it ended), and its parent; Linux only."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(stat.parent.name)] = int(parent)
    return found


def children_of(process: int) -> set[int]:
    return {pid for pid, parent in running_processes().items() if parent == process}


def comes_true(claim: Callable[[], object], seconds: float = 5) -> bool:
    """Whether something is so within some seconds."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_ctrl_c_finishes_what_is_being_sent_and_exits_with_0(second_server: Server, sources: Sources) -> None:
    """A viewer is in the middle of a large answer, slower than the server: it gets the rest.

    A terminal sends Ctrl+C to every process of the command, those that read headers in the background too. SIGTERM, which
    a container's runtime sends to the first process alone, ends the server of all the other tests.
    """
    source = sources["JPEG-LL.dcm"]
    repeats = 300  # 35 MB: more than the sockets between the two hold
    connection = HTTPConnection(second_server.address, timeout=20)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.request("GET", f"/dicomweb{source.instance_path}/frames/{','.join(['1'] * repeats)}")
    answer = connection.getresponse()
    beginning = answer.read(100_000)
    if sys.platform == "linux":
        assert comes_true(lambda: children_of(second_server.process.pid))
    children = children_of(second_server.process.pid)

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop_server, second_server, signal.SIGINT)
        time.sleep(0.3)
        is_waiting = not stopping.done()
        body = beginning + answer.read()
        code, seconds = stopping.result()
    connection.close()

    assert is_waiting
    assert body.endswith(b"--\r\n")
    assert body.count(b"Content-Type: image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70\r\n") == repeats
    assert code == 0
    assert seconds < SHUTDOWN_SECONDS
    assert comes_true(lambda: not children & running_processes().keys())
    assert "Traceback" not in second_server.log.read_text()
