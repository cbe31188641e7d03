"""Builds the index of one series: takes the one that another replica shares, or goes the quick road or the deep one.

Runs in the server's own process for quick builds, and in others for deep ones (`storage.indexing.build_processes`).
"""

import asyncio
import logging
from collections import OrderedDict

from storage.bucket import Bucket, ObjectInfo
from storage.cod.entry import DEFAULT_LIMITS
from storage.cod.metadata import SeriesMetadata, parse_series_metadata
from storage.deid import UidMap
from storage.errors import (
    CorruptSeries,
    InstanceUnreadable,
    ObjectChanged,
    ObjectNotFound,
    SeriesNotFound,
    StorageError,
)
from storage.indexing.deep import fill_deep
from storage.indexing.draft import Draft, SeriesVersions
from storage.indexing.quick import fill_quick, original_uid
from storage.indexing.sharing import SharedIndexes
from storage.keys import SeriesKey, SeriesObject, parse_object_key, study_prefix
from storage.series_index.layout import Depth
from storage.series_index.reader import SeriesIndex, UnusableIndex
from storage.spool import Spool
from storage.state import StateFolder
from storage.together import together

logger = logging.getLogger(__name__)

_PARSED_AT_ONCE = 4
"""metadata.json files that are taken apart at the same time: each may take some hundred MB before it is refused."""
_REMEMBERED_CORRUPT = 1000
_ATTEMPTS = 3
"""A series that is replaced while it is read is read again; three times in a row is another writer's storm."""


