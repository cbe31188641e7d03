"""What a process does that describes files: all that it imports is imported again in each, before its first file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from storage.errors import StorageError
from storage.ingest.describe import describe
from storage.ingest.described import Described
from storage.ingest.report import RefusedFile
from storage.ingest.sources.files import FilePlace
from storage.ingest.sources.place import Place

_MAY_PASS = ("cannot be read", "changed while")
"""How reasons begin that say nothing about the bytes: such a file is opened again next time."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that is refused."""

    note: RefusedFile
    is_lasting: bool
    """The same bytes will be refused again."""


def describe_all(places: Sequence[Place], datastore_url: str) -> list[Described | Unusable]:
    """One for each place, in their order; whatever a file does wrong is in its answer."""
    if all(isinstance(place, FilePlace) for place in places):
        return [_described(place, place, datastore_url) for place in places]
    from storage.ingest.fetching import fetched  # and with it archives and buckets: as much again as files need

    return [_described(place, each, datastore_url) for place, each in zip(places, fetched(places), strict=True)]


def _described(place: Place, fetched: Place, datastore_url: str) -> Described | Unusable:
    """What `fetched` holds, as found in `place`."""
    try:
        found = describe(fetched, datastore_url)
    except StorageError as error:
        return Unusable(RefusedFile(place.name, f"cannot be read: {error}"), is_lasting=False)
    if isinstance(found, RefusedFile):
        return Unusable(found, is_lasting=not found.reason.startswith(_MAY_PASS))
    return Described.of(found if fetched is place else replace(found, place=place))
