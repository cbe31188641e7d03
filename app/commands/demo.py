"""`codweb demo`: a datastore of synthetic studies, to try the server without anybody's images."""

import asyncio
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.demo.build import Advance, DemoRefused, build_demo
from app.demo.contents import CONTENTS, Making
from storage.bucket import Bucket, open_bucket
from storage.errors import StorageError


def demo(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Datastore to make: a new or empty folder.")],
    force: Annotated[bool, typer.Option("--force", help="Make the demo anew, also where it is there.")] = False,
) -> None:
    """Make a datastore of synthetic studies, to try the server with.

    \b
    Four studies of nobody: a CT of a head with a report and a PDF, MR volumes
    of the same head, an ultrasound cine, and a stained slide. A demo that is
    there is left alone, one that was broken off is completed, and a folder
    that holds anything else is refused.

    \b
    Examples:
      codweb demo ./demo-datastore
      codweb serve ./demo-datastore
    """
    console, errors = Console(), Console(stderr=True)
    began = time.monotonic()
    total = sum(making.instances for making in CONTENTS)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        bucket = open_bucket(folder, create=True)
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
            task = bars.add_task("Making the demo", total=total)

            def advance(making: Making, instances: int) -> None:
                bars.update(task, advance=instances, description=f"Made {making.series.description}")

            made = asyncio.run(_build(bucket, force, advance))
    except (DemoRefused, StorageError, ValueError) as error:
        errors.print(f"codweb demo: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if not made:
        message = f"{folder} holds the demo already: {len(CONTENTS)} series, {total} instances."
    else:
        instances = sum(making.instances for making in made)
        message = f"{folder}: made {len(made)} series, {instances} instances, in {time.monotonic() - began:.1f} s."
    console.print(message, markup=False, highlight=False, soft_wrap=True)


async def _build(bucket: Bucket, force: bool, advance: Advance) -> list[Making]:
    try:
        return await build_demo(bucket, force=force, advance=advance)
    finally:
        await bucket.close()
