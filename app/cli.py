"""The command line: `codweb serve`, `index`, `ingest`, `check`, `unlock`, `demo`."""

from typing import Annotated

import typer

from app import __version__
from app.commands.check import check
from app.commands.demo import demo
from app.commands.index import index
from app.commands.ingest import ingest
from app.commands.serve import serve
from app.commands.unlock import unlock

commands = typer.Typer(
    name="codweb",
    help="A DICOMweb server that works directly on Cloud Optimized DICOM.",
    epilog="Start with: codweb demo ./demo, then codweb serve ./demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands.command()(serve)
commands.command()(index)
commands.command()(ingest)
commands.command()(check)
commands.command()(unlock)
commands.command()(demo)


@commands.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _print_and_exit(is_asked: bool) -> None:
    if is_asked:
        version()
        raise typer.Exit


@commands.callback()
def options(
    is_version_asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_and_exit, is_eager=True)
    ] = False,
) -> None:
    """What stands before a command: options that end the program by themselves."""


def main() -> None:
    """Entry point of the `codweb` command."""
    commands()
