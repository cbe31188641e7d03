"""The log: one stream, stderr, for all processes of a server."""

import logging

from rich.console import Console
from rich.logging import RichHandler


def start_logging(level: str, *, process: str = "") -> None:
    """Coloured lines on a terminal; elsewhere one whole line an event, for `docker logs`, journals and grep.

    Args:
        process: the name that stands before each message, where several processes write to the same stream.
    """
    console = Console(stderr=True)
    message = f"{process}: %(message)s" if process else "%(message)s"
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False, rich_tracebacks=False)
    else:
        handler = logging.StreamHandler()
        message = f"%(asctime)s %(levelname)s {message}"
    logging.basicConfig(level=level.upper(), format=message, handlers=[handler], force=True)
    for chatty in ("uvicorn.error", "botocore", "google"):  # who starts and where credentials lie, at every start
        logging.getLogger(chatty).setLevel("WARNING")
