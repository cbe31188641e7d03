"""Warm rows: several servers in turn, round after round, after every answer of each has been checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import sleep
from typing import Literal

from benchmarks import answers, wrk
from benchmarks.load import Asked, Connection, Times, encode, many_clients, one_client
from benchmarks.machine import Meter, Spent, peak_resident_mb, reset_peak, resident_mb
from benchmarks.rows import Question, Row
from benchmarks.server import Server

Client = Literal["wrk", "python"]

LEAST_ANSWERS = 3
LEAST_TRANSFERS = 2
LONG_SECONDS, LONG_BYTES = 0.1, 2e6
"""Answers that take or weigh more are counted by the Python client, which is no limit to them: wrk stops in their midst."""
MANY_LONG_SECONDS = 0.1
"""Answers that take longer are not asked for by many clients: a stretch would hold too few."""
ONCE_SECONDS = 0.5
"""Answers that take longer are asked for once a stretch."""
_SETTLED_SECONDS = 10
"""How long servers may take to come to rest before they are measured."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stretch lasts, and who asks."""

    seconds: float
    client: Client


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is measured beside the others."""

    name: str
    server: Server
    rows: Sequence[Row]
    many_only: bool = False
    """Whether only its rows with many clients are measured."""
    one_only: bool = False


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
    client: Client
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
    def client_cores(self) -> float:
        """Cores that the client used: near 1, it is the client that is measured."""
        return median(cell.spent.client for cell in self.cells)


@dataclass(frozen=True, slots=True)
class _Target:
    """One server's questions of one row, checked."""

    contender: Contender
    row: Row
    asked: list[Asked]
    least: int
    """Answers of one stretch with one client."""
    measured: list[Measured]


class Contest:
    """Servers that are asked the same rows in turn. A server enters when all its answers have been checked."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._targets: dict[str, list[_Target]] = {}
        """By row."""
        self._rounds = 0
        self.memory_growth_mb: dict[str, float] = {}
        """By how much each server's memory grew at most while it sent the longest answer for the first time."""

    @property
    def measured(self) -> list[Measured]:
        return [measured for target in self._all() for measured in target.measured]

    @property
    def stretches(self) -> int:
        """How many a round has."""
        return len(self.measured)

    def enter(self, contender: Contender, advance: Callable[[], None], *, keep: Path | None = None) -> None:
        """Check every answer of every row.

        Args:
            keep: folder for the bodies of rows that nginx is to send as files.

        Raises:
            WrongAnswer: an answer is not what the manifest says; nothing is measured.
            Unanswered: there is none.
        """
        server = contender.server
        for row in contender.rows:
            before = resident_mb(server.pid)
            reset_peak(server.pid)
            target = self._checked(contender, row, keep if row.beside_nginx else None)
            self._targets.setdefault(row.name, []).append(target)
            if row.is_transfer:
                self.memory_growth_mb[contender.name] = max(0.0, peak_resident_mb(server.pid) - before)
            advance()

    def round(self, advance: Callable[[], None]) -> None:
        """Measure every row once, the servers in alternating order. Raises Unanswered."""
        self._rounds += 1
        for targets in self._targets.values():
            for target in targets if self._rounds % 2 else reversed(targets):
                for measured in target.measured:
                    measured.cells.append(self._stretch(target, measured))
                    advance()

    def check_again(self) -> None:
        """The answers must be right under load as well: the first of each row. Raises WrongAnswer."""
        for target in self._all():
            with Connection(target.contender.server.port) as connection:
                question = target.row.questions[0]
                question.check(connection.get(encode(question.path, question.headers)))

    def settle(self) -> None:
        """Wait for what the servers still do in the background."""
        pids = {target.contender.server.pid for target in self._all()}
        for _ in range(_SETTLED_SECONDS * 2):
            meters = [Meter(pid) for pid in pids]
            sleep(0.5)
            if sum(meter.spent().measured_seconds for meter in meters) <= 0.03:
                return

    def _all(self) -> list[_Target]:
        return [target for targets in self._targets.values() for target in targets]

    def _checked(self, contender: Contender, row: Row, keep: Path | None) -> _Target:
        asked, seconds = [], []
        if keep is not None:
            (keep / row.slug).mkdir(parents=True)
        with Connection(contender.server.port) as connection:
            for number, question in enumerate(row.questions):
                request = encode(question.path, question.headers)
                answer = connection.get(request)
                try:
                    question.check(answer)
                except (answers.WrongAnswer, ValueError, KeyError) as error:
                    raise answers.WrongAnswer(f"{contender.name}, {row.name}: {error}") from error
                asked.append(Asked(request, len(answer.body)))
                seconds.append(answer.seconds)
                if keep is not None:
                    (keep / row.slug / str(number)).write_bytes(answer.body)
        mean = sum(one.length for one in asked) / len(asked)
        is_long = median(seconds) > LONG_SECONDS or mean > LONG_BYTES
        client: Client = "python" if is_long else self._pace.client
        counts = (*(() if contender.many_only else (1,)), *(() if contender.one_only else row.clients))
        return _Target(
            contender,
            row,
            asked,
            1 if median(seconds) > ONCE_SECONDS else LEAST_TRANSFERS if row.is_transfer else LEAST_ANSWERS,
            [
                Measured(row, contender.name, count, client, mean)
                for count in counts
                if count == 1 or median(seconds) <= MANY_LONG_SECONDS
            ],
        )

    def _stretch(self, target: _Target, measured: Measured) -> Cell:
        seconds, port = self._pace.seconds, target.contender.server.port
        meter = Meter(target.contender.server.pid)
        if measured.client == "wrk":
            times = wrk.ask(port, target.asked, measured.clients, seconds=max(1, round(seconds)))
        elif measured.clients == 1:
            times = one_client(port, target.asked, seconds=seconds, least=target.least)
        else:
            times = many_clients(port, target.asked, measured.clients, seconds=seconds)
        return Cell(times, meter.spent())


def file_rows(rows: Sequence[Row], files: Path) -> list[Row]:
    """What nginx is asked: the files of the answers that were kept."""
    found = []
    for row in rows:
        if row.beside_nginx:
            questions = [
                Question(f"/{row.slug}/{number}", question.headers, answers.same_bytes(_body(files, row, number)))
                for number, question in enumerate(row.questions)
            ]
            found.append(Row(row.name, questions, clients=row.clients, beside_nginx=True, is_transfer=row.is_transfer))
    return found


def _body(files: Path, row: Row, number: int) -> bytes:
    return (files / row.slug / str(number)).read_bytes()
