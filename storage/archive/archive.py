"""Archive: one datastore, opened for reading."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from storage.archive.bulkdata import BulkdataReader
from storage.archive.frames import Frames
from storage.archive.instances import Instances
from storage.archive.metadata import Metadata
from storage.archive.proof import Prover
from storage.archive.search import Searches
from storage.bucket import Bucket
from storage.catalogue.base import Catalogue
from storage.catalogue.sqlite import SqliteCatalogue
from storage.catalogue.sync import SyncReport, sync
from storage.errors import StudyNotFound
from storage.indexing.build_processes import BuildProcesses
from storage.indexing.deepening import Deepening
from storage.indexing.indexer import Indexer
from storage.indexing.shelf import Builder, IndexShelf
from storage.indexing.summary import Summariser
from storage.keys import SeriesKey
from storage.metadata_modes import Extrapolation
from storage.state import StateFolder

logger = logging.getLogger(__name__)


class Archive:
    """Everything that can be read from one datastore."""

    def __init__(
        self,
        bucket: Bucket,
        state_base: Path,
        *,
        root: str,
        rules: Extrapolation,
        revalidate_seconds: float = 30,
        deepen: str = "all",
        own_process: bool = True,
    ) -> None:
        """Open the derived state of a bucket; nothing is read from the bucket yet.

        Args:
            root: the service root that stored links begin with.
            own_process: deep builds run in a process of their own (the bucket must be one that its URL opens again).
        """
        self.bucket = bucket
        self.state = StateFolder(state_base, bucket.url)
        self.catalogue: Catalogue = SqliteCatalogue(self.state.catalogue)
        indexer = Indexer(bucket, self.state, root=root)
        self._processes = BuildProcesses(indexer, bucket.url, state_base, root) if own_process else None
        builder: Builder = self._processes if self._processes is not None else indexer
        self.shelf = IndexShelf(bucket, self.state, builder, revalidate_seconds=revalidate_seconds)
        self.summariser = Summariser(bucket, self.state)
        prover = Prover(bucket, self.shelf)
        self.frames = Frames(bucket, prover)
        self.instances = Instances(bucket, self.shelf, prover)
        self.metadata = Metadata(self.shelf, rules)
        self.bulkdata = BulkdataReader(bucket, prover, self.frames)
        self.searches = Searches(bucket, self.catalogue, self.shelf, self.summariser)
        self.deepening = Deepening(self.shelf, self.catalogue, mode=deepen)
        self.shelf.on_built = self.deepening.noticed

    async def series_of_study(self, study_uid: str) -> list[SeriesKey]:
        """The series of a study. Raises StudyNotFound: neither catalogue nor bucket has one."""
        keys = await self.searches.series_of_study(study_uid)
        if not keys:
            raise StudyNotFound(f"no study {study_uid}")
        return keys

    async def sync(self, progress: Callable[[SyncReport], None] | None = None) -> SyncReport:
        """Bring the catalogue up to date with the bucket."""
        return await sync(self.bucket, self.catalogue, self.summariser, progress=progress)

    async def close(self) -> None:
        """Stop what runs in the background and give everything back."""
        await self.deepening.close()
        await self.shelf.close()
        if self._processes is not None:
            await asyncio.to_thread(self._processes.close)
        await self.catalogue.close()
        await self.bucket.close()
