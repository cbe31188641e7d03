"""Random tiles of a slide in S3: codweb beside highdicom's lazy reading through smart_open, one after the other.

codweb reads from the tar of its datastore; highdicom reads the same slide, bit for bit, as an object of its own, since it
opens DICOM files and no tars. The store counts requests and bytes.
"""

import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks import answers, machine
from benchmarks.cloud import PREFIX, Missing, Moved, check_s3, cloud_codweb, moved
from benchmarks.cold import wait_until_complete
from benchmarks.data import Data, link
from benchmarks.far_s3.distance import HERE, Distance
from benchmarks.far_s3.process import FarStore, far_store
from benchmarks.load import Connection, encode
from benchmarks.progress import progress
from benchmarks.rows import tile_questions
from benchmarks.slides import Slide
from benchmarks.tables import figure, row, size, table

PEER_TIMEOUT_SECONDS = 240
_SCRIPT = Path(__file__).with_name("highdicom_tiles.py")


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader at one slide at one distance."""

    reader: str
    slide: str
    latency_seconds: float
    first_ms: float
    """codweb: the first tile, from a state that knows nothing of the slide; highdicom: until the slide is open."""
    first_moved: Moved
    tiles: int
    p50_ms: float | None
    seconds: float
    moved: Moved


@dataclass(frozen=True, slots=True)
class TileResults:
    """One run."""

    date: str
    command: str
    machine: dict[str, object]
    others: float
    tile_bytes: float
    readings: Sequence[Reading]
    left_out: str | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "others_cores": round(self.others, 2),
            "tile_bytes": self.tile_bytes,
            "readings": [
                {
                    "reader": one.reader,
                    "slide": one.slide,
                    "latency_seconds": one.latency_seconds,
                    "first_ms": one.first_ms,
                    "first_requests": one.first_moved.requests,
                    "first_bytes": one.first_moved.bytes,
                    "tiles": one.tiles,
                    "per_second": one.tiles / one.seconds,
                    "requests": one.moved.requests,
                    "bytes": one.moved.bytes,
                }
                for one in self.readings
            ],
            "left_out": self.left_out,
        }

    def as_markdown(self) -> str:
        tiles = max((one.tiles for one in self.readings), default=0)
        heading = (
            f"Command: `{self.command}`.\n\n{self.date}, {self.machine['processor']}, {self.machine['cores']} cores. "
            f"{tiles} random tiles of {size(self.tile_bytes)}, one client, one after the other, undecoded, from the same "
            f"store. Other processes used {self.others:.2f} cores meanwhile."
        )
        heads = ["Reader", "latency ms", "slide", "first ms", "requests", "bytes"]
        lines = table([*heads, "tiles/s", "p50 ms", "requests a tile", "bytes a tile"])
        for one in self.readings:
            cells = [
                one.reader,
                f"{one.latency_seconds * 1e3:.0f}",
                one.slide,
                figure(one.first_ms),
                str(one.first_moved.requests),
                size(one.first_moved.bytes),
                figure(one.tiles / one.seconds),
                figure(one.p50_ms) if one.p50_ms is not None else "",
                f"{one.moved.requests / one.tiles:.2f}",
                size(one.moved.bytes / one.tiles),
            ]
            lines.append(row(cells))
        note = (
            "*first*: codweb the first tile, of a slide that it has never seen; highdicom until the slide is open. "
            "Bytes are those that the store sent, read or not."
        )
        left_out = f"**Left out: {self.left_out}.**" if self.left_out is not None else ""
        return "\n\n".join(part for part in (heading, left_out, "\n".join(lines), note) if part) + "\n"


def measure(data: Data, folder: Path, command: str, peer_python: str, *, count: int) -> TileResults:
    """One run over `count` tiles of each slide. Raises WrongAnswer, Unanswered, RuntimeError: a process did not start."""
    others, readings = machine.OthersMeter(), []
    slides = data.manifest.slides
    bucket = folder / "bucket"
    link(data.few, bucket / PREFIX, [(one.study_uid, one.series_uid) for one in slides])
    peer, left_out = peer_python or sys.executable, None
    if not _has_highdicom(peer):
        left_out = "highdicom: install benchmarks/requirements.txt, and name that Python by --peer-python"
    try:
        check_s3()
        with progress("random tiles from S3", 2 * 2 * len(slides)) as advance:
            for distance in (HERE, Distance()):
                with far_store(bucket, distance) as store:
                    for slide in slides:
                        _extract(bucket, slide)
                        readings.append(_with_codweb(store, slide, distance, folder, count))
                        advance()
                        if left_out is None:
                            readings.append(_with_highdicom(store, slide, distance, peer, count))
                        advance()
    except Missing as error:
        left_out = str(error)
    return TileResults(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        machine=machine.describe(),
        others=others.cores(),
        tile_bytes=sum(slide.bytes for slide in slides) / sum(len(slide.tiles) for slide in slides),
        readings=readings,
        left_out=left_out,
    )


def _with_codweb(store: FarStore, slide: Slide, distance: Distance, folder: Path, count: int) -> Reading:
    questions = tile_questions(slide)[: count + 1]
    with (
        TemporaryDirectory(dir=folder) as place,
        cloud_codweb(store, Path(place) / "state", deepen="off", shared=False) as server,
        Connection(server.port) as connection,
    ):
        wait_until_complete(server)
        before, taken = store.counts(), []
        for number, question in enumerate(questions):
            answer = connection.get(encode(question.path, question.headers))
            question.check(answer)
            taken.append(answer.seconds)
            if number == 0:
                between = store.counts()
        after = store.counts()
    return Reading(
        reader="codweb",
        slide=_name(slide),
        latency_seconds=distance.latency_seconds,
        first_ms=taken[0] * 1e3,
        first_moved=moved(before, between),
        tiles=len(questions) - 1,
        p50_ms=median(taken[1:]) * 1e3,
        seconds=sum(taken[1:]),
        moved=moved(between, after),
    )


def _with_highdicom(store: FarStore, slide: Slide, distance: Distance, python: str, count: int) -> Reading:
    indices = random.Random(3).sample(range(len(slide.tiles)), min(count, len(slide.tiles)))
    command = [python, str(_SCRIPT), store.endpoint, store.bucket, _key(slide), ",".join(map(str, indices))]
    before = store.counts()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        begun = perf_counter()
        opened = process.stdout.readline()
        between = store.counts()
        told, _ = process.communicate("go\n", timeout=PEER_TIMEOUT_SECONDS)
    if process.returncode:
        raise RuntimeError(f"highdicom ended with {process.returncode} after {perf_counter() - begun:.0f} s")
    found = json.loads(told)
    if found["sha256"] != [slide.tiles[index] for index in indices]:
        raise answers.WrongAnswer("highdicom read other tiles")
    return Reading(
        reader="highdicom, smart_open",
        slide=_name(slide),
        latency_seconds=distance.latency_seconds,
        first_ms=json.loads(opened)["open_seconds"] * 1e3,
        first_moved=moved(before, between),
        tiles=len(indices),
        p50_ms=None,
        seconds=found["seconds"],
        moved=moved(between, store.counts()),
    )


def _has_highdicom(python: str) -> bool:
    command = [python, "-c", "import boto3, highdicom, smart_open"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


def _extract(bucket: Path, slide: Slide) -> None:
    """The slide's file as an object beside the datastore."""
    target = bucket / _key(slide)
    if target.exists():
        return
    with tarfile.open(bucket / PREFIX / "studies" / slide.study_uid / "series" / f"{slide.series_uid}.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name.endswith(".dcm"):
                target.write_bytes(file.read())


def _key(slide: Slide) -> str:
    return f"{slide.uid}.dcm"


def _name(slide: Slide) -> str:
    return "with table" if slide.has_table else "without table"
