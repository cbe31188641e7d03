"""What to ingest: source files grouped into series, each in the order of its tar, with everything refused named.

Only headers are read here (bytes are compared where two files claim the same instance), so planning is cheap, and a dry
run is a plan. Files that are not DICOM are normal in a folder of DICOM files: they are listed, never fatal.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from storage.dicom.elements import Kind, walk
from storage.dicom.p10 import P10, Header, open_p10, read_header
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.ingest.report import InstanceNote, Progress, RefusedFile
from storage.ingest.source import FileState, SourceChanged, open_source
from storage.keys import SeriesKey, is_path_uid

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

MIN_SERIES_UID_LENGTH = 10
"""The published library refuses to open a series whose study or series UID is shorter."""

BATCH_FILES = 32
"""Files per task of the pool: enough to make its overhead small, few enough for a lively progress bar."""

MAX_NUMBER_BYTES = 256
"""Values longer than this are no position, orientation or number that images could be sorted by."""

MAX_NUMBER = 1e9
"""Coordinates (mm) from here on, infinity and NaN included, are no place to sort by."""

_INSTANCE_NUMBER = 0x00200013
_IMAGE_POSITION = 0x00200032
_IMAGE_ORIENTATION = 0x00200037
_SORT_TAGS = frozenset({_INSTANCE_NUMBER, _IMAGE_POSITION, _IMAGE_ORIENTATION})

_ORIENTATION_TOLERANCE = 1e-3
"""Direction cosines further apart than this do not belong to one stack of parallel slices."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file under the sources, unread."""

    path: str
    """As it is opened."""
    shown: str
    """Relative to the source that it was found under: kept as `original_path`, so that no host's folders leak."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One readable source file: which instance it holds, and what its place in the series depends on."""

    path: str
    shown: str
    """Both as in `FoundFile`."""
    state: FileState
    series: SeriesKey
    instance_uid: str
    instance_number: int | None = None
    position: tuple[float, ...] | None = None
    """Image Position (Patient), three numbers."""
    orientation: tuple[float, ...] | None = None
    """Image Orientation (Patient), six numbers."""

    @property
    def note(self) -> InstanceNote:
        return InstanceNote(self.path, self.series.study_uid, self.series.series_uid, self.instance_uid)


@dataclass(frozen=True, slots=True)
class PlannedSeries:
    """The files of one series, one per instance, in the order in which they will be stored."""

    key: SeriesKey
    files: tuple[SourceFile, ...]


@dataclass(slots=True)
class Plan:
    """Everything that was found under the sources."""

    series: list[PlannedSeries] = field(default_factory=list)
    same: list[InstanceNote] = field(default_factory=list)
    conflict: list[InstanceNote] = field(default_factory=list)
    refused: list[RefusedFile] = field(default_factory=list)


async def plan_ingest(found: Sequence[FoundFile], pool: Executor, progress: Progress) -> Plan:
    """Read the headers of all files and group them.

    Args:
        pool: where headers are parsed; results come in the order of the files whatever the pool does.
    """
    plan = Plan()
    progress.begin("Reading headers", files=len(found), size=None)
    groups: dict[SeriesKey, dict[str, SourceFile]] = {}
    twins: list[tuple[SourceFile, SourceFile]] = []

    def take(batch: list[SourceFile | RefusedFile]) -> None:
        for item in batch:
            if isinstance(item, RefusedFile):
                plan.refused.append(item)
            else:
                first = groups.setdefault(item.series, {}).setdefault(item.instance_uid, item)
                if first is not item:
                    twins.append((first, item))
        progress.advance(files=len(batch))

    await in_order(pool, _read_sources, in_batches(found), take)

    def compare(batch: list[tuple[SourceFile, bool]]) -> None:
        for twin, is_same in batch:
            (plan.same if is_same else plan.conflict).append(twin.note)

    await in_order(pool, _compare_twins, in_batches(twins), compare)
    plan.series = [PlannedSeries(key, sort_series(group.values())) for key, group in sorted(groups.items())]
    return plan


async def in_order(
    pool: Executor,
    work: Callable[[list[Item]], list[Result]],
    batches: Iterable[list[Item]],
    take: Callable[[list[Result]], None],
) -> None:
    """Run `work` over batches in a pool, few at a time, and hand over the results in the order of the batches."""
    loop = asyncio.get_running_loop()
    waiting: deque[Awaitable[list[Result]]] = deque()
    for batch in batches:
        waiting.append(loop.run_in_executor(pool, work, batch))
        if len(waiting) > 2 * (os.cpu_count() or 1):
            take(await waiting.popleft())
    while waiting:
        take(await waiting.popleft())


