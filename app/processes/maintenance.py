"""The maintenance process: syncs the catalogue and deepens series indexes, so that workers only read."""

import asyncio
import logging
import signal
from contextlib import suppress

from app.log import start_logging
from app.main import open_archive
from app.processes.board import Board
from app.processes.opened import OpenedSeries
from app.settings import Settings
from app.upkeep import keep_up
from storage.child_process import end_with_the_parent
from storage.errors import StorageError

logger = logging.getLogger("codweb")

_REPORT_SECONDS = 1.0


def run_maintenance(settings: Settings, board: Board, slot: int, opened: OpenedSeries) -> None:
    """Work until SIGTERM. A failure that nobody expected ends the process, and the supervisor starts another."""
    end_with_the_parent()
    start_logging(settings.log_level, process=board.names[slot])
    try:
        asyncio.run(_maintain(settings, board, slot, opened))
    except StorageError as error:
        logger.error("%s", error)
        raise SystemExit(1) from error


async def _maintain(settings: Settings, board: Board, slot: int, opened: OpenedSeries) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    archive = open_archive(settings)

    def hear() -> None:
        for key in opened.waiting():
            archive.deepening.next(key)

    upkeep = asyncio.create_task(keep_up(archive, settings.sync_seconds))
    archive.deepening.start()
    if settings.deepen != "off":
        loop.add_reader(opened.heard, hear)
    try:
        while not stopping.is_set():
            if upkeep.done():
                upkeep.result()
            board.report_memory(slot)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _REPORT_SECONDS)
    finally:
        loop.remove_reader(opened.heard)
        upkeep.cancel()
        await asyncio.wait([upkeep])
        await archive.close()
