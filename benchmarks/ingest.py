"""Ingest of many CT slices, small and large, beside what people use today: all of them from the same files, in one run.

codweb        `codweb ingest --no-index`, and again with the index that a server would otherwise build
copy          `cp -r`: what the disk and one core can move
pydicom       a script that reads each file with `dcmread` and copies it to study/series/instance
Orthanc       uploads from four connections, as its own users do
published     the published COD library's append, against an emulator on this machine (few files: it is slow)

A contestant is a process with its children; its processor time is the kernel's. What codweb wrote is read back and held
against the sources.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks import machine, orthanc
from benchmarks.answers import WrongAnswer
from benchmarks.data import LARGE_PIXELS, SMALL_PIXELS, Series, make_series
from benchmarks.header import SeriesPlan
from benchmarks.progress import progress
from benchmarks.server import free_port
from benchmarks.tables import figure, row, table

TIMEOUT_SECONDS = 600
FILES_AIM, COPY_AIM = 600, 0.8
"""Files per second and core of small slices; share of a plain copy's bytes per second of large ones."""
_PYDICOM = Path(__file__).with_name("pydicom_copy.py")


@dataclass(frozen=True, slots=True)
class Load:
    """The files that are ingested."""

    name: str
    folder: Path
    series: Sequence[Series]

    @property
    def files(self) -> int:
        return sum(len(one.instances) for one in self.series)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.series)


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant, once."""

    contestant: str
    load: str
    files: int
    bytes: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class IngestResults:
    """One run of all."""

    date: str
    command: str
    machine: dict[str, object]
    others: float
    cores: int
    runs: Sequence[Run]
    left_out: str | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "others_cores": round(self.others, 2),
            "runs": [
                {
                    "contestant": run.contestant,
                    "load": run.load,
                    "files": run.files,
                    "bytes": run.bytes,
                    "seconds": run.seconds,
                    "cpu_seconds": run.cpu_seconds,
                }
                for run in self.runs
            ],
            "left_out": self.left_out,
        }

    def as_markdown(self) -> str:
        lines = [
            f"{self.date}, `{self.command}`. Medians. Other processes used {self.others:.2f} cores.",
            "",
            *table(["files", "with", "files/s", "MB/s", "of the copy's MB/s", "CPU ms a file", "files/s and core"]),
        ]
        for load in dict.fromkeys(run.load for run in self.runs):
            rates = {name: self._rates(load, name) for name in self._contestants(load)}
            for name, (files, size, cpu_ms) in rates.items():
                part = f"{size / rates['copy'][1]:.0%}" if "copy" in rates else ""
                lines.append(row([load, name, figure(files), figure(size), part, figure(cpu_ms), figure(1e3 / cpu_ms)]))
        if self.left_out is not None:
            lines += ["", f"Left out: {self.left_out}"]
        return "\n".join(lines) + "\n"

    def _contestants(self, load: str) -> Iterable[str]:
        return dict.fromkeys(run.contestant for run in self.runs if run.load == load)

    def _rates(self, load: str, contestant: str) -> tuple[float, float, float]:
        """Files a second, MB a second, processor milliseconds a file."""
        runs = [run for run in self.runs if (run.load, run.contestant) == (load, contestant)]
        return (
            median(run.files / run.seconds for run in runs),
            median(run.bytes / 1e6 / run.seconds for run in runs),
            median(1e3 * run.cpu_seconds / run.files for run in runs),
        )


def measure(
    seed: int, folder: Path, command: str, *, rounds: int, files: int, with_orthanc: bool, published_python: str
) -> IngestResults:
    """Make the files, let each contestant have them in turn, as often as `rounds`.

    Raises:
        WrongAnswer: codweb did not write what it was given.
        RuntimeError: a contestant failed.
    """
    meter = machine.OthersMeter()
    runs: list[Run] = []
    missing: list[str] = []
    for name, pixels in (("64×64", SMALL_PIXELS), ("512×512", LARGE_PIXELS)):
        load = _made(seed, folder / f"source-{pixels}", name, pixels, files)
        contestants = _contestants(load, with_orthanc=with_orthanc, missing=missing)
        with progress(f"ingesting {load.files} files of {name}", rounds * len(contestants)) as advance:
            for _ in range(rounds):
                for contestant, work in contestants.items():
                    place = folder / "target"
                    seconds, cpu_seconds = work(place)
                    runs.append(Run(contestant, name, load.files, load.bytes, seconds, cpu_seconds))
                    if contestant == "codweb":
                        _check(load, place)
                    shutil.rmtree(place)
                    advance()
        if published_python:
            runs.append(_published(load, folder / "target", published_python))
        shutil.rmtree(load.folder)
    if not published_python:
        missing.append("the published library (--published-python)")
    return IngestResults(
        datetime.now(UTC).date().isoformat(),
        command,
        machine.describe(),
        meter.cores(),
        os.cpu_count() or 1,
        runs,
        ", ".join(dict.fromkeys(missing)) or None,
    )


def _made(seed: int, folder: Path, name: str, pixels: int, files: int) -> Load:
    folder.mkdir(parents=True)
    count = min(450, files)
    plans = [SeriesPlan(seed, f"ingest{pixels}", study, 0, "CT", count, pixels) for study in range(files // count)]
    with progress(f"making {count * len(plans)} files of {name}", len(plans)) as advance:
        series = []
        for plan in plans:
            series.append(make_series(folder, plan))
            advance()
    return Load(name, folder, series)


Work = Callable[[Path], tuple[float, float]]


def _contestants(load: Load, *, with_orthanc: bool, missing: list[str]) -> dict[str, Work]:
    codweb = str(Path(sys.executable).with_name("codweb"))
    source = str(load.folder)

    def ingest(*options: str) -> Work:
        return lambda place: _timed(
            [codweb, "ingest", source, "--to", str(place), "--state", str(place / "state"), *options]
        )

    found: dict[str, Work] = {
        "copy": lambda place: _timed(["cp", "-r", source, str(place)]),
        "codweb": ingest("--no-index"),
        "codweb with index": ingest("--index"),
        "pydicom": lambda place: _timed([sys.executable, str(_PYDICOM), source, str(place)]),
    }
    program = orthanc.program() if with_orthanc else None
    if program is None:
        missing.append("Orthanc")
    else:
        found["Orthanc"] = lambda place: _orthanc(program, load, place)
    return found


def _timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds, and processor seconds, of a process and its children."""
    begun = perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{output[-2000:].decode(errors='replace')}")
    return seconds, usage.ru_utime + usage.ru_stime


