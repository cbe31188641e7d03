"""A source file as an instance of one particular series: read, held against its hints, named as the series names it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import zstandard

from storage.cod.entry import OriginalUids
from storage.cod.entry_parts import compress_attributes, instance_uri
from storage.errors import InstanceUnreadable, StorageError
from storage.ingest.describe import Description, describe
from storage.ingest.report import RefusedFile
from storage.ingest.sources import Place, SourceChanged
from storage.keys import SeriesKey, is_path_uid
from storage.library.hints import Hints
from storage.writing import NewInstance

WHOLE_BYTES = 4 << 20
"""Files up to this size are read in one step."""

UidHash = Callable[[str], str]
"""Original UID → the UID of the outside world, in a store of hashed UIDs."""


class Refused(Exception):
    """A file that cannot become an instance of the series, and why. It never leaves the package."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How a series names what it holds."""

    key: SeriesKey
    datastore_url: str
    uid_hash: UidHash | None
    """None: by the UIDs of the files themselves."""

    def outside(self, uid: str) -> str:
        return str(uid if self.uid_hash is None else self.uid_hash(uid))  # pydicom's UIDs are more than text

    def check_series(self, study_uid: str | None, series_uid: str | None) -> None:
        """Raises Refused: the UIDs of a file (None: unknown) are not those of the series."""
        key = self.key
        for name, uid, wanted in (("study", study_uid, key.study_uid), ("series", series_uid, key.series_uid)):
            if uid is not None and self.outside(uid) != wanted:
                hashed = "" if self.uid_hash is None else ", hashed,"
                raise Refused(f"belongs to another {name}: {self.outside(uid)}{hashed} is not {wanted}")

    def instance_key(self, instance_uid: str) -> str:
        """Raises Refused: the UID cannot name an object."""
        uid = self.outside(instance_uid)
        if not is_path_uid(uid):
            raise Refused("its SOP Instance UID cannot be part of an object's name")
        return uid


@dataclass(frozen=True, slots=True)
class Addition:
    """An instance to be stored, and what its place in the order of the series depends on."""

    new: NewInstance
    described: Description


def describe_instance(
    place: Place, naming: Naming, *, hints: Hints, original_path: str, dependencies: tuple[str, ...]
) -> Addition:
    """Read one file completely. Blocks, so it is called in a thread.

    Raises:
        Refused: it is no instance of this series, cannot be read, or is not what the hints say.
    """
    try:
        described = describe(place, naming.datastore_url)
    except (SourceChanged, OSError, StorageError) as error:
        raise Refused(f"cannot be read: {error}") from error
    if isinstance(described, RefusedFile):
        raise Refused(described.reason)
    study_uid, series_uid = described.series.study_uid, described.series.series_uid
    wrong = hints.mismatch(
        size=described.size,
        crc32c=described.crc32c,
        study_uid=study_uid,
        series_uid=series_uid,
        instance_uid=described.instance_uid,
    )
    if wrong is not None:
        raise Refused(wrong)
    naming.check_series(study_uid, series_uid)
    uid = naming.instance_key(described.instance_uid)
    metadata, original_uids = described.metadata, None
    if naming.uid_hash is not None:
        original_uids = OriginalUids(study_uid, series_uid, described.instance_uid)
        stated = instance_uri(naming.datastore_url, described.series, described.instance_uid)
        metadata = _linked(metadata, stated, instance_uri(naming.datastore_url, naming.key, uid))
    new = NewInstance(
        instance_uid=uid,
        size=described.size,
        mtime=described.mtime,
        crc32c=described.crc32c,
        has_pixeldata=described.has_pixeldata,
        metadata=metadata,
        offset_table=described.offset_table,
        original_path=original_path,
        read=partial(read_place, place),
        original_uids=original_uids,
        dependencies=dependencies,
    )
    return Addition(new, described)


def _linked(metadata: bytes, stated: str, actual: str) -> bytes:
    """The same DICOM JSON with the hashed `uri` of the instance wherever a bulk value is left out.

    The sequence that is replaced cannot occur inside a value: JSON escapes the quotes there.
    """
    before, after = (b'"BulkDataURI":{"uri":' + json.dumps(uri).encode("ascii") for uri in (stated, actual))
    text = zstandard.decompress(metadata)
    return compress_attributes(text.replace(before, after)) if before in text else metadata


async def read_place(place: Place) -> AsyncIterator[bytes]:
    """All bytes of a source, without keeping the event loop from its other work.

    Raises:
        InstanceUnreadable: it is no longer what it was when it was described.
    """
    try:
        if place.size <= WHOLE_BYTES:
            yield await asyncio.to_thread(_whole, place)
            return
        stack = ExitStack()
        try:
            source = await asyncio.to_thread(stack.enter_context, place.open())
            chunks = source.chunks()
            while chunk := await asyncio.to_thread(next, chunks, b""):
                yield chunk
            await asyncio.to_thread(source.check)
        finally:
            await asyncio.to_thread(stack.close)
    except (SourceChanged, OSError) as error:
        raise InstanceUnreadable(f"{place.name} can no longer be read: {error}") from error


def _whole(place: Place) -> bytes:
    with place.open() as source:
        data = b"".join(source.chunks())
        source.check()
        return data
