"""`codweb check`: what is wrong with a datastore, and what to do about it."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.main import open_archive
from app.settings import Settings, read_settings
from storage.bucket import open_bucket
from storage.checking import Finding, Severity, check_datastore, check_one
from storage.checking.findings import ADVICE
from storage.checking.repair import ENTRY_KINDS, REPAIRABLE, Repair, repair_series
from storage.errors import StorageError
from storage.indexing.summary import summary_of
from storage.keys import SeriesKey, is_path_uid, study_prefix

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def check(
    datastore: Annotated[
        str, typer.Argument(metavar="DATASTORE", help="What holds studies/: a folder, s3://… or gs://…")
    ],
    study: Annotated[str, typer.Option(help="Check only the study of this UID.")] = "",
    all_bytes: Annotated[
        bool, typer.Option("--all-bytes", help="Read every instance whole and compare checksums.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Build the deep index of series with wrong tables or lossy metadata.")
    ] = False,
    repair_store: Annotated[
        bool,
        typer.Option("--repair-store", help="Also write what is right into the datastore, under each series' lock."),
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the indexes of --repair.", show_default="as codweb serve's")
    ] = None,
    json_report: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what is wrong with a datastore: torn series, wrong offset tables, lossy metadata, orphans, locks.

    \b
    Reads only: metadata.json of every series, and the header of every instance
    in its tar. With --all-bytes every instance is read whole and held against
    its checksum.

    \b
    --repair writes nothing into the datastore: it builds the indexes from which
    codweb serves right frames and whole metadata in spite of what is stored.
    --repair-store also mends the datastore itself, for other readers: entries
    with wrong offset tables or missing attributes, gaps in a tar, a missing
    index.sqlite. No DICOM file is changed, and nothing is written that the
    checksums do not prove.

    \b
    Examples:
      codweb check ./datastore
      codweb check ./datastore --study 1.2.840.99.1 --all-bytes
      codweb check ./datastore --json > findings.json
      codweb check ./datastore --repair-store

    \b
    The exit code is 0 if nothing is wrong (notes do not count), 1 if something
    is, 2 if the check itself failed. What --repair-store mended no longer counts.
    """
    errors = Console(stderr=True)
    if study and not is_path_uid(study):
        errors.print("codweb check: --study is not a UID", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    try:
        settings = read_settings(datastore=datastore or None, state_dir=state)
        findings, series = asyncio.run(_run(settings, study, errors, all_bytes=all_bytes))
        repairs = asyncio.run(_repair(settings, findings, errors, all_bytes=all_bytes)) if repair_store else []
        mended = {each.series for each in repairs if each.is_done}
        findings = [found for found in findings if found.series not in mended]
        for each in repairs:
            findings += each.remaining
        built = asyncio.run(_build(settings, findings, repairs, errors)) if repair or repair_store else []
    except (StorageError, ValueError) as error:
        errors.print(f"codweb check: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    if series == 0:  # a wrong folder must not read as a sound one
        place = f"studies/{study} of {datastore}: is the UID right, and" if study else f"studies/ of {datastore}:"
        message = f"codweb check: no series below {place} is it the folder that holds studies/?"
        errors.print(message, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    if json_report:
        report: dict[str, object] = {"series": series, "findings": [_as_json(finding) for finding in findings]}
        if repair or repair_store:
            report["repairs"] = [each.as_json() for each in repairs]
            report["indexed"] = [{"study_uid": key.study_uid, "series_uid": key.series_uid} for key in built]
        typer.echo(json.dumps(report, indent=2))
    else:
        console = Console()
        _print(console, findings, series)
        if repair or repair_store:
            _print_repairs(console, repairs, built)
    if any(finding.severity is not Severity.NOTE for finding in findings):
        raise typer.Exit(1)


async def _run(settings: Settings, study: str, console: Console, *, all_bytes: bool) -> tuple[list[Finding], int]:
    bucket = open_bucket(settings.datastore, options=settings.bucket_options)
    findings: list[Finding] = []
    try:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            task = bars.add_task("checking")
            count = 0

            def on_series(_: object) -> None:
                nonlocal count
                count += 1
                bars.update(task, description=f"{count} series checked, {len(findings)} findings", advance=1)

            prefix = study_prefix(study) if study else "studies/"
            async for finding in check_datastore(bucket, prefix=prefix, all_bytes=all_bytes, on_series=on_series):
                findings.append(finding)
        return findings, count
    finally:
        await bucket.close()


@dataclass(frozen=True, slots=True)
class _Repaired:
    """What became of one series that was to be mended in the datastore."""

    series: SeriesKey
    sentence: str
    is_done: bool
    """Mended as far as it can be; `remaining` was found afterwards."""
    remaining: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "study_uid": self.series.study_uid,
            "series_uid": self.series.series_uid,
            "mended": self.is_done,
            "message": self.sentence,
        }


async def _repair(settings: Settings, findings: list[Finding], console: Console, *, all_bytes: bool) -> list[_Repaired]:
    """Mend the series of the findings in the datastore, and look at each again."""
    wanted: dict[SeriesKey, list[Finding]] = {}
    for finding in findings:
        if finding.kind in REPAIRABLE:
            wanted.setdefault(finding.series, []).append(finding)
    bucket = open_bucket(settings.datastore, options=settings.bucket_options)
    done: list[_Repaired] = []
    try:
        with _bars(console) as bars:
            task = bars.add_task("mending", total=len(wanted))
            for key, found in wanted.items():
                try:
                    repair = await repair_series(bucket, key, found)
                except StorageError as error:
                    done.append(_Repaired(key, str(error), is_done=False))
                else:
                    is_done = bool(repair.corrected or repair.is_tar_rewritten or repair.is_index_rebuilt)
                    again = [each async for each in check_one(bucket, key, all_bytes=all_bytes)] if is_done else []
                    done.append(_Repaired(key, _mended(repair), is_done=is_done, remaining=tuple(again)))
                bars.advance(task)
        return done
    finally:
        await bucket.close()


def _mended(repair: Repair) -> str:
    parts = [f"{len(repair.corrected)} entries corrected"] if repair.corrected else []
    parts += ["gaps in the tar closed"] if repair.is_tar_rewritten else []
    parts += ["index.sqlite written"] if repair.is_index_rebuilt else []
    return "; ".join([*parts, *repair.left])


async def _build(
    settings: Settings, findings: list[Finding], repairs: list[_Repaired], console: Console
) -> list[SeriesKey]:
    """Build the deep indexes of series whose metadata tells something wrong, and of those that were mended."""
    wanted = {found.series for found in findings if found.kind in ENTRY_KINDS}
    wanted |= {each.series for each in repairs if each.is_done}
    archive = open_archive(settings, open_bucket(settings.datastore, options=settings.bucket_options))
    built: list[SeriesKey] = []
    try:
        with _bars(console) as bars:
            task = bars.add_task("indexing", total=len(wanted))
            for key in sorted(wanted):
                try:
                    index = await archive.shelf.get(key, depth="deep")
                    await archive.catalogue.upsert([summary_of(index)])
                    built.append(key)
                except StorageError as error:
                    console.print(f"codweb check: {key}: {error}", markup=False, highlight=False, soft_wrap=True)
                bars.advance(task)
        return built
    finally:
        await archive.close()


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_repairs(console: Console, repairs: list[_Repaired], built: list[SeriesKey]) -> None:
    for each in repairs:
        state = "mended" if each.is_done else "not mended"
        line = f"{state}: {each.sentence.removeprefix('series ')}"
        if each.series.series_uid not in line:
            line = f"{state}: {each.series.series_uid}: {each.sentence}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(built)} series indexed: codweb serves their frames and all their attributes",
        markup=False,
        highlight=False,
    )


def _as_json(finding: Finding) -> dict[str, str | None]:
    return {
        "severity": finding.severity.value,
        "kind": finding.kind.value,
        "study_uid": finding.series.study_uid,
        "series_uid": finding.series.series_uid,
        "instance_uid": finding.instance_uid,
        "detail": finding.detail,
        "advice": ADVICE[finding.kind],
    }


def _print(console: Console, findings: list[Finding], series: int) -> None:
    if findings:
        table = Table(show_lines=False)
        for name in ("", "what", "where", "detail"):
            table.add_column(name, overflow="fold")
        for finding in findings:
            where = f"series {finding.series.series_uid}"
            if finding.instance_uid is not None:
                where = f"instance {finding.instance_uid}\n{where}"
            style = _STYLES[finding.severity]
            table.add_row(f"[{style}]{finding.severity}[/]", finding.kind.value, where, finding.detail)
        console.print(table)
        for kind in sorted({finding.kind for finding in findings}):
            console.print(f"{kind.value}: {ADVICE[kind]}", markup=False, highlight=False, soft_wrap=True)
    counts = Counter(finding.severity for finding in findings)
    summary = ", ".join(f"{counts[severity]} {severity.value}{'s' * (counts[severity] != 1)}" for severity in Severity)
    console.print(f"{series} series checked: {summary}", markup=False, highlight=False)
