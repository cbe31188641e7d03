"""`codweb unlock`: who holds series of a datastore, and giving those free whose holder is gone."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.settings import read_settings
from storage.bucket import Bucket, open_bucket
from storage.errors import StorageError
from storage.keys import SeriesKey, SeriesObject, is_path_uid, parse_object_key, study_prefix
from storage.writing import LockReport, look_at_lock
from storage.writing import unlock as unlock_series

OWNER = "codweb unlock"

_LIFE = {True: "runs", False: "dead", None: "unknown"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Result:
    """What became of one lock; an empty `done`: it stays because nobody asked for more."""

    report: LockReport
    done: str = ""
    is_left: bool = True


def unlock(
    datastore: Annotated[
        str, typer.Argument(metavar="DATASTORE", help="What holds studies/: a folder, s3://… or gs://…")
    ],
    study: Annotated[str, typer.Option(help="Only locks of the study of this UID.")] = "",
    series: Annotated[str, typer.Option(help="Only the lock of the series of this UID; needs --study.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Remove the locks whose holder is gone.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --yes: remove those too whose holder runs, or whose change is unclear."),
    ] = False,
) -> None:
    """List the locks of a datastore, and remove those that dead writers left behind.

    \b
    A series is locked while somebody writes to it. A writer that dies leaves
    its lock, with a journal of what it was about to change. On the same host
    the next `codweb ingest` takes it over by itself; this command is for locks
    of other hosts, and of other programs.

    \b
    Without --yes it lists: who holds each lock, since when, whether that
    process runs ("unknown" on another host: ask there), and whether a change
    was under way. With --yes each lock is settled, then removed: the change is
    finished if all of its bytes are there, else the series stays as it was.
    Locks of unknown holders are removed only if --study names them, those of
    running ones only with --force: two writers at once may lose instances.

    \b
    Examples:
      codweb unlock ./datastore
      codweb unlock ./datastore --yes
      codweb unlock s3://bucket/prefix --study 1.2.840.99.1 --yes

    \b
    The exit code is 0 if no lock is left, 1 if some are, 2 if the command
    itself failed.
    """
    console, errors = Console(), Console(stderr=True)
    if not all(is_path_uid(uid) for uid in (study, series) if uid) or (series and not study):
        errors.print("codweb unlock: --study and --series take UIDs, and --series needs --study", highlight=False)
        raise typer.Exit(2)
    if force and not yes:
        errors.print("codweb unlock: --force needs --yes", highlight=False)
        raise typer.Exit(2)
    try:
        results = asyncio.run(_run(datastore, study, series, yes=yes, force=force))
    except (StorageError, ValueError) as error:
        errors.print(f"codweb unlock: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    _print(console, results)
    if any(result.is_left for result in results):
        raise typer.Exit(1)


async def _run(datastore: str, study: str, series: str, *, yes: bool, force: bool) -> list[_Result]:
    settings = read_settings(datastore=datastore or None)
    bucket = open_bucket(settings.datastore, options=settings.bucket_options)
    results = []
    try:
        async for key in _locked(bucket, study, series):
            report = await look_at_lock(bucket, key)
            if report is None:
                continue  # its holder is done
            result = _Result(report)
            results.append(result)
            if yes:
                await _remove(bucket, result, is_named=bool(study), force=force)
        if not results and not await _holds_anything(bucket):  # a wrong folder must not read as one without locks
            raise ValueError(f"no series below studies/ of {settings.datastore}: is it the folder that holds studies/?")
    finally:
        await bucket.close()
    return results


async def _locked(bucket: Bucket, study: str, series: str) -> AsyncIterator[SeriesKey]:
    if series:
        yield SeriesKey(study, series)
        return
    async for info in bucket.list(study_prefix(study) if study else "studies/"):
        parsed = parse_object_key(info.key)
        if parsed is not None and parsed[1] is SeriesObject.LOCK:
            yield parsed[0]


async def _holds_anything(bucket: Bucket) -> bool:
    async for _ in bucket.list("studies/"):
        return True
    return False


async def _remove(bucket: Bucket, result: _Result, *, is_named: bool, force: bool) -> None:
    report = result.report
    if report.is_alive and not force:
        result.done = "stays: its process runs (--force removes it all the same)"
        return
    if report.is_alive is None and not (is_named or force):
        name = f"--study {report.series.study_uid}"
        result.done = f"stays: nobody here knows whether its holder runs; if you do, repeat with {name}"
        return
    try:
        side = await unlock_series(bucket, report, owner=OWNER, is_forced=force)
    except StorageError as error:
        result.done = f"stays: {error}"
        return
    result.is_left = False
    stands = (
        "nobody can tell which side of its change stands: see codweb check"
        if side is None
        else f"the series is {side.value}"
    )
    result.done = f"removed; {stands}"
    log.warning("removed the lock of %s, held by %s: %s", report.series, _holder(report), stands)


def _print(console: Console, results: Sequence[_Result]) -> None:
    if not results:
        console.print("no series is locked")
        return
    table = Table(title="Locks", title_justify="left")
    for name in ("Study", "Series", "Holder", "Since", "Process", "Change under way"):
        table.add_column(name, overflow="fold")
    for result in results:
        report = result.report
        table.add_row(
            report.series.study_uid,
            report.series.series_uid,
            _holder(report),
            _since(report),
            _LIFE[report.is_alive],
            "yes" if report.has_journal else "no",
        )
    console.print(table)
    for result in results:
        if result.done:
            line = f"series {result.report.series.series_uid}: {result.done}"
            console.print(_printable(line), markup=False, highlight=False, soft_wrap=True)
    if not any(result.done for result in results):
        console.print("codweb unlock … --yes settles and removes them", markup=False, highlight=False)


def _holder(report: LockReport) -> str:
    owner = report.owner
    text = "nobody that it names" if owner is None else f"{owner.owner} (process {owner.pid} on {owner.host})"
    return _printable(text[:200])


def _since(report: LockReport) -> str:
    if report.owner is not None:
        return _printable(report.owner.since[:40])
    return datetime.fromtimestamp(report.updated, UTC).isoformat(timespec="seconds")


def _printable(text: str) -> str:
    """What a lock says is anybody's: it does nothing to a terminal or a log, and is no markup."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("[", "(")
