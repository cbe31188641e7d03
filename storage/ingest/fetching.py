"""Small files read whole: one after the other from a disk, several at a time from a bucket, where each is a wait."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from storage.errors import StorageError
from storage.ingest.sources import OpenSource, Place, SourceChanged
from storage.ingest.sources.objects import ObjectPlace

AT_ONCE = 8
"""Objects that one process asks a bucket for."""

MAX_FETCHED_BYTES = 4 << 20
"""Larger objects are read by whoever needs them: there the bytes take longer than the waiting."""

Read = bytes | Exception
"""The bytes of a file, or what went wrong: SourceChanged, an OSError, a StorageError."""


def read_all(places: Sequence[Place]) -> list[Read]:
    """All bytes of each."""
    if not any(isinstance(place, ObjectPlace) for place in places):
        return [_read(place) for place in places]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ingest-fetch") as threads:
        return list(threads.map(_read, places))


def fetched(places: Sequence[Place]) -> list[Place]:
    """The same places, with the bytes of small objects at hand."""
    small = [place for place in places if isinstance(place, ObjectPlace) and place.size <= MAX_FETCHED_BYTES]
    if len(small) < 2:
        return [*places]
    held = {id(place): read for place, read in zip(small, read_all(small), strict=True) if isinstance(read, bytes)}
    return [
        FetchedPlace(place, held[id(place)]) if isinstance(place, ObjectPlace) and id(place) in held else place
        for place in places
    ]


@dataclass(frozen=True, slots=True)
class FetchedPlace:
    """A place whose bytes are here."""

    place: ObjectPlace
    data: bytes

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def shown(self) -> str:
        return self.place.shown

    @property
    def size(self) -> int:
        return self.place.size

    @property
    def stamp(self) -> str:
        return self.place.stamp

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        yield OpenSource(_Held(self.data), size=self.place.size, mtime=self.place.mtime)


class _Held:
    """Bytes in memory; all of one version of an object."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]

    def chunks(self) -> Iterator[bytes]:
        yield self._data

    def check(self) -> None:
        """Nothing: they cannot change any more."""


def _read(place: Place) -> Read:
    try:
        with place.open() as source:
            return source.read(0, source.size)
    except (SourceChanged, OSError, StorageError) as error:
        return error
