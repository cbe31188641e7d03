"""`codweb index`: look the datastore over and build what the server would otherwise build while serving."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from app.main import open_archive
from app.settings import Settings, read_settings
from storage.archive import Archive
from storage.catalogue.base import KnownSeries
from storage.errors import StorageError
from storage.indexing.summary import summary_of
from storage.keys import SeriesKey


def index(
    datastore: Annotated[
        str,
        typer.Argument(
            metavar="DATASTORE", help="What holds studies/: a folder, s3://… or gs://… (default CODWEB_DATASTORE)."
        ),
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every CODWEB_SYNC_SECONDS (60), until interrupted.")
    ] = False,
    catalogue_only: Annotated[
        bool, typer.Option("--catalogue-only", help="Fill the catalogue and build no series indexes.")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="Folder for derived state (default ~/.local/state/codweb).")
    ] = None,
) -> None:
    """Fill the catalogue and build the series indexes of a datastore, ahead of serving it.

    \b
    Only what changed since the last run is read; interrupt it at any time, the
    next run goes on. Series indexes are built deep: every DICOM header is read
    from the tar, every instance proven, every frame located.
    The server does the same behind its answers; this does it beforehand.

    \b
    Examples:
      codweb index ./datastore
      codweb index ./datastore --watch
      codweb index ./datastore --catalogue-only
    """
    console = Console(stderr=True)
    try:
        settings = read_settings(datastore=datastore or None, state_dir=state)
        failures = asyncio.run(_run(settings, console, watch=watch, build=not catalogue_only))
    except (StorageError, ValueError, OSError) as error:
        console.print(f"codweb index: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("codweb index: interrupted; the next run goes on from here", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    if failures:
        raise typer.Exit(1)


async def _run(settings: Settings, console: Console, *, watch: bool, build: bool) -> int:
    archive = open_archive(settings)
    done: set[KnownSeries] = set()
    try:
        while True:
            try:
                failures = await _once(archive, console, done, build=build)
            except StorageError as error:
                if not watch:
                    raise
                console.print(f"codweb index: will look again: {error}", markup=False, highlight=False, soft_wrap=True)
                failures = 1
            if not watch:
                return failures
            await asyncio.sleep(max(settings.sync_seconds, 1))
    finally:
        await archive.close()


async def _once(archive: Archive, console: Console, done: set[KnownSeries], *, build: bool) -> int:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        looking = bars.add_task("looking over the datastore", total=None)
        report = await archive.sync(lambda report: bars.update(looking, completed=report.listed))
        failures = await _build(archive, bars, done) if build else {}
    status = await archive.catalogue.status()
    lines = [
        f"{status.studies} studies, {status.series} series: {report.added} new, {report.changed} changed, "
        f"{report.removed} gone, {status.problems} that cannot be read"
    ]
    if report.listed == 0:
        lines.append(f"no series below studies/ of {archive.bucket.url}: is it the folder that holds studies/?")
    lines += [f"not indexed: {key}: {reason}" for key, reason in failures.items()]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return len(failures) + status.problems


async def _build(archive: Archive, bars: Progress, done: set[KnownSeries]) -> dict[SeriesKey, str]:
    """Deepen every series whose index is not deep yet.

    Args:
        done: series that an earlier round found deep, as they were then: nothing is asked of them again.
    """
    failures: dict[SeriesKey, str] = {}
    building = bars.add_task("reading headers", total=(await archive.catalogue.status()).series)
    after = ""
    while True:
        page = await archive.catalogue.known(after=after, limit=500)
        for known in page:
            after = f"{known.key.study_uid}/{known.key.series_uid}"
            if known.problem is None and known not in done:
                try:
                    built = await archive.shelf.get(known.key, depth="deep")
                    if (
                        archive.shared is not None and known.depth == "deep"
                    ):  # built before indexes were shared, perhaps
                        await archive.shared.offer(built)
                    if known.depth == "quick":
                        await archive.catalogue.upsert([summary_of(built)])
                    else:
                        done.add(known)
                except StorageError as error:
                    failures[known.key] = str(error)
                bars.advance(building)
        if len(page) < 500:
            return failures
