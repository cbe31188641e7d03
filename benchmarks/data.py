"""The data that is measured with: made once by seed, ingested by `codweb ingest`, and used again.

small   studies of CT and MR series whose slices have 64×64 pixels: metadata dominates
large   one CT series of 512×512 pixels: pixels dominate
page    studies of one instance each, for searches to list

The manifest beside the datastore holds the SHA-256 of every file and every frame: what answers are checked against.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

from benchmarks.header import SeriesPlan, file_meta, instance_header, series_header

FORMAT = 1
"""Raised when other bytes are made: what was made before is then made anew."""
SMALL_PIXELS = 64
LARGE_PIXELS = 512
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
    page: int
    """Studies of one instance each."""

    @property
    def name(self) -> str:
        return f"{self.studies}x{self.series}x{self.instances}+{self.slices}+{self.page}"


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
    page: list[Series]
    elements: int
    """Of the first small instance, without those in sequences."""
    all_elements: int

    @property
    def series(self) -> list[Series]:
        return [*self.small, self.large, *self.page]


@dataclass(frozen=True, slots=True)
class Data:
    """What a run measures with."""

    manifest: Manifest
    datastore: Path
    one_series: Path
    """A second datastore, which holds the first small series alone."""


def prepare(work: Path, sizes: Sizes, seed: int) -> Data:
    """The data of these sizes below `work`: as it lies there, or made.

    Raises:
        RuntimeError: `codweb ingest` failed; the message is its own.
    """
    folder = work / f"{sizes.name}-seed{seed}"
    data = Data(Manifest(FORMAT, seed, [], Series("", "", []), [], 0, 0), folder / "datastore", folder / "one-series")
    kept = _kept(folder / "manifest.json")
    if kept is not None:
        return replace(data, manifest=kept)
    shutil.rmtree(folder, ignore_errors=True)  # of another format, or not finished
    source = folder / "source"
    source.mkdir(parents=True)
    begun = perf_counter()
    print(f"making data in {folder} ...", flush=True)
    manifest = make(source, sizes, seed)
    print(f"  {sum(len(series.instances) for series in manifest.series)} files in {perf_counter() - begun:.1f} s")
    begun = perf_counter()
    _ingest(source, data.datastore)
    print(
        f"  ingested {sum(series.bytes for series in manifest.series) / 1e6:.0f} MB in {perf_counter() - begun:.1f} s"
    )
    _ingest(source / manifest.small[0].series_uid, data.one_series)
    shutil.rmtree(source)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))  # last: it says that the rest is whole
    return replace(data, manifest=manifest)


def make(folder: Path, sizes: Sizes, seed: int) -> Manifest:
    """Write the files of all series, a folder each; the same arguments make the same bytes."""
    small = [
        SeriesPlan(seed, "small", study, number, "MR" if study % 2 else "CT", sizes.instances, SMALL_PIXELS)
        for study in range(sizes.studies)
        for number in range(sizes.series)
    ]
    large = SeriesPlan(seed, "large", 0, 0, "CT", sizes.slices, LARGE_PIXELS)
    page = [SeriesPlan(seed, "page", study, 0, "CT", 1, SMALL_PIXELS) for study in range(sizes.page)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        made = [pool.submit(make_series, folder, plan) for plan in (large, *small, *page)]  # the longest first
        large_series, *others = (future.result() for future in made)
    header = series_header(small[0])
    header.update(instance_header(small[0], 0))
    return Manifest(
        FORMAT,
        seed,
        small=others[: len(small)],
        large=large_series,
        page=others[len(small) :],
        elements=len(header) + 1,  # and Pixel Data
        all_elements=sum(1 for _ in header.iterall()) + 1,
    )


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


def _ingest(source: Path, datastore: Path) -> None:
    command = [str(Path(sys.executable).with_name("codweb")), "ingest", str(source), "--to", str(datastore)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INGEST_TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"codweb ingest failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _kept(path: Path) -> Manifest | None:
    """The manifest of data that is whole and of this format."""
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return manifest if manifest.format == FORMAT else None