def _orthanc(program: str, load: Load, place: Path) -> tuple[float, float]:
    with orthanc.orthanc(program, place, free_port()) as server:
        meter = machine.Meter(server.pid)
        begun = perf_counter()
        orthanc.send_files(server, sorted(load.folder.rglob("*.dcm")))
        return perf_counter() - begun, meter.spent().measured_seconds


def _published(load: Load, place: Path, python: str) -> Run:
    """One series, once, into the tests' own emulator of Cloud Storage."""
    from tests.support.gcs_fake import GcsFake  # needs what only the tests need

    series = load.series[0]
    place.mkdir(exist_ok=True)
    script = Path(__file__).with_name("published_append.py")
    source = load.folder / series.series_uid
    command = [python, str(script), str(source), series.study_uid, series.series_uid]
    with GcsFake() as fake:
        fake.objects.make_bucket("bench")
        environment = {**os.environ, "STORAGE_EMULATOR_HOST": fake.endpoint}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, env=environment
        )
    if done.returncode:
        raise RuntimeError(f"the published library failed:\n{done.stderr[-2000:]}")
    seconds, cpu_seconds = (float(word) for word in done.stdout.split()[-2:])
    return Run("published library", load.name, len(series.instances), series.bytes, seconds, cpu_seconds)


def _check(load: Load, datastore: Path) -> None:
    """Every file is in the tar of its series, bit for bit."""
    for series in load.series:
        expected = {f"instances/{one.uid}.dcm": one.sha256 for one in series.instances}
        with tarfile.open(datastore / "studies" / series.study_uid / "series" / f"{series.series_uid}.tar") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None or sha256(file.read()).hexdigest() != expected.pop(member.name, None):
                    raise WrongAnswer(f"{member.name} is not what was ingested")
        if expected:
            raise WrongAnswer(f"{len(expected)} files are missing from a tar")
