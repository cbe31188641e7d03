"""`codweb ingest`: DICOM files into a datastore, with a report of everything that was and was not stored."""

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from app.settings import read_settings
from storage.bucket import Bucket, open_bucket
from storage.bucket.options import BucketOptions
from storage.errors import StorageError, StorageUnavailable
from storage.ingest import Ledger, Outcome, Report, SeriesNote, SilentProgress
from storage.ingest import Progress as IngestProgress
from storage.ingest import ingest as run_ingest
from storage.ingest.ledger import FILE_NAME
from storage.keys import SeriesKey
from storage.state import StateFolder

if TYPE_CHECKING:
    from storage.pixels.encode import Target

MAX_LISTED = 20
"""Refused files that the table names; `--json` names all."""

PROCESSES_FROM = 500
"""Instances from which on starting a process costs less than it saves."""

MAX_SERIES_LISTED = 50
"""Series that the table shows, those with something to say first; `--json` names all."""

_COUNTED = ("New", "Same", "Conflict")


class Encoding(StrEnum):
    """What pixels can be transcoded to, as `storage.pixels.encode.Target`, which takes half a second to import."""

    J2K = "j2k"
    HTJ2K = "htj2k"
    JLS = "jls"


def ingest(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Files, folders, archives, a DICOMDIR, s3://… or gs://…")
    ],
    to: Annotated[
        str, typer.Option("--to", help="Datastore to write to: a folder, made if it does not exist, s3://… or gs://…")
    ],
    json_report: Annotated[bool, typer.Option("--json", help="Print one JSON report instead of a table.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be stored, and write nothing.")] = False,
    wait: Annotated[float, typer.Option(help="How many seconds to wait for another writer of a series.", min=0)] = 0.0,
    reread: Annotated[
        bool, typer.Option("--reread", help="Open files that an earlier run has read, although they did not change.")
    ] = False,
    transcode: Annotated[
        Encoding | None,
        typer.Option(
            help="Store pixels so, where that loses nothing and makes the file smaller; default: as they are."
        ),
    ] = None,
    thumbnails: Annotated[
        bool,
        typer.Option("--thumbnails", help="Make a thumbnail of each series that changed; films need ffmpeg on PATH."),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes that read files.", min=1, show_default="as many as cores")
    ] = None,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Index what was stored, so that a server has its answers ready.")
    ] = True,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for the indexes, and for what is known of files.", show_default="as codweb serve's"),
    ] = None,
) -> None:
    """Store DICOM files as Cloud Optimized DICOM, one tar per series.

    \b
    Reads every file under SOURCE, whatever its name, in archives too, groups
    the files into series wherever they lie, and stores each instance that the
    datastore does not hold yet, bit for bit. Files that are not DICOM are
    listed and left alone. What is stored already stays: a file with the same
    SOP Instance UID and other bytes is reported as a conflict.

    \b
    Interrupt it at any time and run the same command again: it goes on where
    it stopped. A finished run repeated opens no file and changes nothing.

    \b
    Examples:
      codweb ingest ./dicom --to ./datastore
      codweb ingest scan1/ cd.zip extra.dcm --to ./datastore
      codweb ingest ./dicom --to ./datastore --dry-run
      codweb ingest s3://inbox/today --to s3://archive/dicomweb
      codweb ingest ./dicom --to ./datastore --transcode htj2k
      codweb ingest ./dicom --to ./datastore --json > report.json

    \b
    The exit code is 0 if everything is stored, 1 if something was refused or
    is in conflict (the report says what), 130 if it was interrupted.
    """
    console, errors = Console(), Console(stderr=True)
    report = Report()
    is_interrupted = False
    try:
        with _progress(errors) as progress:
            work = _run(
                sources, to, state, report, progress,
                dry_run=dry_run, wait=wait, reread=reread, jobs=jobs, transcode=transcode,
                thumbnails=thumbnails,
            )  # fmt: skip
            try:
                asyncio.run(work)
            except KeyboardInterrupt:
                is_interrupted = True
            if index and not dry_run and not is_interrupted:
                asyncio.run(_index(to, state, report, progress))
    except (StorageError, ValueError, OSError) as error:  # OSError: no room for temporary files
        if json_report:
            typer.echo(json.dumps(asdict(report), indent=2))
        elif report.series:
            _print_report(console, report)
        _say(errors, str(error))
        raise typer.Exit(1) from error
    except KeyboardInterrupt:  # everything is stored; the server builds what is missing of the indexes
        is_interrupted = True
    if json_report:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _print_report(console, report)
    if is_interrupted:
        _say(errors, "interrupted. Run the same command again: it goes on where it stopped")
        raise typer.Exit(130)
    if not report.series:
        named = ", ".join(_printable(source) for source in sources)
        _say(errors, f"no readable DICOM file under {named}")
    if not report.is_clean or not report.series:
        raise typer.Exit(1)


