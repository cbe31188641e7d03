"""Finding places and reading all of them, as the processes of an ingest do: pickled, opened, read in both ways."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.bucket import BucketOptions
from storage.errors import InstanceUnreadable
from storage.ingest.report import RefusedFile
from storage.ingest.sources import Place, Scratch, SkippedFile, find_places


@dataclass
class Found:
    """What came of some sources."""

    places: list[Place] = field(default_factory=list)
    contents: list[tuple[str, bytes]] = field(default_factory=list)
    """Of each place that can be read, `shown` and its bytes."""
    unreadable: list[str] = field(default_factory=list)
    """The others, by `shown`."""
    refused: list[RefusedFile] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)

    @property
    def shown(self) -> list[str]:
        return [place.shown for place in self.places]

    @property
    def reasons(self) -> dict[str, str]:
        """Why something was refused, by the last part of its name."""
        return {item.path.rsplit("/", 1)[-1]: item.reason for item in self.refused}

    @property
    def skips(self) -> dict[str, str]:
        return {item.path.rsplit("/", 1)[-1]: item.reason for item in self.skipped}


async def find(*sources: str | Path, options: BucketOptions | None = None) -> Found:
    found = Found()
    with Scratch() as scratch:
        async for place in find_places(
            sources, found.refused, found.skipped, scratch=scratch, options=options or BucketOptions()
        ):
            found.places.append(place)
            try:
                data = content_of(pickle.loads(pickle.dumps(place)))
            except InstanceUnreadable:
                found.unreadable.append(place.shown)
            else:
                assert len(data) == place.size
                found.contents.append((place.shown, data))
    return found


def content_of(place: Place) -> bytes:
    with place.open() as source:
        assert source.size == place.size
        data = b"".join(source.chunks())
        assert source.read(0, source.size) == data
        assert source.read(source.size // 3, source.size) == data[source.size // 3 :]
        assert source.has_prefix() == (data[128:132] == b"DICM")
        source.check()
    return data


def names_and_bytes(files: Sequence[tuple[str, bytes]], *, below: str) -> list[tuple[str, bytes]]:
    """What `Found.contents` holds if these are the members of an archive shown as `below`."""
    return [(f"{below}/{name}", data) for name, data in files]
