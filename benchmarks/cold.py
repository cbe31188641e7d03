"""Cold starts: a new process with an empty state folder, and how long until it has answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import msgspec

from benchmarks import rows
from benchmarks.data import Data
from benchmarks.load import Answer, Connection, Unanswered, encode
from benchmarks.machine import Meter
from benchmarks.rows import Question
from benchmarks.server import Server, codweb, index

DEEP_TIMEOUT_SECONDS = 60
COMPLETE_TIMEOUT_SECONDS = 120
_POLL_SECONDS = 0.02


@dataclass(slots=True)
class ColdRow:
    """What one kind of cold start took, a value a round."""

    name: str
    aim_ms: float | None = None
    values_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of the server meanwhile, which other processes disturb less."""
    others: list[float] = field(default_factory=list)
    """Cores that other processes used meanwhile."""

    @property
    def median_ms(self) -> float:
        return median(self.values_ms)


class ColdStarts:
    """The cold rows of one run, over the datastore of few studies: the first sync is short beside what is measured."""

    def __init__(self, data: Data, port: int, folder: Path) -> None:
        """`folder`: where state folders are made, and left empty."""
        self._data, self._port, self._folder = data, port, folder
        manifest = data.manifest.of_few()
        one, count = manifest.small[len(manifest.small) // 2], len(manifest.small[0].instances)
        self._quick = rows.quick_metadata(manifest, one)
        self._deep = rows.deep_metadata(manifest, one)
        self._frame = rows.first_frame(manifest.large)
        self.start = ColdRow("process: from the command until /healthz answers")
        self.calm_quick = ColdRow("series metadata, quick, first request (catalogue complete, deepening off)", 150)
        self.frame = ColdRow("frame 512×512, first request (catalogue complete, deepening off)")
        self.busy_quick = ColdRow("series metadata, quick, as soon as /healthz answers (sync and deepening under way)")
        self.until_deep = ColdRow("series metadata: from the command until it is deep (deepening all, asked for first)")
        self.index = ColdRow(f"codweb index of one series of {count}, from the command to its end")

    @property
    def all(self) -> list[ColdRow]:
        return [self.start, self.calm_quick, self.frame, self.busy_quick, self.until_deep, self.index]

    def round(self) -> None:
        """Measure each once. Raises WrongAnswer, Unanswered."""
        with self._server("off") as server:
            self.start.values_ms.append(server.ready_seconds * 1e3)
            wait_until_complete(server)
            self._first(server, self._quick, self.calm_quick)
        with self._server("off") as server:
            wait_until_complete(server)
            self._first(server, self._frame, self.frame)
        with self._server("all") as server:
            self._first(server, self._quick, self.busy_quick)
            self._wait_until_deep(server)
        self._index()

    def _first(self, server: Server, question: Question, row: ColdRow) -> None:
        with Connection(server.port) as connection:
            meter = Meter(server.pid)
            answer = connection.get(encode(question.path, question.headers))
            spent = meter.spent()
        question.check(answer)
        row.values_ms.append(answer.seconds * 1e3)
        row.cpu_ms.append(spent.measured_seconds * 1e3)
        row.others.append(spent.others)

    def _wait_until_deep(self, server: Server) -> None:
        meter = Meter(server.pid)
        with Connection(server.port) as connection:

            def ask() -> Answer:
                return connection.get(encode(self._deep.path, self._deep.headers))

            answer = _poll(ask, lambda answer: answer.headers.get("x-cod-metadata") == "deep", DEEP_TIMEOUT_SECONDS)
            self.until_deep.values_ms.append((perf_counter() - server.begun) * 1e3)
        self.until_deep.others.append(meter.spent().others)
        self._deep.check(answer)

    def _index(self) -> None:
        with TemporaryDirectory(dir=self._folder) as state:
            self.index.values_ms.append(index(self._data.one_series, Path(state), self._port) * 1e3)

    @contextmanager
    def _server(self, deepen: str) -> Iterator[Server]:
        with (
            TemporaryDirectory(dir=self._folder) as folder,
            codweb(self._data.few, Path(folder) / "state", self._port, deepen=deepen) as server,
        ):
            yield server


def wait_until_complete(server: Server) -> None:
    """Until the first sync is through."""
    with Connection(server.port) as connection:

        def is_complete(answer: Answer) -> bool:
            return answer.status == 200 and msgspec.json.decode(answer.body)["catalogue"]["complete"] is True

        _poll(lambda: connection.get(encode("/readyz")), is_complete, COMPLETE_TIMEOUT_SECONDS)


def _poll(ask: Callable[[], Answer], is_there: Callable[[Answer], bool], seconds: float) -> Answer:
    until = perf_counter() + seconds
    while not is_there(answer := ask()):
        if perf_counter() > until:
            raise Unanswered(f"still not there after {seconds:.0f} seconds")
        sleep(_POLL_SECONDS)
    return answer
