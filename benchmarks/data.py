"""The data that is measured with: made once by seed, ingested by `codweb ingest`, and used again.

small   studies of CT and MR series whose slices have 64×64 pixels: metadata dominates
large   one CT series of 512×512 pixels: pixels dominate
slides  two slides of many tiles, with and without an offset table
page    studies of one instance each: for searches to list, and to be many

A second datastore holds few of the studies, a third a single series: links to the same files, so that only their number
differs. The manifest beside the datastore holds the SHA-256 of every file and every frame: what answers are checked against.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

from benchmarks.header import SeriesPlan, file_meta, instance_header, series_header
from benchmarks.progress import progress
from benchmarks.slides import Slide, SlidePlan, make_slide

FORMAT = 3
"""Raised when other bytes are made: what was made before is then made anew."""
SMALL_PIXELS = 64
LARGE_PIXELS = 512
FEW_STUDIES = 2
"""Studies of small slices in the datastore of few."""
INGEST_TIMEOUT_SECONDS = 900
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is made."""

    studies: int
    series: int
    """Of each study."""
    instances: int
    """Of each series."""
    slices: int
    """Of the one series of large slices."""
    tiles: int
    """Across a slide and down."""
    page: int
    """Studies of one instance each."""

    @property
    def name(self) -> str:
        return f"{self.studies}x{self.series}x{self.instances}+{self.slices}+{self.tiles}x{self.tiles}+{self.page}"

    @property
    def files(self) -> int:
        return self.studies * self.series * self.instances + self.slices + 2 + self.page


class Instance(msgspec.Struct, frozen=True):
    """One file."""

    uid: str
    bytes: int
    sha256: str
    frame_sha256: str


class Series(msgspec.Struct, frozen=True):
    """One series, in the order of its InstanceNumbers."""

    study_uid: str
    series_uid: str
    instances: list[Instance]

    @property
    def path(self) -> str:
        """Below the service root."""
        return f"/studies/{self.study_uid}/series/{self.series_uid}"

    @property
    def bytes(self) -> int:
        return sum(instance.bytes for instance in self.instances)


class Manifest(msgspec.Struct, frozen=True):
    """What was made."""

    format: int
    seed: int
    small: list[Series]
    large: Series
    slides: list[Slide]
    """With an offset table, and without."""
    page: list[Series]
    elements: int
    """Of the first small instance, without those in sequences."""
    all_elements: int

    @property
    def series(self) -> list[Series]:
        """All but the slides."""
        return [*self.small, self.large, *self.page]

    @property
    def study_uids(self) -> set[str]:
        return {uids[0] for uids in self.keys}

    @property
    def keys(self) -> list[tuple[str, str]]:
        """UIDs of the study and the series, of all series."""
        return [
            *((one.study_uid, one.series_uid) for one in self.series),
            *((one.study_uid, one.series_uid) for one in self.slides),
        ]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.series) + sum(one.bytes for one in self.slides)

    @property
    def instances(self) -> int:
        return sum(len(one.instances) for one in self.series) + len(self.slides)

    def of_few(self) -> "Manifest":
        """What the datastore of few studies holds."""
        kept = list(dict.fromkeys(one.study_uid for one in self.small))[:FEW_STUDIES]
        return msgspec.structs.replace(self, small=[one for one in self.small if one.study_uid in kept], page=[])


@dataclass(frozen=True, slots=True)
class Data:
    """What a run measures with."""

    manifest: Manifest
    datastore: Path
    few: Path
    """A datastore of few studies, `manifest.of_few()`."""
    one_series: Path
    """A datastore of the first small series alone."""


def prepare(work: Path, sizes: Sizes, seed: int) -> Data:
    """The data of these sizes below `work`: as it lies there, or made.

    Raises:
        RuntimeError: `codweb ingest` failed; the message is its own.
    """
    folder = work / f"{sizes.name}-seed{seed}"
    kept = _kept(folder / "manifest.json")
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)  # of another format, or not finished
        kept = _made(folder, sizes, seed)
        (folder / "manifest.json").write_bytes(msgspec.json.encode(kept))  # last: it says that the rest is whole
    return Data(kept, folder / "datastore", folder / "few", folder / "one-series")


def _made(folder: Path, sizes: Sizes, seed: int) -> Manifest:
    source, datastore = folder / "source", folder / "datastore"
    halves = [source / str(number) for number in range(os.cpu_count() or 1)]
    for half in halves:
        half.mkdir(parents=True)
    manifest = make(halves, sizes, seed)
    with progress(f"ingesting {manifest.bytes / 1e6:,.0f} MB", len(halves)) as advance:
        _ingest(halves, datastore, advance)
    shutil.rmtree(source)
    few = manifest.of_few()
    link(datastore, folder / "few", few.keys)
    link(datastore, folder / "one-series", few.keys[:1])
    return manifest


