"""Bulk data: the value behind a BulkDataURI, found by walking the header to its attribute path."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import chain

from storage.archive.frames import Frames
from storage.archive.proof import Prover, tar_version
from storage.bucket import Bucket
from storage.deid import may_embed_uids
from storage.dicom.elements import Kind, walk
from storage.dicom.locator import PixelKind
from storage.dicom.p10 import P10, open_p10
from storage.dicom.values import little_endian_bytes
from storage.dicom.window import Window
from storage.errors import BulkdataNotFound, InstanceUnreadable, StorageError, Withheld
from storage.indexing.header_reader import InstanceSource, tail_start
from storage.keys import SeriesKey
from storage.ranges import ByteRange
from storage.series_index.reader import SeriesIndex, StoredInstance

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
ENCAPSULATED_DOCUMENT = 0x00420011
_DOCUMENT_MEDIA_TYPE = 0x00420012
_DOCUMENT_LENGTH = 0x00420015
_PATH = re.compile(r"[0-9A-Fa-f]{8}(?:/[1-9][0-9]{0,8}/[0-9A-Fa-f]{8})*", re.ASCII)
_DEEPEST = 32
_VR_OF_WORDS = {1: "OB", 2: "OW", 4: "OL", 8: "OV"}
WHOLE_BYTES = 1 << 20

AttributePath = tuple[int, ...]
"""Tag, then item number (from 1) and tag, repeated: (0x00400275, 1, 0x00091010)."""


@dataclass(frozen=True, slots=True)
class _Found:
    vr: str
    start: int
    stop: int
    media_type: str
    inflated: Window | None
    """The data set, if the positions count in it and not in the stored file."""
    little_endian: bool


def parse_attribute_path(text: str) -> AttributePath | None:
    """`7FE00010` or `00400275/1/00091010` as a path; None if it is none."""
    if _PATH.fullmatch(text) is None or text.count("/") > 2 * _DEEPEST:
        return None
    parts = text.split("/")
    return tuple(int(part, 10 if place % 2 else 16) for place, part in enumerate(parts))


class BulkdataReader:
    """Finds bulk data values of one archive."""

    def __init__(self, bucket: Bucket, prover: Prover, frames: Frames) -> None:
        self._bucket = bucket
        self._prover = prover
        self._frames = frames

    async def open(self, key: SeriesKey, instance_uid: str, path: AttributePath) -> "OpenBulkdata":
        """The value at an attribute path.

        Raises:
            BulkdataNotFound: the instance has no value there, or it is a sequence or encapsulated (ask for frames).
            Withheld: a de-identified store, and the value may embed original UIDs.
            InstanceNotFound, InstanceUnreadable, SeriesInMotion: as `Prover.proven`.
        """

        async def use(index: SeriesIndex) -> OpenBulkdata:
            if index.header.is_deid and _passes_private(path):
                raise _withheld(f"private attributes such as {path[-1]:08X}")
            instance = await self._prover.proven(index, instance_uid)
            found = await self._find(index, instance, path)
            if index.header.is_deid and may_embed_uids(found.vr, path[-1]):
                raise _withheld(f"values of VR {found.vr}")
            if not found.little_endian and _names_pixels(path):
                found = replace(found, vr=await self._samples_vr(index, instance))
            return OpenBulkdata(self._bucket, index, instance, path, found)

        return await self._prover.with_index(key, use)

    async def is_encapsulated(self, key: SeriesKey, instance_uid: str, path: AttributePath) -> bool:
        """Whether the path names encapsulated pixels, which are sent as frames."""
        if not _names_pixels(path):
            return False
        return not (await self._frames.open(key, instance_uid)).pixels.is_native

    async def _find(self, index: SeriesIndex, instance: StoredInstance, path: AttributePath) -> "_Found":
        source = InstanceSource(self._bucket, index.key.tar, tar_version(index), instance.range)
        tail: int | None = None
        if path[0] > max(PIXEL_TAGS) and instance.locator is not None:
            tail = await tail_start(source, instance.locator, instance.range.length)
        found = await source.parse(lambda window: find_value(open_p10(window), path, tail))
        if found is None:
            if _names_pixels(path) and _are_doubtful(instance):  # there is a value, so it is not absent
                raise await self._doubt(index, instance)
            raise BulkdataNotFound(f"instance {instance.uid} of {index.key} has no bulk data at {spelled(path)}")
        return found

    async def _samples_vr(self, index: SeriesIndex, instance: StoredInstance) -> str:
        """The VR whose words are the samples of big-endian pixel data: in OW, wider ones are swapped whole too."""
        locator = instance.locator
        if locator is None or locator.kind is not PixelKind.NATIVE:
            raise await self._doubt(index, instance)
        return _VR_OF_WORDS[locator.word_bytes]

    async def _doubt(self, index: SeriesIndex, instance: StoredInstance) -> StorageError:
        reason = "the stored structure leaves it in doubt what its pixel data is"
        return await self._prover.doubt(index, f"instance {instance.uid} of {index.key}: {reason}")


class OpenBulkdata:
    """One bulk data value, found and not yet read. Sent little-endian always (PS3.18 §8.7.3)."""

    def __init__(
        self, bucket: Bucket, index: SeriesIndex, instance: StoredInstance, path: AttributePath, found: "_Found"
    ) -> None:
        self._bucket = bucket
        self._index = index
        self._instance = instance
        self._found = found
        self.media_type = found.media_type
        self.length = found.stop - found.start
        self.identity = index.identity, instance.uid
        self.path = f"/{index.key.stem}/instances/{instance.uid}/bulkdata/{spelled(path)}"

    async def chunks(self, wanted: ByteRange | None) -> AsyncIterator[bytes | memoryview]:
        """The bytes of the value, or of a part that lies inside it."""
        found, tar, version = self._found, self._index.key.tar, tar_version(self._index)
        part = wanted if wanted is not None else ByteRange(0, self.length)
        place = part.shifted(found.start)
        if found.inflated is not None:
            yield found.inflated.view(place.start, place.stop)
        elif not found.little_endian:
            whole = ByteRange(found.start, found.stop).shifted(self._instance.range.start)
            read = await self._bucket.read(tar, whole, version=version)
            swapped = await asyncio.to_thread(little_endian_bytes, bytes(read.data), found.vr)
            if swapped is None:
                raise InstanceUnreadable(f"a big-endian value of {self.length} bytes is no whole number of words")
            yield memoryview(swapped)[part.start : part.stop]
        elif part.length <= WHOLE_BYTES:
            yield (await self._bucket.read(tar, place.shifted(self._instance.range.start), version=version)).data
        else:
            async for chunk in self._bucket.stream(tar, place.shifted(self._instance.range.start), version=version):
                yield chunk


def spelled(path: AttributePath) -> str:
    """An attribute path as links write it."""
    return "/".join(str(part) if place % 2 else f"{part:08X}" for place, part in enumerate(path))


def _withheld(what: str) -> Withheld:
    return Withheld(f"{what} may embed the original UIDs, which this datastore hides")


def _names_pixels(path: AttributePath) -> bool:
    return len(path) == 1 and path[0] in PIXEL_TAGS


def _are_doubtful(instance: StoredInstance) -> bool:
    return instance.locator is not None and instance.locator.kind is PixelKind.DOUBTFUL


def _passes_private(path: AttributePath) -> bool:
    return any((tag >> 16) % 2 == 1 for tag in path[::2])


def find_value(p10: P10, path: AttributePath, tail: int | None = None) -> _Found | None:
    """Walk to the attribute at `path`; None if it is not there, empty, a sequence, or encapsulated.

    Args:
        tail: where the attributes behind encapsulated pixel data begin, which the walk cannot know.

    Raises MissingBytes, InstanceUnreadable as `walk` does.
    """
    depth = 0  # how many steps of the path we are inside
    item_numbers = [0]
    document: dict[int, tuple[int, int]] = {}
    match: tuple[str, int, int] | None = None
    level = 0  # nesting of the walk; 2 * depth while on the path
    for kind, tag, vr, start, stop in chain.from_iterable(
        walk(p10.window, begin, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian)
        for begin in (p10.start, tail)
        if begin is not None
    ):
        if kind == Kind.ELEMENT:
            if level == depth and depth == len(path) - 1 and tag == path[-1]:
                match = (vr, start, stop)
                if path != (ENCAPSULATED_DOCUMENT,):
                    break
            elif level == 0 and tag in (_DOCUMENT_MEDIA_TYPE, _DOCUMENT_LENGTH):
                document[tag] = (start, stop)
        elif kind == Kind.SEQUENCE:
            if level == depth and depth + 2 < len(path) and tag == path[depth]:
                depth += 1
                item_numbers.append(0)
            level += 1
        elif kind == Kind.ITEM:
            if level == depth and depth % 2 == 1:
                item_numbers[-1] += 1
                if item_numbers[-1] == path[depth]:
                    depth += 1
            level += 1
        else:
            if level == depth:
                depth -= 1
                if kind == Kind.END_SEQUENCE:
                    item_numbers.pop()
            level -= 1
    if match is None or match[2] <= match[1]:
        return None
    return _found(p10, path, match, document)


def _found(p10: P10, path: AttributePath, match: tuple[str, int, int], document: dict[int, tuple[int, int]]) -> _Found:
    vr, start, stop = match
    media_type = "application/octet-stream"
    if path == (ENCAPSULATED_DOCUMENT,):
        if _DOCUMENT_MEDIA_TYPE in document:
            text = bytes(p10.window.view(*document[_DOCUMENT_MEDIA_TYPE]))
            media_type = text.decode("ascii", "replace").strip(" \0") or media_type
        if _DOCUMENT_LENGTH in document:
            order = "little" if p10.little_endian else "big"
            stated = int.from_bytes(p10.window.view(*document[_DOCUMENT_LENGTH]), order)  # type: ignore[arg-type]  # a Literal
            stop = start + stated if 0 < stated <= stop - start else stop
    inflated = p10.window if p10.is_deflated else None
    return _Found(vr, start, stop, media_type, inflated, p10.little_endian)