def in_batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Cut a sequence into tasks for a pool."""
    for start in range(0, len(items), BATCH_FILES):
        yield list(items[start : start + BATCH_FILES])


def find_files(sources: Sequence[Path], refused: list[RefusedFile]) -> Iterator[FoundFile]:
    """Every file under the sources, in a stable order, hidden ones too.

    Links are followed, each folder is entered once (so a circle of links ends); what cannot be looked into is refused.
    """
    entered: set[tuple[int, int]] = set()
    for source in sources:
        if not source.is_dir():
            yield FoundFile(str(source), source.name)
            continue

        def note(error: OSError) -> None:
            refused.append(RefusedFile(str(error.filename), _system_reason(error)))

        for folder, folders, files in os.walk(source, followlinks=True, onerror=note):
            try:
                status = os.stat(folder)
            except OSError as error:
                note(error)
                continue
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                yield FoundFile(path, os.path.relpath(path, source))


def _read_sources(found: list[FoundFile]) -> list[SourceFile | RefusedFile]:
    return [read_source(file) for file in found]


def read_source(file: FoundFile) -> SourceFile | RefusedFile:
    """Read the header of one file, or say why it cannot be stored."""
    path = file.path
    try:
        with open_source(path) as source:
            if not source.has_prefix():
                return RefusedFile(path, "not a DICOM file: no DICM after 128 bytes (PS3.10 section 7.1)")
            window = Window(source.state.size)
            p10 = source.parse(window, partial(open_p10, window))
            header = source.parse(window, partial(read_header, p10))
            sort_values = source.parse(window, partial(_sort_values, p10))
            media_sop_class_uid = source.parse(window, lambda: p10.media_sop_class_uid)
            source.expect(source.state)
            if MEDIA_STORAGE_DIRECTORY in (media_sop_class_uid, header.sop_class_uid):  # a real one has only the first
                return RefusedFile(path, "a DICOMDIR: it lists other files and holds no instance")
            return _judge(file, source.state, header, sort_values)
    except OSError as error:
        return RefusedFile(path, _system_reason(error))
    except SourceChanged:
        return RefusedFile(path, "changed while it was being read")
    except InstanceUnreadable as error:
        return RefusedFile(path, f"unreadable: {error}")


def _sort_values(p10: P10) -> dict[int, bytes]:
    """The raw values that images are sorted by. Stops behind their group, so pixel data is never asked for."""
    values: dict[int, bytes] = {}
    for kind, tag, _, start, stop in walk(
        p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian, skip_sequences=True
    ):
        if tag > _IMAGE_ORIENTATION:
            break
        if kind == Kind.ELEMENT and tag in _SORT_TAGS and 0 <= stop - start <= MAX_NUMBER_BYTES:
            values[tag] = bytes(p10.window.view(start, stop))
    return values


def _judge(
    file: FoundFile, state: FileState, header: Header, sort_values: dict[int, bytes]
) -> SourceFile | RefusedFile:
    """Whether the file can have a place in a datastore."""
    path = file.path
    named = {
        "Study Instance UID": header.study_uid,
        "Series Instance UID": header.series_uid,
        "SOP Instance UID": header.sop_instance_uid,
    }
    for name, uid in named.items():
        if not uid:
            return RefusedFile(path, f"no {name}")
        if not is_path_uid(uid):
            return RefusedFile(path, f"{name} cannot be part of an object's name")
    if min(len(str(header.study_uid)), len(str(header.series_uid))) < MIN_SERIES_UID_LENGTH:
        return RefusedFile(
            path, f"study or series UID shorter than the {MIN_SERIES_UID_LENGTH} characters COD asks for"
        )
    return SourceFile(
        path=path,
        shown=file.shown,
        state=state,
        series=SeriesKey(str(header.study_uid), str(header.series_uid)),
        instance_uid=str(header.sop_instance_uid),
        instance_number=_integer(sort_values.get(_INSTANCE_NUMBER)),
        position=_numbers(sort_values.get(_IMAGE_POSITION), 3),
        orientation=_numbers(sort_values.get(_IMAGE_ORIENTATION), 6),
    )


def _integer(raw: bytes | None) -> int | None:
    try:
        return None if raw is None else int(raw.strip(b" \0"))
    except ValueError:
        return None


def _numbers(raw: bytes | None, count: int) -> tuple[float, ...] | None:
    """Exactly `count` decimals of a size that lengths and cosines have, or nothing."""
    try:
        numbers = tuple(float(part.strip(b" \0")) for part in (raw or b"").split(b"\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(abs(number) < MAX_NUMBER for number in numbers) else None


def _system_reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _compare_twins(twins: list[tuple[SourceFile, SourceFile]]) -> list[tuple[SourceFile, bool]]:
    return [(twin, _is_same(first, twin)) for first, twin in twins]


def _is_same(first: SourceFile, twin: SourceFile) -> bool:
    """Whether two files hold the same bytes; what can no longer be read is not the same."""
    if first.state.size != twin.state.size:
        return False
    try:
        with open_source(first.path) as left, open_source(twin.path) as right:
            left.expect(first.state)
            right.expect(twin.state)
            return all(a == b for a, b in zip(left.chunks(), right.chunks(), strict=True))
    except (OSError, SourceChanged):
        return False


def sort_series(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """Along the slice normal if all files lie in one stack of parallel slices, then by Instance Number, then by UID.

    Neighbours in space become neighbours in the tar, so that scrolling a series reads it from front to back.
    """
    by_uid = sorted(files, key=lambda file: file.instance_uid)
    normal = _common_normal(by_uid)

    def key(file: SourceFile) -> tuple[float, bool, int, str]:
        along = 0.0
        if normal is not None and file.position is not None:
            along = round(sum(n * p for n, p in zip(normal, file.position, strict=True)), 3)
        return along, file.instance_number is None, file.instance_number or 0, file.instance_uid

    return tuple(sorted(by_uid, key=key))


def _common_normal(files: Sequence[SourceFile]) -> tuple[float, float, float] | None:
    """The slice normal that all files share; None if one lacks its geometry, or they are not parallel."""
    first = files[0].orientation
    if first is None:
        return None
    for file in files:
        if file.position is None or file.orientation is None:
            return None
        if any(abs(a - b) > _ORIENTATION_TOLERANCE for a, b in zip(first, file.orientation, strict=True)):
            return None
    x1, y1, z1, x2, y2, z2 = first
    return y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
