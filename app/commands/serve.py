"""`codweb serve`: the server, and what to open once it runs."""

import errno
import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from rich.console import Console

from app.log import start_logging
from app.main import create_app
from app.processes.supervisor import Supervisor
from app.server import server_config
from app.services import SERVICE_PREFIX
from app.settings import Settings, read_settings
from storage.bucket import open_bucket
from storage.errors import StorageError
from storage.state import StateFolder


def serve(
    datastore: Annotated[
        str,
        typer.Argument(
            metavar="DATASTORE", help="What holds studies/: a folder, s3://… or gs://… (default CODWEB_DATASTORE)."
        ),
    ] = "",
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default 127.0.0.1: this machine only).")
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port (default 8042); 0 takes a free one.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for derived state (default ~/.local/state/codweb).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer (default 1); one a core is a good number.")
    ] = None,
) -> None:
    """Serve a datastore over DICOMweb.

    \b
    Instances, frames and metadata are served at once; searches fill as the
    datastore is looked over, and a second visit finds them ready. Nothing is
    written to the datastore (unless CODWEB_SHARE_INDEXES asks for it): what is
    derived lies in the state folder and may be deleted at any time.

    \b
    Examples:
      codweb serve ./datastore
      codweb serve ./datastore --port 9000
      codweb serve /data --workers 4
      codweb serve s3://bucket/prefix
      CODWEB_PUBLIC_URL=https://pacs.example.org/dicomweb codweb serve /data

    \b
    Every setting is an environment variable; config/codweb.env.example lists
    them with their defaults.
    """
    console = Console(stderr=True)
    try:
        settings = read_settings(datastore=datastore or None, host=host, port=port, state_dir=state, workers=workers)
        # says now, in one sentence, what the lifespan would say in a trace
        StateFolder(settings.state_dir, open_bucket(settings.datastore, options=settings.bucket_options).url)
        listening = _listen(settings)
    except (StorageError, ValueError, OSError) as error:
        console.print(f"codweb serve: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    settings = settings.model_copy(update={"port": listening.getsockname()[1]})
    start_logging(settings.log_level, process="supervisor" if settings.workers > 1 else "")
    _greet(console, settings)
    if settings.workers > 1:
        Supervisor(settings, listening).run()
        return
    _run(uvicorn.Server(server_config(create_app(settings))), listening)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        # socket puts the address into the words again; the errors of a name look-up have negative numbers
        if error.errno is None or error.errno < 0:
            reason, mend = str(error.strerror or error).partition(" (while ")[0], "name an address of this machine"
        else:
            reason, mend = os.strerror(error.errno), _MENDS.get(error.errno, "try --port 0")
        raise OSError(f"cannot listen on {settings.host} port {settings.port}: {reason}; {mend}") from error


_MENDS = {
    errno.EADDRNOTAVAIL: "name an address of this machine",
    errno.EACCES: "ports below 1024 are the system's; try --port 8042",
}


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, finish what is under way, and return.

    uvicorn raises the signal again when it has shut down; without a handler the process would die of it then, and whoever
    asked it to stop would read a failure.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run(sockets=[listening])


def _greet(console: Console, settings: Settings) -> None:
    """What to open, and what to try."""
    root = settings.public_url or settings.local_url + SERVICE_PREFIX
    for line in (
        f"codweb serves {settings.datastore}",
        f"  DICOMweb root for viewers:  {root}",
        f"  API documentation:          {settings.local_url}/docs",
        f"  try:                        curl '{root}/studies?limit=5'",
        "  stop with Ctrl+C",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