def make(folders: Sequence[Path], sizes: Sizes, seed: int) -> Manifest:
    """Write the files of all series, a folder each, spread over `folders`; the same arguments make the same bytes."""
    small = [
        SeriesPlan(seed, "small", study, number, "MR" if study % 2 else "CT", sizes.instances, SMALL_PIXELS)
        for study in range(sizes.studies)
        for number in range(sizes.series)
    ]
    large = SeriesPlan(seed, "large", 0, 0, "CT", sizes.slices, LARGE_PIXELS)
    page = [SeriesPlan(seed, "page", study, 0, "CT", 1, SMALL_PIXELS) for study in range(sizes.page)]
    slides = [SlidePlan(seed, sizes.tiles, has_table) for has_table in (True, False)]
    places = cycle(folders)
    with (
        ProcessPoolExecutor(len(folders), mp_context=get_context("spawn")) as pool,
        progress(f"making {sizes.files:,} files", len(small) + len(page) + 3) as advance,
    ):
        series = [pool.submit(make_series, next(places), plan) for plan in (large, *small, *page)]  # the longest first
        others = [pool.submit(make_slide, next(places), plan) for plan in slides]
        done: list[Future[Any]] = [*series, *others]  # of two kinds
        for future in as_completed(done):
            future.result()
            advance()
    made = [each.result() for each in series]
    header = series_header(small[0])
    header.update(instance_header(small[0], 0))
    return Manifest(
        FORMAT,
        seed,
        small=made[1 : 1 + len(small)],
        large=made[0],
        slides=[each.result() for each in others],
        page=made[1 + len(small) :],
        elements=len(header) + 1,  # and Pixel Data
        all_elements=sum(1 for _ in header.iterall()) + 1,
    )


def link(datastore: Path, other: Path, series: Iterable[tuple[str, str]]) -> None:
    """Make a datastore of some series of another, by links to the same files."""
    for study_uid, series_uid in series:
        place = Path("studies", study_uid, "series")
        for path in (datastore / place).glob(f"{series_uid}*"):
            for file in path.rglob("*") if path.is_dir() else [path]:
                if file.is_file():
                    target = other / file.relative_to(datastore)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.hardlink_to(file)


def make_series(folder: Path, plan: SeriesPlan) -> Series:
    """Write the files of one series. What its headers share is encoded once, or most of the time would go there."""
    place = folder / plan.series_uid
    place.mkdir()
    shared = _encoded(series_header(plan))
    instances = []
    for index, pixels in enumerate(_slices(plan)):
        changing = instance_header(plan, index)
        changing.add_new(_PIXEL_DATA, "OW", pixels)
        elements = shared | _encoded(changing)
        content = _beginning(plan, index) + b"".join(elements[tag] for tag in sorted(elements))
        (place / f"{index:05d}.dcm").write_bytes(content)
        digests = sha256(content).hexdigest(), sha256(pixels).hexdigest()
        instances.append(Instance(plan.instance_uid(index), len(content), *digests))
    return Series(plan.study_uid, plan.series_uid, instances)


def _slices(plan: SeriesPlan) -> Iterator[bytes]:
    """An ellipse with an organ that wanders from slice to slice, under noise; 12 of 16 bits (PS3.3 §C.7.6.3)."""
    random = np.random.default_rng([plan.seed, int(plan.series_uid.removeprefix("2.25.")) % 2**32])
    y, x = np.mgrid[-1 : 1 : plan.size * 1j, -1 : 1 : plan.size * 1j].astype(np.float32)
    body = 1060 * (x**2 / 0.8 + y**2 / 0.6 < 1).astype(np.float32)
    noise = random.integers(0, 60, (plan.size, plan.size + plan.instances), dtype=np.uint16)
    for index in range(plan.instances):
        middle = 0.5 * np.sin(index / 25)
        organ = 900 * ((x - middle) ** 2 + y**2 < 0.05).astype(np.float32)
        yield ((body + organ).astype("<u2") + noise[:, index : index + plan.size]).astype("<u2").tobytes()


def _encoded(data_set: Dataset) -> dict[int, bytes]:
    """Each element of a data set in Explicit VR Little Endian (PS3.5 §7.1.2), by tag."""
    elements = {}
    for element in data_set:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        alone = Dataset()
        alone.add(element)
        write_dataset(buffer, alone)
        elements[int(element.tag)] = buffer.getvalue()
    return elements


def _beginning(plan: SeriesPlan, index: int) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 §7.1)."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, file_meta(plan, index))
    return bytes(128) + b"DICM" + buffer.getvalue()


def _ingest(sources: Sequence[Path], datastore: Path, advance: Callable[[], None]) -> None:
    """One command for each source, side by side: no two of them hold the same series. Raises RuntimeError."""
    command = [str(Path(sys.executable).with_name("codweb")), "ingest", "--no-index", "--to", str(datastore)]
    with ExitStack() as stack:
        running = []
        for source in sources:
            log = stack.enter_context((source.parent / f"{source.name}.log").open("w+"))
            running.append((subprocess.Popen([*command, str(source)], stdout=log, stderr=log), log))
        for process, log in running:
            if process.wait(INGEST_TIMEOUT_SECONDS):
                log.seek(0)
                raise RuntimeError(f"codweb ingest failed:\n{log.read()[-2000:]}")
            advance()


def _kept(path: Path) -> Manifest | None:
    """The manifest of data that is whole and of this format."""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return manifest if manifest.format == FORMAT else None
