"""Deep series indexes in the bucket: one object for each series, read by all replicas, replaced by whoever builds anew.

A copy is an index file like any other, whose links have no host (`storage.links`); whoever takes it writes its own root
in. It names the versions of metadata.json and of the tar that it was built for and carries checksums, so it may be old,
damaged or missing at any time: then it is not there, and the index is built from the series.

Not shared are quick indexes (metadata.json tells the same at the same price), what the first touch of unproven instances
found out, and the indexes of de-identified stores, which are made with a secret of each state folder.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

from storage.bucket import Bucket, ObjectInfo
from storage.catalogue.base import SeriesSummary
from storage.errors import NotFound, StorageError
from storage.indexing.summary import summary_of_header
from storage.keys import SeriesKey, shared_index_key, shared_index_prefix
from storage.links import ROOT
from storage.ranges import ByteRange
from storage.series_index.layout import FORMAT, Header
from storage.series_index.reader import SeriesIndex, UnusableIndex
from storage.series_index.rerooting import write_rerooted
from storage.series_index.tail import checked_header, header_range, tail_range
from storage.state import StateFolder

logger = logging.getLogger(__name__)

LARGEST_BYTES = 1 << 30
"""No index comes near this; what does is not one of ours."""
PAUSE_SECONDS = 600
"""After a copy could not be written (a read-only bucket, most likely), none is offered for so long."""
_CHUNK_BYTES = 512 << 10
Versions = tuple[str, str | None]
"""Of metadata.json and of the tar, None where there is no tar."""


class SharedIndexes:
    """The shared indexes of one datastore. A failure to read or write one is told in the log and fails nothing."""

    def __init__(self, bucket: Bucket, state: StateFolder) -> None:
        self._bucket = bucket
        self._state = state
        self._refusal = state.path / "sharing.paused"
        self._has_failed = False

    async def find(self, key: SeriesKey) -> ObjectInfo | None:
        """The copy of a series, whatever it is worth; None if there is none, or the bucket will not tell."""
        try:
            return await self._bucket.head(shared_index_key(key, FORMAT))
        except NotFound:
            return None
        except StorageError as error:
            self._note_unread(error)
            return None

    async def find_study(self, study_uid: str) -> list[ObjectInfo]:
        """The copies of all series of a study."""
        try:
            return [info async for info in self._bucket.list(shared_index_prefix(FORMAT, study_uid))]
        except StorageError as error:
            self._note_unread(error)
            return []

    async def take(self, copy: ObjectInfo, key: SeriesKey, versions: Versions, path: Path, root: str) -> bool:
        """Put a copy in place as this server's own index; one request, and memory for its instances' rows.

        Args:
            path: where the index shall lie.
            root: the service root to write into links.

        Returns:
            False if it is of no use: damaged, of another format, of other versions. Nothing is at `path` then that was
            not there before.
        """
        if copy.size > LARGEST_BYTES:
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=path.parent, prefix=".shared-") as folder:
                rootless = Path(folder) / "rootless.index"
                await self._download(copy, rootless)
                await asyncio.to_thread(_localise, rootless, key, versions, path, root)
        except UnusableIndex as error:
            logger.info("the shared index of %s is not used: %s", key, error)
            return False
        except (StorageError, OSError) as error:
            self._note_unread(error)
            return False
        return True

    async def summary(self, copy: ObjectInfo, key: SeriesKey, versions: Versions) -> SeriesSummary | None:
        """What the catalogue is to know of a series, from the end of its copy: one request, two for very long series.

        None if the copy is of no use.
        """
        try:
            tail_at = tail_range(copy.size)
            tail = (await self._bucket.read(copy.key, tail_at, version=copy.version)).data
            wanted = header_range(tail, copy.size)
            if wanted.start >= tail_at.start:
                within = wanted.shifted(-tail_at.start)
                header = checked_header(tail[within.start : within.stop])
            else:
                header = checked_header((await self._bucket.read(copy.key, wanted, version=copy.version)).data)
            _check_fits(header, key, versions)
        except UnusableIndex as error:
            logger.info("the shared index of %s is not used: %s", key, error)
            return None
        except StorageError as error:
            self._note_unread(error)
            return None
        return summary_of_header(header)

    async def summary_of(self, key: SeriesKey, versions: Versions) -> SeriesSummary | None:
        """As `summary`, of the copy of a series if there is one: two small requests."""
        copy = await self.find(key)
        return await self.summary(copy, key, versions) if copy is not None else None

    async def offer(self, index: SeriesIndex) -> None:
        """Share an index unless the bucket holds one for the same versions."""
        copy = await self.find(index.key)
        versions = index.header.metadata_version, index.header.tar_version
        if copy is None or await self.summary(copy, index.key, versions) is None:
            await self.put(index)

    async def put(self, index: SeriesIndex) -> None:
        """Share an index, in place of whatever is there. Of several replicas that build the same, the last one wins."""
        if index.header.depth != "deep" or index.header.is_deid or self._is_paused():
            return
        try:
            with TemporaryDirectory(dir=index.path.parent, prefix=".shared-") as folder:
                rootless = Path(folder) / "rootless.index"
                await asyncio.to_thread(write_rerooted, index, rootless, ROOT)
                await self._bucket.upload(shared_index_key(index.key, FORMAT), _chunks(rootless))
        except (StorageError, UnusableIndex, OSError) as error:
            self._pause(error)

    async def _download(self, copy: ObjectInfo, path: Path) -> None:
        file = await asyncio.to_thread(path.open, "wb")
        with file:
            whole = ByteRange(0, copy.size)
            async for chunk in self._bucket.stream(copy.key, whole, version=copy.version, chunk_bytes=_CHUNK_BYTES):
                await asyncio.to_thread(file.write, chunk)

    def _note_unread(self, error: Exception) -> None:
        """Once for each process: a bucket that refuses refuses every time."""
        logger.log(logging.DEBUG if self._has_failed else logging.WARNING, "shared indexes cannot be read: %s", error)
        self._has_failed = True

    def _is_paused(self) -> bool:
        try:
            return time.time() - self._refusal.stat().st_mtime < PAUSE_SECONDS
        except OSError:
            return False

    def _pause(self, error: Exception) -> None:
        """Told to all processes of this state folder: a warning for each series would be of no use to anybody."""
        logger.warning(
            "series indexes cannot be shared; those built in the next %d minutes are not offered (codweb index does): %s",
            PAUSE_SECONDS // 60,
            error,
        )
        try:
            self._refusal.touch()
        except OSError:
            pass


def _localise(rootless: Path, key: SeriesKey, versions: Versions, path: Path, root: str) -> None:
    """Raises UnusableIndex."""
    index = SeriesIndex(rootless)
    _check_fits(index.header, key, versions)
    write_rerooted(index, path, root)


def _check_fits(header: Header, key: SeriesKey, versions: Versions) -> None:
    """Raises UnusableIndex unless a copy is of this series as it is now, and one that is shared at all."""
    if (header.study_uid, header.series_uid) != (key.study_uid, key.series_uid):
        raise UnusableIndex(f"it is of series {header.series_uid}")
    if (header.metadata_version, header.tar_version) != versions:
        raise UnusableIndex("the series was written again since")
    if header.root != ROOT or header.depth != "deep" or header.is_deid:
        raise UnusableIndex("such an index is not shared")


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
