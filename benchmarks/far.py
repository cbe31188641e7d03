"""Reading from a bucket that is 30 ms away: what a viewer on the cloud feels.

The first image from a new process with an empty state folder, and a whole CT over six connections, each in a process that
has not read it before. The store counts requests and bytes; every answer is checked after the clock has stopped.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Lock
from time import perf_counter, sleep

from benchmarks import answers, machine
from benchmarks.cloud import PREFIX, Missing, Moved, can_share, check_s3, cloud_codweb, moved
from benchmarks.cold import wait_until_complete
from benchmarks.data import Data, Instance, Series, link
from benchmarks.far_s3.distance import HERE, Distance
from benchmarks.far_s3.process import FarStore, far_store
from benchmarks.load import Answer, Connection, Unanswered, encode
from benchmarks.progress import progress
from benchmarks.rows import ROOT, Question, deep_metadata, first_frame, frame_of
from benchmarks.server import Server
from benchmarks.tables import figure, mark, row, table

CONNECTIONS = 6
"""Of a browser to one host with HTTP/1.1."""
BLOCK_BYTES = 8 << 20
FIRST_IMAGE_AIM_MS = 300
WHOLE_AIM, BYTES_AIM = 1.1, 1.2
DEEP_TIMEOUT_SECONDS = 90
SHARE_TIMEOUT_SECONDS = 20
"""After the last series has become deep; the report says how many indexes were there then."""
STEADY = Distance()
RESTLESS = Distance(jitter=0.3, tail_probability=0.02)
Order = Callable[[Sequence[Instance]], list[Instance]]
_JSON = {"Accept": "application/dicom+json"}


@dataclass(slots=True)
class FirstImage:
    """From a process that knows nothing to the first image, a value a round."""

    name: str
    shared: bool
    depth: str = ""
    """Of the metadata that was sent."""
    steps_ms: dict[str, list[float]] = field(default_factory=dict)
    requests: dict[str, list[int]] = field(default_factory=dict)

    @property
    def total_ms(self) -> float:
        return median(map(sum, zip(*self.steps_ms.values(), strict=True)))


@dataclass(slots=True)
class Scroll:
    """A whole series, frame by frame, in some order; a value a round."""

    name: str
    distance: Distance
    bytes: int
    seconds: list[float] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)

    @property
    def one_stream_seconds(self) -> float:
        """What one stream of the store would take for the bytes alone."""
        return self.bytes / self.distance.bytes_per_second

    @property
    def requests_aim(self) -> int:
        return self.bytes // BLOCK_BYTES + 4


@dataclass(frozen=True, slots=True)
class FarResults:
    """One run."""

    date: str
    command: str
    machine: dict[str, object]
    rounds: int
    others: float
    shared_indexes: int
    """How many series indexes lay in the bucket before."""
    first: Sequence[FirstImage]
    scrolls: Sequence[Scroll]
    left_out: str | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "others_cores": round(self.others, 2),
            "shared_indexes": self.shared_indexes,
            "first_image": [
                {
                    "row": one.name,
                    "total_ms": round(one.total_ms, 1),
                    "steps_ms": one.steps_ms,
                    "requests": one.requests,
                }
                for one in self.first
            ],
            "whole_series": [
                {
                    "row": one.name,
                    "seconds": one.seconds,
                    "bytes": one.bytes,
                    "one_stream_seconds": one.one_stream_seconds,
                    "requests": [each.requests for each in one.moved],
                    "moved_bytes": [each.bytes for each in one.moved],
                    "by_kind": [each.by_kind for each in one.moved],
                    "busiest": [each.busiest for each in one.moved],
                }
                for one in self.scrolls
            ],
            "left_out": self.left_out,
        }

    def as_markdown(self) -> str:
        heading = (
            f"Command: `{self.command}`.\n\n{self.date}, {self.machine['processor']}, {self.machine['cores']} cores; "
            f"store, codweb and viewer share them; medians of {self.rounds} rounds. The store waits "
            f"{STEADY.latency_seconds * 1e3:.0f} ms before each answer and sends {STEADY.bytes_per_second / 1e6:.0f} MB/s "
            f"on each stream; *restless*: ±{RESTLESS.jitter:.0%}, and {RESTLESS.tail_probability:.0%} of the answers wait "
            f"{RESTLESS.tail_factor:.0f} times as long. {self.shared_indexes} series indexes lay in the bucket.\n"
            f"Other processes used {self.others:.2f} cores meanwhile."
        )
        left_out = f"**Left out: {self.left_out}.**" if self.left_out is not None else ""
        return "\n\n".join(part for part in (heading, left_out, self._first(), self._scrolls()) if part) + "\n"

    def _first(self) -> str:
        if not self.first:
            return ""
        steps = [*self.first[0].steps_ms]
        lines = table(["First image, ms (bucket requests)", *steps, "together", "aim"])
        for one in self.first:
            cells = [
                f"{figure(median(one.steps_ms[step]))} ({median(one.requests[step]):.0f})" for step in one.steps_ms
            ]
            aim = mark(FIRST_IMAGE_AIM_MS if one.shared else None, one.total_ms)
            lines.append(row([f"{one.name} ({one.depth} metadata)", *cells, f"{one.total_ms:,.0f}", aim]))
        return "\n".join(lines)

    def _scrolls(self) -> str:
        heads = ["Whole CT, 6 connections", "seconds", "MB/s", "× one stream", "streams at once", "aim", "requests"]
        lines = table([*heads, "aim", "bytes moved ×", "aim"])
        for one in self.scrolls:
            if one.seconds:
                seconds = median(one.seconds)
                requests, times = median(each.requests for each in one.moved), self._times(one)
                ratio = seconds / one.one_stream_seconds
                cells = [
                    one.name,
                    f"{seconds:.2f}",
                    f"{one.bytes / seconds / 1e6:,.0f}",
                    f"{ratio:.2f}",
                    str(max(each.busiest for each in one.moved)),
                    mark(WHOLE_AIM, ratio),
                    f"{requests:.0f}",
                    mark(one.requests_aim, requests),
                    f"{times:.2f}",
                    mark(BYTES_AIM, times),
                ]
                lines.append(row(cells))
        return "\n".join(lines)

    def _times(self, scroll: Scroll) -> float:
        return median(each.bytes for each in scroll.moved) / scroll.bytes


def measure(data: Data, folder: Path, rounds: int, command: str, *, is_quick: bool) -> FarResults:
    """One run. Raises WrongAnswer, Unanswered, RuntimeError: a process did not start."""
    others = machine.OthersMeter()
    run, left_out = _Run(data, folder, is_quick), None
    try:
        check_s3()
        run.prepare()
        for number in range(rounds):
            with progress(f"far bucket, round {number + 1} of {rounds}", run.steps) as advance:
                run.round(advance)
    except Missing as error:
        left_out = str(error)
    return FarResults(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        machine=machine.describe(),
        rounds=rounds,
        others=others.cores(),
        shared_indexes=run.shared_indexes,
        first=[one for one in run.first if one.steps_ms],
        scrolls=run.scrolls,
        left_out=left_out,
    )


def front_to_back(instances: Sequence[Instance]) -> list[Instance]:
    return [*instances]


def as_ohif(instances: Sequence[Instance]) -> list[Instance]:
    """As OHIF 3.13 was logged to ask for 12 slices: 12 (shown), 7 (the thumbnail), then 11, 10, 9, 8, 6 … 1."""
    last, middle = len(instances) - 1, len(instances) // 2
    order = [last, middle, *range(last - 1, -1, -1)]
    return [instances[index] for index in dict.fromkeys(order)]


def from_the_middle(instances: Sequence[Instance]) -> list[Instance]:
    """Outwards from the slice in the middle, to both sides in turn."""
    middle = len(instances) // 2
    return sorted(instances, key=lambda one: abs(instances.index(one) - middle + 0.25))


class _Run:
    """The datastore as a bucket, and what is asked of servers over it."""

    def __init__(self, data: Data, folder: Path, is_quick: bool) -> None:
        self._data, self._folder = data, folder
        self._manifest = data.manifest.of_few()
        self._large = self._manifest.large
        size = self._large.bytes
        self.first = [FirstImage("indexes shared", shared=True), FirstImage("nothing shared", shared=False)]
        orders: list[tuple[str, Distance, Order]] = [
            ("front to back", STEADY, front_to_back),
            ("OHIF's order", STEADY, as_ohif),
            ("from the middle outwards", STEADY, from_the_middle),
            ("front to back, restless", RESTLESS, front_to_back),
        ]
        kept = orders[:2] if is_quick else orders
        self.scrolls = [Scroll(name, distance, size) for name, distance, _ in kept]
        self._orders = [order for _, _, order in kept]
        self.shared_indexes = 0

    @property
    def steps(self) -> int:
        return len(self.first) + len(self.scrolls)

    @property
    def _bucket(self) -> Path:
        return self._folder / "bucket"

    def prepare(self) -> None:
        """Links to the datastore, and its indexes in the bucket beside it, deep."""
        link(self._data.few, self._bucket / PREFIX, self._manifest.keys)
        if not can_share():
            raise Missing("this codweb shares no indexes")
        with (
            far_store(self._bucket, HERE) as store,
            cloud_codweb(store, self._folder / "first" / "state", deepen="all", shared=True) as server,
            progress("sharing indexes", len(self._manifest.small) + 1) as advance,
        ):
            for one in (*self._manifest.small, self._large):
                _wait_until_deep(server, one)
                advance()
            until = perf_counter() + SHARE_TIMEOUT_SECONDS
            while self._count_shared() < len(self._manifest.keys) and perf_counter() < until:
                sleep(0.2)
        self.shared_indexes = self._count_shared()

    def _count_shared(self) -> int:
        return sum(path.suffix == ".index" for path in self._bucket.rglob("*"))

    def round(self, advance: Callable[[], None]) -> None:
        with far_store(self._bucket, STEADY) as store:
            for first in self.first:
                self._first_image(store, first)
                advance()
        for scroll, order in zip(self.scrolls, self._orders, strict=True):
            with far_store(self._bucket, scroll.distance) as store:
                self._scroll(store, scroll, order(self._large.instances))
            advance()

    def _first_image(self, store: FarStore, first: FirstImage) -> None:
        series = self._manifest.small[len(first.steps_ms.get("search", ())) % len(self._manifest.small)]
        others = [one for one in self._manifest.small if one.study_uid == series.study_uid]
        studies = Question(
            f"{ROOT}/studies?StudyInstanceUID={series.study_uid}", _JSON, answers.studies([series.study_uid], 1)
        )
        listed = Question(f"{ROOT}/studies/{series.study_uid}/series", _JSON, answers.series_of(others))
        steps = {
            "search": studies,
            "series list": listed,
            "metadata": deep_metadata(self._manifest, series, depth=None),
            "frame": first_frame(series),
        }
        with (
            TemporaryDirectory(dir=self._folder) as place,
            cloud_codweb(store, Path(place) / "state", deepen="off", shared=first.shared) as server,
            Connection(server.port) as connection,
        ):
            for name, question in steps.items():
                before = store.counts()
                answer = connection.get(encode(question.path, question.headers))
                question.check(answer)
                first.steps_ms.setdefault(name, []).append(answer.seconds * 1e3)
                first.requests.setdefault(name, []).append(moved(before, store.counts()).requests)
                first.depth = answer.headers.get("x-cod-metadata", first.depth)

    def _scroll(self, store: FarStore, scroll: Scroll, instances: Sequence[Instance]) -> None:
        questions = [frame_of(self._large, instance) for instance in instances]
        metadata = deep_metadata(self._manifest, self._large, depth=None)
        with (
            TemporaryDirectory(dir=self._folder) as place,
            cloud_codweb(store, Path(place) / "state", deepen="off", shared=True) as server,
        ):
            with Connection(server.port) as connection:
                wait_until_complete(server)
                metadata.check(connection.get(encode(metadata.path, metadata.headers)))
            store.count_anew()
            before = store.counts()
            begun = perf_counter()
            found = _all_of(server, questions)
            scroll.seconds.append(perf_counter() - begun)
            scroll.moved.append(moved(before, store.counts()))
        for question, answer in zip(questions, found, strict=True):
            question.check(answer)


def _all_of(server: Server, questions: Sequence[Question]) -> list[Answer]:
    """Ask each once, in their order, over as many connections as a browser has; the answers in that order."""
    found: dict[int, Answer] = {}
    requests, lock = enumerate([encode(one.path, one.headers) for one in questions]), Lock()

    def work() -> None:
        with Connection(server.port) as connection:
            while True:
                with lock:
                    number, request = next(requests, (-1, b""))
                if number < 0:
                    return
                found[number] = connection.get(request)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for future in [pool.submit(work) for _ in range(CONNECTIONS)]:
            future.result()
    return [found[number] for number in range(len(questions))]


def _wait_until_deep(server: Server, series: Series) -> None:
    request = encode(f"{ROOT}{series.path}/metadata", {**_JSON, "Accept-Encoding": "gzip"})
    until = perf_counter() + DEEP_TIMEOUT_SECONDS
    with Connection(server.port) as connection:
        while connection.get(request).headers.get("x-cod-metadata") != "deep":
            if perf_counter() > until:
                raise Unanswered("a series does not become deep")
            sleep(0.1)
