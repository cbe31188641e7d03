"""Deepening in the background: every quick index becomes a deep one, those of opened studies first."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from storage.catalogue.base import Catalogue
from storage.errors import StorageError
from storage.indexing.shelf import IndexShelf
from storage.indexing.summary import summary_of
from storage.keys import SeriesKey
from storage.series_index.reader import SeriesIndex

logger = logging.getLogger(__name__)

_PAGE = 500
_PAUSE_SECONDS = 10.0
"""After the catalogue failed."""


class Deepening:
    """A queue of series to be read deeply, worked off one at a time."""

    def __init__(
        self,
        shelf: IndexShelf,
        catalogue: Catalogue,
        *,
        mode: str,
        stand_back: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Wait for `start`.

        Args:
            mode: all (the whole datastore, opened series first), opened (only those), off.
            stand_back: awaited before each series; returns when others need the processor less.
        """
        self._stand_back = stand_back
        self._shelf = shelf
        self._catalogue = catalogue
        self._mode = mode
        self._opened: OrderedDict[SeriesKey, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._at_work: SeriesKey | None = None
        self.failed: dict[SeriesKey, str] = {}
        """Series that could not be deepened, and why; tried again when they change."""

    def start(self) -> None:
        """Begin to work."""
        if self._mode != "off":
            self._task = asyncio.create_task(self._run())

    def noticed(self, index: SeriesIndex) -> None:
        """A series was opened by somebody: if its index is quick it comes next."""
        self.failed.pop(index.key, None)
        if index.header.depth == "quick" and index.key != self._at_work:  # or its own work would wake it again
            self.next(index.key)

    def next(self, key: SeriesKey) -> None:
        """Deepen this series next; costs little if another process has done it meanwhile."""
        self.failed.pop(key, None)
        self._opened[key] = None
        self._opened.move_to_end(key, last=False)
        self._wake.set()

    def look_again(self) -> None:
        """The catalogue may hold something new."""
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._work_off_opened()
                if self._mode == "all":
                    await self._work_off_catalogue()
            except StorageError as error:
                logger.warning("series stay quick for now: the catalogue cannot be read: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            await self._wake.wait()

    async def _work_off_opened(self) -> None:
        while self._opened:
            key, _ = self._opened.popitem(last=False)
            await self._deepen(key)

    async def _work_off_catalogue(self) -> None:
        after = ""
        while True:
            page = await self._catalogue.known(after=after, limit=_PAGE)
            for known in page:
                after = f"{known.key.study_uid}/{known.key.series_uid}"
                if known.depth == "quick" and known.problem is None and known.key not in self.failed:
                    await self._deepen(known.key)
                await self._work_off_opened()
            if len(page) < _PAGE:
                return

    async def _deepen(self, key: SeriesKey) -> None:
        self._at_work = key
        try:
            if self._stand_back is not None:
                await self._stand_back()
            index = await self._shelf.get(key, depth="deep")
            await self._catalogue.upsert([summary_of(index)])
        except StorageError as error:
            self.failed[key] = str(error)
            logger.warning("%s stays quick: %s", key, error)
        except Exception as error:  # a mistake of ours over one series must not keep the others quick
            self.failed[key] = type(error).__name__
            logger.error("%s stays quick", key, exc_info=error)
        finally:
            self._at_work = None
