"""`codweb check`: what is wrong with a datastore, and what to do about it."""

import asyncio
import json
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.settings import Settings, read_settings
from storage.bucket import open_bucket
from storage.checking import Finding, Severity, check_datastore
from storage.checking.findings import ADVICE
from storage.errors import StorageError
from storage.keys import is_path_uid, study_prefix

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def check(
    datastore: Annotated[
        str, typer.Argument(metavar="DATASTORE", help="What holds studies/: a folder, s3://… or gs://…")
    ],
    study: Annotated[str, typer.Option(help="Check only the study of this UID.")] = "",
    all_bytes: Annotated[
        bool, typer.Option("--all-bytes", help="Read every instance whole and compare checksums.")
    ] = False,
    json_report: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what is wrong with a datastore: torn series, wrong offset tables, lossy metadata, orphans, locks.

    \b
    Reads only: metadata.json of every series, and the header of every instance
    in its tar. With --all-bytes every instance is read whole and held against
    its checksum.

    \b
    Examples:
      codweb check ./datastore
      codweb check ./datastore --study 1.2.840.99.1 --all-bytes
      codweb check ./datastore --json > findings.json

    \b
    The exit code is 0 if nothing is wrong (notes do not count), 1 if something
    is, 2 if the check itself failed.
    """
    errors = Console(stderr=True)
    if study and not is_path_uid(study):
        errors.print("codweb check: --study is not a UID", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    try:
        settings = read_settings(datastore=datastore or None)
        findings, series = asyncio.run(_run(settings, study, errors, all_bytes=all_bytes))
    except (StorageError, ValueError) as error:
        errors.print(f"codweb check: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    if series == 0:  # a wrong folder must not read as a sound one
        place = f"studies/{study} of {datastore}: is the UID right, and" if study else f"studies/ of {datastore}:"
        message = f"codweb check: no series below {place} is it the folder that holds studies/?"
        errors.print(message, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    if json_report:
        typer.echo(json.dumps({"series": series, "findings": [_as_json(finding) for finding in findings]}, indent=2))
    else:
        _print(Console(), findings, series)
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
