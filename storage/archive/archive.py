"""Archive: one datastore, opened for reading."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from storage.archive.bulkdata import BulkdataReader
from storage.archive.frames import Frames
from storage.archive.instances import Instances
from storage.archive.metadata import VARIANT_BYTES, Metadata
from storage.archive.proof import Prover
from storage.archive.read_ahead import ReadAheadOptions, Sources
from storage.archive.search import Searches
from storage.bucket import Bucket
from storage.bucket.options import BucketOptions
from storage.catalogue.base import Catalogue
from storage.catalogue.sqlite import SqliteCatalogue
from storage.catalogue.sync import SyncReport, sync
from storage.courtesy import Courtesy
from storage.errors import StudyNotFound
from storage.extrapolation import Extrapolation
from storage.indexing.build_processes import PROCESSES, BuildProcesses
from storage.indexing.deepening import Deepening
from storage.indexing.indexer import Indexer
from storage.indexing.shelf import OPEN_INDEXES, Builder, IndexShelf
from storage.indexing.summary import Summariser
from storage.keys import SeriesKey
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
        read_ahead: ReadAheadOptions | None = None,
        bucket_options: BucketOptions = BucketOptions(),
        share: bool = False,
        workers: int = 1,
    ) -> None:
        """Open the derived state of a bucket; nothing is read from the bucket yet.

        Args:
            root: the service root that stored links begin with.
            read_ahead: how much is read ahead of who scrolls; None: nothing.
            bucket_options: how build processes open the bucket.
            share: take deep series indexes that lie in the bucket, and put there those that are built.
            workers: processes of this machine that do the same; each has its part of the memory and build processes.
            own_process: deep builds run in a process of their own (the bucket must be one that its URL opens again).
        """
        self.bucket = bucket
        self.state = StateFolder(state_base, bucket.url)
        self.catalogue: Catalogue = SqliteCatalogue(self.state.catalogue)
        indexer = Indexer(bucket, self.state, root=root, share=share)
        self.shared = indexer.shared
        """Series indexes in the bucket; None: they are not shared."""
        self._processes: BuildProcesses | None = None
        if own_process:
            self._processes = BuildProcesses(
                indexer,
                bucket.url,
                state_base,
                root,
                options=bucket_options,
                share=share,
                processes=max(1, PROCESSES // workers),
            )
        builder: Builder = self._processes if self._processes is not None else indexer
        self.shelf = IndexShelf(
            bucket,
            self.state,
            builder,
            revalidate_seconds=revalidate_seconds,
            open_indexes=max(1, OPEN_INDEXES // workers),
        )
        self.summariser = Summariser(bucket, self.state, self.shared)
        self._sources = Sources(bucket, read_ahead)
        prover = Prover(bucket, self.shelf, self._sources)
        self.frames = Frames(self._sources, prover)
        self.instances = Instances(bucket, self.shelf, prover)
        self.metadata = Metadata(self.shelf, rules, variant_bytes=VARIANT_BYTES // workers)
        self.bulkdata = BulkdataReader(bucket, prover, self.frames)
        self.searches = Searches(bucket, self.catalogue, self.shelf, self.summariser, self.shared)
        self.courtesy = Courtesy()
        """Answers that are being made; what runs in the background stands back for them."""
        self.deepening = Deepening(self.shelf, self.catalogue, mode=deepen, stand_back=self.courtesy.stand_back)
        self.shelf.on_opened = self.deepening.noticed

    @property
    def reads_ahead(self) -> bool:
        """Whether it matters who reads frames."""
        return self._sources.read_ahead is not None

    async def series_of_study(self, study_uid: str) -> list[SeriesKey]:
        """The series of a study. Raises StudyNotFound: neither catalogue nor bucket has one."""
        keys = await self.searches.series_of_study(study_uid)
        if not keys:
            raise StudyNotFound(f"no study {study_uid}")
        return keys

    async def sync(self, progress: Callable[[SyncReport], None] | None = None) -> SyncReport:
        """Bring the catalogue up to date with the bucket."""
        return await sync(
            self.bucket, self.catalogue, self.summariser, progress=progress, stand_back=self.courtesy.stand_back
        )

    async def reach(self) -> None:
        """Ask the bucket for something, so that the first who come find connections and clients ready.

        Raises StorageUnavailable: it does not answer.
        """
        async for _ in self.bucket.list("studies/"):
            break

    async def close(self) -> None:
        """Stop what runs in the background and give everything back."""
        await self.deepening.close()
        await self._sources.close()
        await self.shelf.close()
        if self._processes is not None:
            await asyncio.to_thread(self._processes.close)
        await self.catalogue.close()
        await self.bucket.close()