def _say(errors: Console, sentence: str) -> None:
    errors.print(f"codweb ingest: {sentence}", markup=False, highlight=False, soft_wrap=True)


def _open(to: str, *, dry_run: bool) -> Bucket:
    if dry_run and "://" not in to and to and not Path(to).exists():
        return open_bucket("memory://dry-run")  # what is not there answers as what is empty
    try:
        options = read_settings(datastore=to).bucket_options if to else BucketOptions()
        return open_bucket(to, create=not dry_run, options=options)
    except ValueError as error:
        raise StorageUnavailable(str(error)) from error


async def _run(
    sources: Sequence[str],
    to: str,
    state: Path | None,
    report: Report,
    progress: IngestProgress,
    *,
    dry_run: bool,
    wait: float,
    reread: bool,
    jobs: int | None,
    transcode: Encoding | None,
    thumbnails: bool,
) -> None:
    bucket = _open(to, dry_run=dry_run)
    try:
        # Says now that nothing can be reached there, not after an hour of reading.
        async for _ in bucket.list("studies/"):
            break
        settings = read_settings(datastore=to, state_dir=state)
        with ExitStack() as stack:
            ledger = None
            if not dry_run:
                place = StateFolder(settings.state_dir, bucket.url).path / FILE_NAME
                ledger = stack.enter_context(Ledger(place, is_believed=not reread))
            await run_ingest(
                sources,
                bucket,
                progress=progress,
                dry_run=dry_run,
                wait_seconds=wait,
                ledger=ledger,
                jobs=jobs,
                target=None if transcode is None else _target(transcode),
                thumbnails=thumbnails,
                options=settings.bucket_options,
                left_out={os.path.realpath(settings.state_dir): "codweb's own state"},
                report=report,
            )
    finally:
        await bucket.close()


def _target(encoding: Encoding) -> "Target":
    from storage.pixels.encode import Target

    return Target(encoding.value)


async def _index(to: str, state: Path | None, report: Report, progress: IngestProgress) -> None:
    """Build the deep index of each series that changed: what a server would otherwise do when somebody waits for it."""
    changed = [note for note in report.series if note.outcome in (Outcome.STORED, Outcome.APPENDED)]
    if not changed:
        return
    from app.main import open_archive  # and with it all of HTTP: a second that an ingest without indexes does not need
    from storage.indexing.summary import summary_of

    settings = read_settings(datastore=to, state_dir=state)
    is_small = sum(note.instances for note in changed) < PROCESSES_FROM
    archive = open_archive(settings, open_bucket(to, options=settings.bucket_options) if is_small else None)
    try:
        progress.begin("Indexing", files=len(changed), size=None)
        for note in changed:
            built = await archive.shelf.get(SeriesKey(note.study_uid, note.series_uid), depth="deep")
            await archive.catalogue.upsert([summary_of(built)])
            progress.advance(files=1)
    finally:
        await archive.close()


@contextmanager
def _progress(console: Console) -> Iterator[IngestProgress]:
    """A bar on a terminal, nothing elsewhere: logs and pipes stay clean."""
    if not console.is_terminal:
        yield SilentProgress()
        return
    with Progress(console=console, transient=True) as bars:
        yield _Bars(bars)


