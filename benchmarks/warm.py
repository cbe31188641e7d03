"""Warm rows: codweb and nginx in turn, round after round, after every answer has been checked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import sleep

from benchmarks import answers
from benchmarks.cold import wait_until_complete
from benchmarks.data import Data
from benchmarks.load import Asked, Connection, Times, encode, many_clients, one_client
from benchmarks.machine import Meter, Spent, peak_resident_mb, reset_peak, resident_mb
from benchmarks.rows import Question, Row, warm_rows
from benchmarks.server import Server, codweb, free_port, nginx

CELL_SECONDS = 0.4
MANY_CELL_SECONDS = 0.8
LEAST_ANSWERS = 5
LEAST_TRANSFERS = 2
_SETTLED_SECONDS = 10
"""How long a server may take to come to rest before it is measured."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One stretch of one row: one server, one number of clients."""

    times: Times
    spent: Spent

    @property
    def cpu_ms(self) -> float:
        """Processor time of the server for one answer."""
        return self.spent.measured_seconds / self.times.count * 1e3


@dataclass(frozen=True, slots=True)
class Measured:
    """The cells of one row, server and number of clients: one of each round."""

    row: Row
    server: str
    clients: int
    answer_bytes: float
    """Mean of the row's answers, as they are sent, without their heads."""
    cells: list[Cell] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Over the rounds, of a field of `Times`, or of `cpu_ms`."""
        return median(float(getattr(cell if name == "cpu_ms" else cell.times, name)) for cell in self.cells)

    @property
    def others(self) -> float:
        """Cores that other processes used meanwhile, at worst."""
        return max(cell.spent.others for cell in self.cells)

    @property
    def client(self) -> float:
        """Cores that the client used: near 1, it is the client that is measured."""
        return median(cell.spent.client for cell in self.cells)


@dataclass(frozen=True, slots=True)
class _Target:
    """One server's questions of one row, checked."""

    row: Row
    name: str
    server: Server
    asked: list[Asked]
    by_clients: dict[int, Measured]


class WarmRun:
    """A server over an indexed state and nginx beside it, all answers checked."""

    def __init__(self, pairs: list[list[_Target]], memory_growth_mb: float, nginx_is_there: bool) -> None:
        self._pairs = pairs
        self.memory_growth_mb = memory_growth_mb
        """By how much the server's memory grew at most while it sent the longest answer for the first time."""
        self.nginx_is_there = nginx_is_there
        self._rounds = 0

    @property
    def measured(self) -> list[Measured]:
        return [measured for pair in self._pairs for target in pair for measured in target.by_clients.values()]

    def round(self) -> None:
        """Measure every row once, codweb and nginx in alternating order. Raises Unanswered."""
        self._rounds += 1
        for pair in self._pairs:
            for target in pair if self._rounds % 2 else reversed(pair):
                for clients, measured in target.by_clients.items():
                    measured.cells.append(_measure(target, clients))

    def check_again(self) -> None:
        """The answers must be right under load as well: the first of each row. Raises WrongAnswer."""
        for pair in self._pairs:
            [codweb_target, *_] = pair
            with Connection(codweb_target.server.port) as connection:
                question = codweb_target.row.questions[0]
                question.check(connection.get(encode(question.path, question.headers)))


@contextmanager
def warm_run(data: Data, state: Path, port: int, folder: Path, nginx_program: str | None) -> Iterator[WarmRun]:
    """Start both servers and check every answer of both.

    Args:
        state: indexed already, for a server on `port`.
        folder: for nginx's files.

    Raises:
        WrongAnswer: an answer is not what the manifest says; nothing is measured.
    """
    files = folder / "files"
    files.mkdir()
    with codweb(data.datastore, state, port) as server:
        wait_until_complete(server)
        growth = 0.0
        pairs = []
        for row in warm_rows(data.manifest):
            before = resident_mb(server.pid)
            reset_peak(server.pid)
            keep = files / row.slug if row.beside_nginx and nginx_program is not None else None
            pairs.append([_target(row, "codweb", server, row.questions, keep)])
            if row.is_transfer:
                growth = peak_resident_mb(server.pid) - before
        if nginx_program is None:
            _settle(server)
            yield WarmRun(pairs, growth, False)
            return
        gzipped = [row.slug for row in warm_rows(data.manifest) if row.beside_nginx and row.name.endswith("gzip")]
        with nginx(nginx_program, files, free_port(), gzipped=gzipped) as beside:
            for pair in pairs:
                row = pair[0].row
                if row.beside_nginx:
                    pair.append(_target(row, "nginx", beside, _file_questions(row, files), None))
            _settle(server)
            yield WarmRun(pairs, growth, True)


def _target(row: Row, name: str, server: Server, questions: Sequence[Question], keep: Path | None) -> _Target:
    """Check every answer of a row, and keep the bodies as files if nginx is to send them too."""
    asked = []
    if keep is not None:
        keep.mkdir()
    with Connection(server.port) as connection:
        for number, question in enumerate(questions):
            request = encode(question.path, question.headers)
            answer = connection.get(request)
            try:
                question.check(answer)
            except answers.WrongAnswer as error:
                raise answers.WrongAnswer(f"{name}, {row.name}: {error}") from error
            asked.append(Asked(request, len(answer.body)))
            if keep is not None:
                (keep / str(number)).write_bytes(answer.body)
    mean = sum(one.length for one in asked) / len(asked)
    return _Target(row, name, server, asked, {count: Measured(row, name, count, mean) for count in (1, *row.clients)})


def _file_questions(row: Row, files: Path) -> list[Question]:
    """What nginx is asked instead of the questions of a row: the files of their answers."""
    return [
        Question(
            f"/{row.slug}/{number}",
            question.headers,
            answers.same_bytes((files / row.slug / str(number)).read_bytes()),
        )
        for number, question in enumerate(row.questions)
    ]


def _measure(target: _Target, clients: int) -> Cell:
    meter = Meter(target.server.pid)
    if clients == 1:
        least = LEAST_TRANSFERS if target.row.is_transfer else LEAST_ANSWERS
        times = one_client(target.server.port, target.asked, seconds=CELL_SECONDS, least=least)
    else:
        times = many_clients(target.server.port, target.asked, clients, seconds=MANY_CELL_SECONDS)
    return Cell(times, meter.spent())


def _settle(server: Server) -> None:
    """Wait for what the server still does in the background."""
    for _ in range(_SETTLED_SECONDS * 2):
        meter = Meter(server.pid)
        sleep(0.5)
        if meter.spent().measured_seconds <= 0.02:
            return
