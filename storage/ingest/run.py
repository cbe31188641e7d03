"""The whole of an ingest: finding, reading, comparing, storing."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from storage.bucket.base import Bucket
from storage.bucket.options import BucketOptions
from storage.ingest.candidate import Candidates
from storage.ingest.ledger import Ledger
from storage.ingest.plan import Planner
from storage.ingest.report import Progress, RefusedFile, Report, SilentProgress
from storage.ingest.sources import Scratch, SkippedFile, find_places
from storage.ingest.writer import OnSeries, Writer
from storage.spool import Spool
from storage.together import together

if TYPE_CHECKING:
    from storage.pixels.encode import Target

SERIES_AT_ONCE_NEAR = 2
SERIES_AT_ONCE_FAR = 4
"""Series that are written at a time, so that reading, computing and sending overlap: into a folder, into a store."""

_DEFAULTS = BucketOptions()


async def ingest(
    sources: Sequence[str | Path],
    bucket: Bucket,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
    on_series: OnSeries | None = None,
    wait_seconds: float = 0.0,
    ledger: Ledger | None = None,
    jobs: int | None = None,
    target: "Target | None" = None,
    thumbnails: bool = False,
    options: BucketOptions = _DEFAULTS,
    left_out: Mapping[str, str] | None = None,
    report: Report | None = None,
) -> Report:
    """Store the DICOM files under the sources; what is stored already is never given up for other bytes.

    One file or series that cannot be stored does not keep the others from it: the report says what became of each. If
    it is cancelled, each series is as before or as after, and doing the same again goes on from there.

    Args:
        sources: files, folders, archives, DICOMDIRs, addresses of buckets, of prefixes and of objects.
        dry_run: read and compare everything, write nothing.
        on_series: called for each series that changed while its lock is held.
        wait_seconds: how long another writer of a series is waited for.
        ledger: files that it knows, and that are stored today, are not opened.
        jobs: processes that read files; None: as many as there are cores.
        thumbnails: make `thumbnail.jpg` or `thumbnail.mp4` of each series that changed.
        target: what pixels of new instances are transcoded to, where that is certain to lose nothing and makes the file
            smaller; None: every file is stored bit for bit.
        options: how to reach buckets among the sources.
        left_out: folders (real paths) below the sources that are not looked into, with the reason; the datastore itself
            never is.
        report: is filled, so that whoever cancels knows how far it came.

    Raises:
        StorageError: what is not the fault of one file or series: a process that read files died.
    """
    began = time.monotonic()
    report = report if report is not None else Report()
    progress = progress or SilentProgress()
    skipped: list[SkippedFile] = []
    with Scratch() as scratch, Spool() as spool:
        candidates = Candidates(spool)
        try:
            planner = Planner(bucket, candidates, report, progress, ledger=None if dry_run else ledger, jobs=jobs)
            avoided = {**_own_place(bucket), **(left_out or {})}
            found = find_places(sources, report.refused, skipped, scratch=scratch, options=options, left_out=avoided)
            await planner.read(found)
            writer = Writer(
                bucket,
                candidates,
                report,
                progress,
                on_series=on_series,
                wait_seconds=wait_seconds,
                is_dry=dry_run,
                target=target,
                thumbnails=thumbnails,
                jobs=jobs,
            )
            with closing(writer):
                await _store_all(bucket, candidates, planner, writer, progress)
        finally:
            report.skipped += [RefusedFile(each.path, each.reason) for each in skipped]
            report.seconds = time.monotonic() - began
    return report


def _own_place(bucket: Bucket) -> dict[str, str]:
    """Where the datastore lies: its tars are no sources, least of all under other UIDs than it has them under."""
    url = urlsplit(bucket.url)
    place = unquote(url.path) if url.scheme == "file" else bucket.url
    return {place: "the datastore that is written to"}


async def _store_all(
    bucket: Bucket, candidates: Candidates, planner: Planner, writer: Writer, progress: Progress
) -> None:
    """Store series after series, in the order of their UIDs, a few at a time."""
    groups = candidates.groups
    progress.begin(
        "Storing",
        files=sum(map(len, groups.values())),
        size=sum(each.size for group in groups.values() for each in group),
    )
    waiting = iter(sorted(groups.keys() | planner.same.keys() | planner.conflict.keys()))

    async def store() -> None:
        for key in waiting:
            await writer.store(key, same=planner.same.get(key, 0), conflict=planner.conflict.get(key, 0))
            groups.pop(key, None)  # a million of them are not kept longer than needed

    await together(store() for _ in range(SERIES_AT_ONCE_NEAR if bucket.cheap_head else SERIES_AT_ONCE_FAR))