class _Bars:
    """One bar for the present stretch of work: bytes where they are counted, else files."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._counts_bytes = False

    def begin(self, task: str, *, files: int, size: int | None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._counts_bytes = size is not None
        done = (DownloadColumn(), TransferSpeedColumn()) if self._counts_bytes else (MofNCompleteColumn(),)
        rate = TextColumn("{task.fields[files_done]} files {task.fields[files_rate]}")
        self._bars.columns = (TextColumn("{task.description}"), BarColumn(), *done, rate, TimeRemainingColumn(),
                              TimeElapsedColumn())  # fmt: skip
        total = size if size is not None else files
        self._task = self._bars.add_task(task, total=total, files_done=0, files_rate="")

    def expect(self, *, files: int = 0, size: int = 0) -> None:
        if self._task is not None:
            task = self._bars.tasks[-1]
            self._bars.update(self._task, total=(task.total or 0) + (size if self._counts_bytes else files))

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        if self._task is None:
            return
        task = self._bars.tasks[-1]
        files_done = int(task.fields["files_done"]) + files
        rate = f"({files_done / task.elapsed:,.0f}/s)" if task.elapsed else ""
        step = size if self._counts_bytes else files
        self._bars.update(self._task, advance=step, files_done=files_done, files_rate=rate)


def _print_report(console: Console, report: Report) -> None:
    if report.series:
        table = Table(title="Series", title_justify="left")
        for name in ("Study", "Series", "New", "Same", "Conflict", "Outcome"):
            table.add_column(name, overflow="fold", justify="right" if name in _COUNTED else "left")
        notes = sorted(report.series, key=lambda note: (note.message is None, note.outcome is Outcome.UNCHANGED))
        for note in notes[:MAX_SERIES_LISTED]:
            counts = (f"{count:,}" for count in (note.instances, note.same, note.conflict))
            table.add_row(note.study_uid, note.series_uid, *counts, note.outcome.value)
        console.print(table)
        if len(notes) > MAX_SERIES_LISTED:
            console.print(f"… and {len(notes) - MAX_SERIES_LISTED:,} more series; --json lists all", highlight=False)
    complaints = [(note, note.message) for note in report.series if note.message is not None]
    clash = "another file of the same SOP Instance UID holds other bytes; that one is kept"
    for title, lines in (
        ("series", [_sentence(note, message) for note, message in complaints]),
        ("refused", [f"{item.path}: {item.reason}" for item in report.refused]),
        ("conflict", [f"{item.path}: {clash}" for item in report.conflict]),
    ):
        for line in lines[:MAX_LISTED]:
            console.print(f"{title}: {_printable(line)}", markup=False, highlight=False, soft_wrap=True)
        if len(lines) > MAX_LISTED:
            console.print(f"… and {len(lines) - MAX_LISTED:,} more; --json lists all", markup=False, highlight=False)
    console.print(_summary(report), highlight=False, soft_wrap=True)


def _summary(report: Report) -> str:
    changed = (Outcome.STORED, Outcome.APPENDED, Outcome.PLANNED)
    series = sum(note.outcome in changed for note in report.series)
    skipped = f", {len(report.skipped):,} skipped (DICOMDIRs, indexes and the like)" if report.skipped else ""
    failed = sum(note.outcome in (Outcome.FAILED, Outcome.REFUSED) for note in report.series)
    failures = f"{_counted(failed, 'series')} NOT STORED, see above; " if failed else ""
    if report.same and not (report.new or failed):
        kept = _counted(len(report.same), "file")
        return (
            f"Nothing new: {kept} stored already, {len(report.conflict):,} in conflict, "
            f"{_counted(len(report.refused), 'file')} refused{skipped}; {report.seconds:,.1f} s"
        )
    rate = f" ({len(report.new) / report.seconds:,.0f} files/s)" if report.new and report.seconds else ""
    return (
        f"{failures}{_counted(len(report.new), 'instance')} in {series:,} series, {len(report.same):,} same, "
        f"{len(report.conflict):,} in conflict, {_counted(len(report.refused), 'file')} refused{skipped}; "
        f"{report.bytes / 1e6:,.1f} MB in {report.seconds:,.1f} s{rate}"
    )


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 or name == "series" else f"{count:,} {name}s"


def _sentence(note: SeriesNote, message: str) -> str:
    """What there is to say about a series, with its UID once."""
    return message.removeprefix("series ") if note.series_uid in message else f"{note.series_uid}: {message}"


def _printable(text: str) -> str:
    """File names are anybody's bytes: control characters and undecodable ones do not reach the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
