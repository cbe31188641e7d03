"""Metadata answers: stored pieces spliced, by mode, coding and service root."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from storage.archive.variants import VariantCache, array_chunks, block_chunks, coded, instance_chunks
from storage.extrapolation import Extrapolation, MetadataMode
from storage.indexing.shelf import IndexShelf
from storage.keys import SeriesKey
from storage.metadata_modes import extrapolated_attributes, main_attributes
from storage.series_index.reader import SeriesIndex
from storage.series_index.rerooting import rerooted
from storage.series_index.splice import Coding, Piece, array, joined

VARIANT_BYTES = 64 << 20
"""Answers kept that are not stored: other service roots, other modes, no compression."""
STREAMED_BYTES = 16 << 20
"""Uncompressed answers above this are decompressed while they are sent."""
_OFF_LOOP_BYTES = 1 << 20
_HASTY_THREADS = 2
"""Blocks that are compressed at the same time for an answer somebody waits for; zlib and zstandard let go of the GIL."""


@dataclass(frozen=True, slots=True)
class MetadataBody:
    """A metadata answer: parts of a finished body, or chunks that are made while they are sent."""

    etag: str
    """Strong entity tag, quoted (RFC 9110 §8.8.3): versions, depth, mode, root and coding."""
    is_deep: bool
    """False: told by metadata.json alone, which may lack attributes; a deep answer follows when the tar was read."""
    parts: list[bytes | memoryview] = field(default_factory=list)
    chunks: Iterator[bytes] | None = None
    """Taken instead of `parts`, in a thread."""

    @property
    def length(self) -> int:
        """Bytes of `parts`."""
        return sum(len(part) for part in self.parts)


class Metadata:
    """Answers metadata of one archive at three levels."""

    def __init__(self, shelf: IndexShelf, rules: Extrapolation, *, variant_bytes: int = VARIANT_BYTES) -> None:
        self._shelf = shelf
        self._rules = rules
        self._variants = VariantCache(variant_bytes)

    async def of_series(
        self, keys: Sequence[SeriesKey], *, mode: MetadataMode, coding: Coding, root: str
    ) -> MetadataBody:
        """The metadata of all instances of one or more series (a study), as one DICOM JSON array.

        Args:
            root: the service root that links begin with.

        Raises:
            SeriesNotFound, CorruptSeries, StorageUnavailable: one of the series cannot be read.
        """
        if len(keys) == 1:
            indexes = [await self._shelf.get(keys[0], with_metadata=True)]
        else:
            indexes = await self._shelf.get_all(keys, with_metadata=True)
        rules = self._rules if mode == "extrapolate" else None
        etag = _etag([index.identity for index in indexes], mode, rules, root, coding)
        is_deep = all(index.header.depth == "deep" for index in indexes)
        if mode == "full" and coding == "identity" and sum(index.json_bytes for index in indexes) > STREAMED_BYTES:
            return MetadataBody(etag, is_deep, chunks=array_chunks(indexes, root))
        groups = [await self._pieces(index, mode, coding, root) for index in indexes]
        return MetadataBody(etag, is_deep, array(groups, coding))

    async def of_instance(self, key: SeriesKey, instance_uid: str, *, coding: Coding, root: str) -> MetadataBody:
        """The full metadata of one instance, as an array of one. Raises also InstanceNotFound."""
        index = await self._shelf.get(key, with_metadata=True)
        instance = index.instance(instance_uid)
        etag = _etag([index.identity, instance.uid], "full", None, root, coding)
        is_deep = index.header.depth == "deep"
        chunks = instance_chunks(index, instance.ordinal, root)
        size = index.record(instance.ordinal).json_length
        if coding == "identity" and size > STREAMED_BYTES:
            return MetadataBody(etag, is_deep, chunks=_bracketed(chunks))
        piece = await asyncio.to_thread(coded, chunks, coding) if size > _OFF_LOOP_BYTES else coded(chunks, coding)
        return MetadataBody(etag, is_deep, array([[piece]], coding))

    async def _pieces(self, index: SeriesIndex, mode: MetadataMode, coding: Coding, root: str) -> list[Piece]:
        stored = index.pieces(coding) if mode == "full" and root == index.header.root else None
        if stored is not None:
            return stored
        name = (index.identity, index.key, mode, coding, root)
        kept = self._variants.get(name)
        if kept is None:
            kept = await asyncio.to_thread(self._variant, index, mode, coding, root)
            self._variants.put(name, kept)
        return kept

    def _variant(self, index: SeriesIndex, mode: MetadataMode, coding: Coding, root: str) -> list[Piece]:
        """Pieces that are not stored: another root, another coding, or a short mode."""
        if mode == "full":
            is_hasty = index.header.depth == "quick"
            blocks = block_chunks(index, root)
            if not is_hasty:
                return joined((coded(chunks, coding) for chunks in blocks), coding)
            with ThreadPoolExecutor(_HASTY_THREADS) as threads:
                return joined(threads.map(lambda chunks: coded(chunks, coding, is_hasty=True), blocks), coding)
        if index.header.count == 0:
            return []
        objects = main_attributes(index) if mode == "main" else extrapolated_attributes(index, self._rules)
        return [coded(rerooted([b",".join(objects)], index.header.root, root), coding)]


def _bracketed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    yield from chunks
    yield b"]"


def _etag(identities: Sequence[str], mode: MetadataMode, rules: Extrapolation | None, root: str, coding: Coding) -> str:
    facts = repr((tuple(identities), mode, rules, root, coding))
    return f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'
