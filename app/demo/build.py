"""The demo as a datastore: its files are made in a temporary folder and ingested as anybody's files would be."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from app.demo.contents import CONTENTS, Making
from storage.bucket import Bucket
from storage.ingest import OnSeries, Outcome, Report, ingest
from storage.keys import SeriesKey, SeriesObject, parse_object_key

Advance = Callable[[Making, int], None]
"""Hears how many more instances of a series are made and stored."""


class DemoRefused(Exception):
    """The datastore holds something else, or a series of it cannot be stored; the message says what to do."""


async def build_demo(
    bucket: Bucket,
    *,
    contents: Sequence[Making] = CONTENTS,
    force: bool = False,
    advance: Advance | None = None,
    on_series: OnSeries | None = None,
) -> list[Making]:
    """Make every series of the demo that the datastore does not hold yet.

    Args:
        force: make the whole demo anew, and take no notice of locks.
        on_series: called by ingest for each stored series.

    Returns:
        The series that were made; none if the demo was complete.

    Raises:
        DemoRefused: the bucket holds anything that is not of the demo (nothing was touched), or a lock says that
            another process is writing the demo, or ingest could not store a series.
        StorageError: the bucket failed.
    """
    present = await _survey(bucket, contents)
    missing = []
    for making in contents:
        objects = present.get(series_key(making), set())
        if SeriesObject.LOCK in objects and not force:
            raise DemoRefused(
                f"{bucket.url} is being written by another process, or one was broken off: {series_key(making)} is "
                "locked. If nobody is at work, --force makes the demo anew"
            )
        if force or not {SeriesObject.TAR, SeriesObject.METADATA} <= objects:
            missing.append(making)
    for making in missing:
        await _remove(bucket, series_key(making))
        await _make(bucket, making, on_series)
        if advance is not None:
            advance(making, making.instances)
    return missing


def series_key(making: Making) -> SeriesKey:
    """Where a series of the demo lies in a datastore."""
    return SeriesKey(making.series.study.study_uid, making.series.series_uid)


async def _survey(bucket: Bucket, contents: Sequence[Making]) -> dict[SeriesKey, set[SeriesObject]]:
    """Which objects of the demo there are; anything else is a reason to keep away."""
    ours = {series_key(making) for making in contents}
    present: dict[SeriesKey, set[SeriesObject]] = {}
    async for info in bucket.list(""):
        parsed = parse_object_key(info.key)
        if parsed is None or parsed[0] not in ours:
            raise DemoRefused(
                f"{bucket.url} is not empty and not a demo: it holds {info.key}. Name a new or an empty folder"
            )
        present.setdefault(parsed[0], set()).add(parsed[1])
    return present


async def _remove(bucket: Bucket, series: SeriesKey) -> None:
    """Delete what is left of a series: metadata first, as readers find a series by it."""
    for kind in (SeriesObject.METADATA, *SeriesObject):
        await bucket.delete(series.object_key(kind))


async def _make(bucket: Bucket, making: Making, on_series: OnSeries | None) -> None:
    with tempfile.TemporaryDirectory(prefix="codweb-demo-") as folder:
        await asyncio.to_thread(write_files, making, Path(folder))
        report = await ingest([Path(folder)], bucket, on_series=on_series)
    stored = [note.outcome for note in report.series] == [Outcome.STORED] and len(report.new) == making.instances
    if not (report.is_clean and stored):
        raise DemoRefused(f"{series_key(making)} could not be stored: {_reason(report)}")


def _reason(report: Report) -> str:
    messages = [note.message or note.outcome.value for note in report.series]
    messages += [file.reason for file in report.refused]
    return "; ".join(messages) or "nothing was made"


def write_files(making: Making, folder: Path) -> None:
    """Write the instances of one series as DICOM files (PS3.10)."""
    for number, instance in enumerate(making.make(), start=1):
        instance.save_as(folder / f"{making.series.name}-{number:04}.dcm", enforce_file_format=True)
