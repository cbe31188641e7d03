"""Reading from a folder: codweb beside nginx and Orthanc over the same bytes, few studies beside many, one worker beside two.

All servers run at the same time and are asked in turn, so that a disturbance meets all of them.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import msgspec

from benchmarks import machine, orthanc, server, wrk
from benchmarks.cold import ColdStarts, wait_until_complete
from benchmarks.data import Data, Manifest
from benchmarks.progress import progress
from benchmarks.report import CODWEB, FEW, NGINX, ORTHANC, Results, two_workers
from benchmarks.rows import ORTHANC as ORTHANC_DIALECT
from benchmarks.rows import PAGE, Row, Rows
from benchmarks.server import HOST, Server
from benchmarks.variants import Variants
from benchmarks.warm import Contender, Contest, Pace, file_rows

WORKERS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    limit_seconds: float
    """Of warm rounds: no round begins that could not end by then. Cold rounds have half of it for themselves."""
    pace: Pace
    with_orthanc: bool


def measure(data: Data, folder: Path, plan: Plan, command: str) -> Results:
    """One run over prepared data; `folder` is empty and is left so by the caller.

    Raises:
        WrongAnswer, Unanswered: an answer was wrong or missing; nothing is reported.
        RuntimeError: a process did not start.
    """
    begun, others, load_before = perf_counter(), machine.OthersMeter(), machine.load_average()
    cold = ColdStarts(data, server.free_port(), folder)
    done_cold = _repeat("cold starts", 1, lambda _: cold.round(), plan.rounds, plan.limit_seconds / 2)
    with ExitStack() as stack:
        contest, variants = Contest(plan.pace), Variants(data.manifest)
        run = _Run(data, folder, contest, stack)
        main = run.enter_codweb()
        run.enter_few()
        if server.has_workers():
            run.enter_workers()
        nginx, peer = server.nginx_program(), orthanc.program() if plan.with_orthanc else None
        if nginx is not None:
            run.enter_nginx(nginx)
        if peer is not None:
            run.enter_orthanc(peer)
        contest.settle()

        def one_round(advance: Callable[[], None]) -> None:
            contest.round(advance)
            variants.round(main)

        done_warm = _repeat("warm rows", contest.stretches, one_round, plan.rounds, plan.limit_seconds)
        contest.check_again()
    done = min(done_cold, done_warm)
    return Results(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        machine=machine.describe(),
        manifest=data.manifest,
        rounds=done,
        client=f"wrk {wrk.version()} (Python for answers above 2 MB or 0.1 s)"
        if plan.pace.client == "wrk"
        else "Python",
        nginx_version=server.nginx_version(nginx) if nginx is not None else None,
        orthanc_version=orthanc.version(peer) if peer is not None else None,
        workers=WORKERS if server.has_workers() else 1,
        load_before=load_before,
        load_after=machine.load_average(),
        others=others.cores(),
        seconds=perf_counter() - begun,
        index_seconds=run.index_seconds,
        cold=[*cold.all, variants.series, variants.study],
        warm=contest.measured,
        memory_growth_mb=contest.memory_growth_mb,
        left_out=f"{plan.rounds - done} of {plan.rounds} rounds, for want of time" if done < plan.rounds else None,
    )


class _Run:
    """The servers of one run, which live as long as the stack."""

    def __init__(self, data: Data, folder: Path, contest: Contest, stack: ExitStack) -> None:
        self._data, self._folder, self._contest, self._stack = data, folder, contest, stack
        self._rows = Rows(data.manifest).all()
        self._port = server.free_port()
        self._files = folder / "files"
        self._files.mkdir()
        self.index_seconds = 0.0

    def enter_codweb(self) -> Server:
        """The server over all studies, with one worker; its answers become nginx's files."""
        with progress(f"codweb index, {self._data.manifest.instances:,} instances", 1) as advance:
            self.index_seconds = server.index(self._data.datastore, self._folder / "all" / "state", self._port)
            advance()
        running = self._codweb(self._data.datastore, "all", self._port)
        keep = self._files if server.nginx_program() is not None else None
        self._enter(Contender(CODWEB, running, self._rows), keep=keep)
        return running

    def enter_few(self) -> None:
        """The same over few studies: what grows with the number of studies shows beside it."""
        port = server.free_port()
        with progress("codweb index, few studies", 1) as advance:
            server.index(self._data.few, self._folder / "few" / "state", port)
            advance()
        running = self._codweb(self._data.few, "few", port)
        self._enter(Contender(FEW, running, Rows(self._data.manifest.of_few()).all(), one_only=True))

    def enter_workers(self) -> None:
        """The same as the first with several workers, and a copy of its state."""
        shutil.copytree(self._folder / "all" / "state", self._folder / "workers" / "state")
        links = {"CODWEB_PUBLIC_URL": f"http://{HOST}:{self._port}/dicomweb"}  # those that the index holds
        running = self._codweb(self._data.datastore, "workers", server.free_port(), workers=WORKERS, variables=links)
        rows = [row for row in self._rows if row.clients]
        self._enter(Contender(two_workers(WORKERS), running, rows, many_only=True))

    def enter_nginx(self, program: str) -> None:
        """The same bytes from files that are ready."""
        gzipped = [row.slug for row in self._rows if row.beside_nginx and row.name.endswith("gzip")]
        running = self._stack.enter_context(server.nginx(program, self._files, server.free_port(), gzipped=gzipped))
        self._enter(Contender(NGINX, running, file_rows(self._rows, self._files)))

    def enter_orthanc(self, program: str) -> None:
        """Orthanc with the few studies, and with enough small ones for a page."""
        known = _for_orthanc(self._data.manifest)
        running = self._stack.enter_context(orthanc.orthanc(program, self._folder / "orthanc", server.free_port()))
        with progress(f"sending {known.instances:,} instances to Orthanc", len(known.keys)) as advance:
            orthanc.send(running, self._data.datastore, known.keys, advance)
        rows = [row for row in Rows(known, ORTHANC_DIALECT).all() if row.beside_orthanc]
        self._enter(Contender(ORTHANC, running, rows))

    def _codweb(
        self, datastore: Path, name: str, port: int, *, workers: int = 1, variables: dict[str, str] | None = None
    ) -> Server:
        state = self._folder / name / "state"
        context = server.codweb(datastore, state, port, workers=workers, variables=variables)
        running = self._stack.enter_context(context)
        wait_until_complete(running)
        return running

    def _enter(self, contender: Contender, *, keep: Path | None = None) -> None:
        rows: list[Row] = [*contender.rows]
        with progress(f"checking the answers of {contender.name}", len(rows)) as advance:
            self._contest.enter(contender, advance, keep=keep)


def _for_orthanc(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest.of_few(), page=manifest.page[:PAGE])


def _repeat(
    name: str, steps: int, measure_round: Callable[[Callable[[], None]], None], rounds: int, seconds: float
) -> int:
    """Measure round after round while there is time for one as long as the longest; how many were measured."""
    longest, until = 0.0, perf_counter() + seconds
    for number in range(rounds):
        begun = perf_counter()
        if number and begun + longest > until:
            return number
        with progress(f"{name}, round {number + 1} of {rounds}", steps) as advance:
            measure_round(advance)
        longest = max(longest, perf_counter() - begun)
    return rounds
