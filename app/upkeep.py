"""The catalogue kept up to date, for as long as a server runs."""

import asyncio
import logging
import time

from storage.archive import Archive
from storage.errors import StorageError
from storage.indexing.sharing import collect_garbage

logger = logging.getLogger("codweb")

COLLECT_SECONDS = 86400
"""Shared indexes are looked through for garbage so often; what is collected late costs a little room and nothing else."""


async def keep_up(archive: Archive, seconds: float) -> None:
    """Sync at start and then every so often (0: never again); a failing bucket is tried again."""
    was_empty = False
    collected_at = float("-inf")
    while True:
        try:
            report = await archive.sync()
            if report.listed == 0 and not was_empty:
                where = archive.bucket.url
                logger.warning("no series below studies/ of %s: is it the folder that holds studies/?", where)
            was_empty = report.listed == 0
            if report.added or report.changed or report.removed:
                counts = report.listed, report.added, report.changed, report.removed
                logger.info("catalogue: %d series, %d new, %d changed, %d gone", *counts)
            for note in report.notes:
                logger.warning("%s", note)
            archive.deepening.look_again()
        except StorageError as error:
            logger.warning("the sync was broken off and will be tried again: %s", error)
        if archive.shared is not None and time.monotonic() - collected_at > COLLECT_SECONDS:
            collected_at = time.monotonic()
            await _collect(archive)
        if seconds == 0:
            return
        await asyncio.sleep(seconds)


async def _collect(archive: Archive) -> None:
    try:
        report = await collect_garbage(archive.bucket)
    except StorageError as error:
        logger.warning("shared indexes of series that are gone cannot be removed: %s", error)
        return
    removed = report.of_gone_series + report.of_older_formats
    if removed:
        logger.info("shared indexes: %d removed, %d bytes; %d are in use", removed, report.removed_bytes, report.kept)
