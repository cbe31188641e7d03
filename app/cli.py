"""The command line: `codweb serve`, `index`, `ingest`, `check`, `unlock`, `demo`.

A command's module is imported when the command runs: an ingest does not wait for the parts of an HTTP server.
"""

from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

COMMANDS: Final = {
    "serve": "Serve a datastore over DICOMweb.",
    "index": "Fill the catalogue and build the series indexes of a datastore, ahead of serving it.",
    "ingest": "Store DICOM files as Cloud Optimized DICOM, one tar per series.",
    "check": "Look for what is wrong with a datastore: torn series, wrong offset tables, lossy metadata, orphans, locks.",
    "unlock": "List the locks of a datastore, and remove those that dead writers left behind.",
    "demo": "Make a datastore of synthetic studies, to try the server with.",
}
"""Name, which is that of module and function, and the first sentence of its help, which a list of commands shows."""


class _Commands(TyperGroup):
    """Lists commands by their sentences, and imports the one that is asked for."""

    # Any, twice: the classes of click, which some releases of typer bring along under a private name.
    def resolve_command(self, ctx: Any, args: Any) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _loaded(name) if name in COMMANDS else command, rest


commands = typer.Typer(
    cls=_Commands,
    name="codweb",
    help="A DICOMweb server that works directly on Cloud Optimized DICOM.",
    epilog="Start with: codweb demo ./demo, then codweb serve ./demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _loaded(name: str) -> Any:  # Any: as above
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(getattr(import_module(f"app.commands.{name}"), name))
    return typer.main.get_command(alone)


def _listed() -> None:
    raise AssertionError("a command is loaded before it is run")


for _name, _sentence in COMMANDS.items():
    commands.command(_name, help=_sentence)(_listed)


@commands.command()
def version() -> None:
    """Print the version."""
    from app import __version__

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
