"""`codweb ingest`: DICOM files into a datastore, with a report of everything that was and was not stored."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

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

from app.main import open_archive
from app.settings import read_settings
from storage.bucket import Bucket, open_bucket
from storage.bucket.options import BucketOptions
from storage.errors import StorageError, StorageUnavailable
from storage.indexing.summary import summary_of
from storage.ingest import Outcome, Report, SeriesNote, SilentProgress
from storage.ingest import Progress as IngestProgress
from storage.ingest import ingest as run_ingest
from storage.keys import SeriesKey

MAX_LISTED = 20
"""Refused files that the table names; `--json` names all."""

PROCESSES_FROM = 500
"""Instances from which on starting a process costs less than it saves."""

MAX_SERIES_LISTED = 50
"""Series that the table shows, those with something to say first; `--json` names all."""


def ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Files and folders to read.")],
    to: Annotated[str, typer.Option("--to", help="Datastore to write to: a folder, made if it does not exist.")],
    json_report: Annotated[bool, typer.Option("--json", help="Print one JSON report instead of a table.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be stored, and write nothing.")] = False,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Index what was stored, so that a server has its answers ready.")
    ] = True,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the indexes.", show_default="as codweb serve's")
    ] = None,
) -> None:
    """Store DICOM files as Cloud Optimized DICOM, one tar per series.

    \b
    Reads every file under SOURCE, whatever its name, groups the files into
    series, and writes each series that the datastore does not hold yet, bit
    for bit. Files that are not DICOM are listed and left alone. A series that
    is stored already is not touched.

    \b
    Examples:
      codweb ingest ./dicom --to ./datastore
      codweb ingest scan1/ scan2/ extra.dcm --to ./datastore
      codweb ingest ./dicom --to ./datastore --dry-run
      codweb ingest ./dicom --to ./datastore --json > report.json

    \b
    The exit code is 0 if everything is stored, and 1 if something was refused
    or is in conflict; the report says what.
    """
    console, errors = Console(), Console(stderr=True)
    try:
        bucket = _open(to, dry_run=dry_run)
        with _progress(errors) as progress:
            report = asyncio.run(_run(sources, bucket, progress, dry_run=dry_run))
            if index and not dry_run:
                asyncio.run(_index(to, state, report, progress))
    except (StorageError, ValueError) as error:
        errors.print(f"codweb ingest: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if json_report:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _print_report(console, report)
    if not report.series:
        named = ", ".join(_printable(str(source)) for source in sources)
        errors.print(
            f"codweb ingest: no readable DICOM file under {named}", markup=False, highlight=False, soft_wrap=True
        )
    if not report.is_clean or not report.series:
        raise typer.Exit(1)


def _open(to: str, *, dry_run: bool) -> Bucket:
    if dry_run and "://" not in to and to and not Path(to).exists():
        return open_bucket("memory://dry-run")  # what is not there answers as what is empty
    try:
        options = read_settings(datastore=to).bucket_options if to else BucketOptions()
        return open_bucket(to, create=not dry_run, options=options)
    except ValueError as error:
        raise StorageUnavailable(str(error)) from error


async def _run(sources: list[Path], bucket: Bucket, progress: IngestProgress, *, dry_run: bool) -> Report:
    try:
        async for _ in bucket.list(
            "studies/"
        ):  # says now that nothing can be reached there, not after an hour of reading
            break
        return await run_ingest(sources, bucket, progress=progress, dry_run=dry_run)
    finally:
        await bucket.close()


async def _index(to: str, state: Path | None, report: Report, progress: IngestProgress) -> None:
    """Build the deep index of each new series: what a server would otherwise do when somebody waits for it."""
    stored = [note for note in report.series if note.outcome is Outcome.STORED]
    if not stored:
        return
    settings = read_settings(datastore=to, state_dir=state)
    is_small = sum(note.instances for note in stored) < PROCESSES_FROM
    archive = open_archive(settings, open_bucket(to, options=settings.bucket_options) if is_small else None)
    try:
        progress.begin("Indexing", files=len(stored), size=None)
        for note in stored:
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
        for name in ("Study", "Series", "Instances", "Outcome"):
            table.add_column(name, overflow="fold", justify="right" if name == "Instances" else "left")
        notes = sorted(report.series, key=lambda note: note.message is None)
        for note in notes[:MAX_SERIES_LISTED]:
            table.add_row(note.study_uid, note.series_uid, f"{note.instances:,}", note.outcome.value)
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
    stored = sum(note.outcome in (Outcome.STORED, Outcome.PLANNED) for note in report.series)
    console.print(
        f"{len(report.new):,} instances in {stored:,} series, {len(report.same):,} same, "
        f"{len(report.conflict):,} in conflict, {len(report.refused):,} files refused; "
        f"{report.bytes / 1e6:,.1f} MB in {report.seconds:,.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _sentence(note: SeriesNote, message: str) -> str:
    """What there is to say about a series, with its UID once."""
    return message.removeprefix("series ") if note.series_uid in message else f"{note.series_uid}: {message}"


def _printable(text: str) -> str:
    """File names are anybody's bytes: control characters and undecodable ones do not reach the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
