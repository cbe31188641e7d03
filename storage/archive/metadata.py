"""Metadata answers: stored pieces spliced, by mode, coding and service root."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import zstandard

from storage.archive.proof import Prover
from storage.indexing.shelf import IndexShelf
from storage.keys import SeriesKey
from storage.metadata_modes import Extrapolation, MetadataMode, extrapolated_attributes, main_attributes
from storage.series_index.reader import SeriesIndex
from storage.series_index.splice import ZSTD_LEVEL, Coding, Piece, array, deflate_piece, joined
from storage.together import together

VARIANT_BYTES = 64 << 20
"""Compressed answers kept for service roots and modes other than the stored ones."""


@dataclass(frozen=True, slots=True)
class MetadataBody:
    """A finished metadata answer."""

    parts: list[bytes | memoryview]
    etag: str
    """Strong entity tag, quoted (RFC 9110 §8.8.3): versions, depth, mode, root and coding."""
    is_deep: bool
    """False: told by metadata.json alone, which may lack attributes; a deep answer follows when the tar was read."""

    @property
    def length(self) -> int:
        return sum(len(part) for part in self.parts)


class Metadata:
    """Answers metadata of one archive at three levels."""

    def __init__(self, shelf: IndexShelf, prover: Prover, rules: Extrapolation) -> None:
        self._shelf = shelf
        self._prover = prover
        self._rules = rules
        self._variants = _VariantCache(VARIANT_BYTES)

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
            indexes = await together(self._shelf.get(key, with_metadata=True) for key in keys)
        groups = [await self._pieces(index, mode, coding, root) for index in indexes]
        return MetadataBody(
            parts=array(groups, coding),
            etag=_etag(
                [index.identity for index in indexes], mode, self._rules if mode == "extrapolate" else "", root, coding
            ),
            is_deep=all(index.header.depth == "deep" for index in indexes),
        )

    async def of_instance(self, key: SeriesKey, instance_uid: str, *, coding: Coding, root: str) -> MetadataBody:
        """The full metadata of one instance, as an array of one. Raises also InstanceNotFound."""
        index = await self._shelf.get(key, with_metadata=True)
        instance = index.instance(instance_uid)
        if index.record(instance.ordinal).json_length > _OFF_LOOP_BYTES:
            piece = await asyncio.to_thread(_instance_piece, index, instance.ordinal, coding, root)
        else:
            piece = _instance_piece(index, instance.ordinal, coding, root)
        return MetadataBody(
            parts=array([[piece]], coding),
            etag=_etag([index.identity, instance.uid], "full", "", root, coding),
            is_deep=index.header.depth == "deep",
        )

    async def _pieces(self, index: SeriesIndex, mode: MetadataMode, coding: Coding, root: str) -> list[Piece]:
        stored = index.pieces(coding) if mode == "full" and root == index.header.root else None
        if stored is not None:
            return stored
        if mode == "full" and coding == "identity":  # large and quickly made again: not kept
            return await asyncio.to_thread(self._variant, index, mode, coding, root)
        name = (index.identity, index.key, mode, coding, root)
        kept = self._variants.get(name)
        if kept is None:
            kept = await asyncio.to_thread(self._variant, index, mode, coding, root)
            self._variants.put(name, kept)
        return kept

    def _variant(self, index: SeriesIndex, mode: MetadataMode, coding: Coding, root: str) -> list[Piece]:
        """Pieces that are not stored: another root, or a short mode."""
        if mode == "full":
            texts = _block_texts(index, root)
        elif index.header.count == 0:
            return []
        else:
            objects = main_attributes(index) if mode == "main" else extrapolated_attributes(index, self._rules)
            texts = iter((_rerooted(b",".join(objects), index.header.root, root),))
        return joined((_coded(text, coding) for text in texts), coding)


_OFF_LOOP_BYTES = 1 << 20


def _block_texts(index: SeriesIndex, root: str) -> Iterator[bytes]:
    for number in range(len(index.header.blocks)):
        yield _rerooted(index.block_json(number), index.header.root, root)


def _instance_piece(index: SeriesIndex, ordinal: int, coding: Coding, root: str) -> Piece:
    return _coded(_rerooted(index.instance_json(ordinal), index.header.root, root), coding)


def _coded(text: bytes, coding: Coding) -> Piece:
    if coding == "zstd":
        data = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(text)
    else:
        data = deflate_piece(text) if coding == "gzip" else text
    return Piece(data, len(text), crc32(text))


def _rerooted(text: bytes, stored_root: str, root: str) -> bytes:
    """Links of another service root. `"BulkDataURI":"` cannot occur inside a JSON string, whose quotes are escaped."""
    if stored_root == root:
        return text
    return text.replace(b'"BulkDataURI":"%b/' % stored_root.encode(), b'"BulkDataURI":"%b/' % root.encode())


def _etag(identities: Sequence[str], mode: MetadataMode, rules: object, root: str, coding: Coding) -> str:
    facts = repr((tuple(identities), mode, repr(rules), root, coding))
    return f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'


class _VariantCache:
    """Pieces by name, the least recently used dropped above a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[object, list[Piece]] = OrderedDict()

    def get(self, name: object) -> list[Piece] | None:
        pieces = self._kept.get(name)
        if pieces is not None:
            self._kept.move_to_end(name)
        return pieces

    def put(self, name: object, pieces: list[Piece]) -> None:
        if name in self._kept:
            return
        self._kept[name] = pieces
        self._bytes += _size(pieces)
        while self._bytes > self._most_bytes and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(pieces: list[Piece]) -> int:
    return sum(len(piece.data) for piece in pieces)