class Indexer:
    """Builds index files of one datastore."""

    def __init__(self, bucket: Bucket, state: StateFolder, *, root: str, share: bool = False) -> None:
        """Build from a bucket into a state folder.

        Args:
            root: the service root to write into links.
            share: take deep indexes that lie in the bucket, and put there those that are built.
        """
        self.shared = SharedIndexes(bucket, state) if share else None
        self._bucket = bucket
        self._state = state
        self._root = root
        self._parsing = asyncio.Semaphore(_PARSED_AT_ONCE)
        self._corrupt: OrderedDict[SeriesKey, tuple[str, CorruptSeries]] = OrderedDict()

    async def build(self, key: SeriesKey, depth: Depth) -> None:
        """Put an index of at least this depth in place; of several processes one builds and the others wait.

        Raises:
            SeriesNotFound: no metadata.json.
            CorruptSeries: metadata.json cannot be read.
            ObjectChanged, StorageUnavailable: the bucket does not hold still, or does not answer.
        """
        async with self._state.building(key):
            await self._build(key, depth)

    async def _build(self, key: SeriesKey, depth: Depth) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._attempt(key, depth)
            except ObjectChanged:
                if attempt + 1 == _ATTEMPTS:
                    raise
                logger.info("%s changed while it was read; reading it again", key)

    async def _attempt(self, key: SeriesKey, depth: Depth) -> None:
        info, tar, copy = await together((self._described(key.metadata), self._described(key.tar), self._copy(key)))
        if info is None:
            raise SeriesNotFound(f"no {key}")
        versions = SeriesVersions(info.version, tar)
        if self._is_built(key, depth, versions) or (copy is not None and await self._is_taken(copy, key, versions)):
            return
        metadata_bytes = await self._metadata_bytes(key, info)
        async with self._parsing:
            metadata = await self._parsed(metadata_bytes, key, versions.metadata)
            await self._write(key, depth, metadata, versions)
        if self.shared is not None and depth == "deep":
            await self._share(self.shared, key)

    async def _copy(self, key: SeriesKey) -> ObjectInfo | None:
        return await self.shared.find(key) if self.shared is not None else None

    async def _is_taken(self, copy: ObjectInfo, key: SeriesKey, versions: SeriesVersions) -> bool:
        """Whether a shared index was of use: it lies in place of a built one then, and is deep."""
        assert self.shared is not None  # who else found the copy?
        return await self.shared.take(copy, key, _pair(versions), self._state.series_index(key), self._root)

    async def _share(self, shared: SharedIndexes, key: SeriesKey) -> None:
        try:
            index = SeriesIndex(self._state.series_index(key))
        except UnusableIndex:  # deleted meanwhile, as derived state may be
            return
        await shared.put(index)

    async def _parsed(self, data: bytes, key: SeriesKey, version: str) -> SeriesMetadata:
        """What metadata.json says. That it cannot be read is remembered for its version: finding out may cost seconds."""
        known = self._corrupt.get(key)
        if known is not None and known[0] == version:
            raise CorruptSeries(str(known[1]))
        try:
            return await asyncio.to_thread(parse_series_metadata, data, key)
        except CorruptSeries as error:
            self._corrupt[key] = version, error.with_traceback(None)
            while len(self._corrupt) > _REMEMBERED_CORRUPT:
                self._corrupt.popitem(last=False)
            raise

    async def _metadata_bytes(self, key: SeriesKey, info: ObjectInfo) -> bytes:
        if info.size > DEFAULT_LIMITS.max_bytes:
            raise CorruptSeries(f"{key}: metadata.json has {info.size} bytes, more than {DEFAULT_LIMITS.max_bytes}")
        try:
            return bytes((await self._bucket.read(key.metadata, version=info.version)).data)
        except ObjectNotFound as error:
            raise SeriesNotFound(f"no {key} any more") from error

    async def _described(self, key: str) -> ObjectInfo | None:
        try:
            return await self._bucket.head(key)
        except ObjectNotFound:
            return None

    def _is_built(self, key: SeriesKey, depth: Depth, versions: SeriesVersions) -> bool:
        """Whether another process has put such an index in place meanwhile."""
        try:
            header = SeriesIndex(self._state.series_index(key)).header
        except UnusableIndex:
            return False
        is_current = (header.metadata_version, header.tar_version) == _pair(versions) and header.root == self._root
        return is_current and depth in (header.depth, "quick")

    async def _write(self, key: SeriesKey, depth: Depth, metadata: SeriesMetadata, versions: SeriesVersions) -> None:
        uid_map = await self._uid_map(metadata) if metadata.is_deid else None
        with Spool() as spool:
            draft = Draft(key, spool, root=self._root, uid_map=uid_map)
            if depth == "deep":
                await fill_deep(draft, metadata, versions, self._bucket)
            else:
                await asyncio.to_thread(fill_quick, draft, metadata, versions)
            try:
                await asyncio.to_thread(draft.write, self._state.series_index(key), versions, depth)
            except OSError as error:
                raise StorageError(f"the index of {key} cannot be written to the state folder: {error}") from error

    async def _uid_map(self, metadata: SeriesMetadata) -> UidMap:
        """Original UIDs of the whole study and what the outside world may call them."""
        known: dict[str, str] = {}
        study_uid = metadata.key.study_uid
        async for info in self._bucket.list(study_prefix(study_uid)):
            parsed = parse_object_key(info.key)
            if parsed is None or parsed[1] is not SeriesObject.METADATA:
                continue
            if parsed[0] != metadata.key:
                read = await self._bucket.read(info.key)
                other = await asyncio.to_thread(parse_series_metadata, bytes(read.data), parsed[0])
                _collect(other, known)
        _collect(metadata, known)
        return UidMap(known, self._state.uid_key())


def _pair(versions: SeriesVersions) -> tuple[str, str | None]:
    return versions.metadata, versions.tar.version if versions.tar is not None else None


def _collect(metadata: SeriesMetadata, known: dict[str, str]) -> None:
    for uid, entry in metadata.entries.items():
        known[original_uid(uid, entry)] = uid
        try:
            originals = entry.original_uids()
        except InstanceUnreadable:
            continue
        if originals.study_uid:
            known[originals.study_uid] = metadata.key.study_uid
        if originals.series_uid:
            known[originals.series_uid] = metadata.key.series_uid
