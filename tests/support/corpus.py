"""The corpus of real files as datastores of ours, and a server for each."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # the manifest is a tree of anything

from storage.bucket import open_bucket
from storage.ingest import InstanceNote, Outcome, Report, ingest
from storage.keys import SeriesKey
from tests.support.pydicom_frames import frames_by_pydicom
from tests.support.server import Client, serving


@dataclass(frozen=True)
class Stored:
    """One file of the corpus in a datastore."""

    name: str
    path: Path
    series: SeriesKey
    instance_uid: str

    @property
    def below_root(self) -> str:
        return f"/{self.series.stem}/instances/{self.instance_uid}"

    @property
    def address(self) -> str:
        return f"/dicomweb{self.below_root}"


@dataclass(frozen=True)
class Store:
    """A datastore: a file whose instance UID another one has taken lies in the next."""

    folder: Path
    files: list[Stored]


@dataclass(frozen=True)
class Corpus:
    """All files of the corpus, ingested."""

    manifest: list[dict[str, Any]]
    stores: list[Store]
    refused: dict[str, str]
    """The reason by the name of the file."""
    state: Path
    known_frames: dict[str, list[bytes]] = field(default_factory=dict)
    """What pydicom has read, kept: the files do not change."""

    def files(self) -> Iterator[Stored]:
        """Every stored file."""
        for store in self.stores:
            yield from store.files

    def frames_of(self, stored: Stored) -> list[bytes]:
        """The frames that must be sent."""
        if stored.name not in self.known_frames:
            self.known_frames[stored.name] = frames_by_pydicom(stored.path)
        return self.known_frames[stored.name]

    async def served(self, state: Path | None = None) -> AsyncGenerator[tuple[Client, Stored], None]:
        """Every stored file with a client of the server that has it.

        Args:
            state: of servers that know nothing yet; without it, deep indexes are built first, and kept.
        """
        for store in self.stores:
            async with serving(open_bucket(str(store.folder)), (state or self.state) / store.folder.name) as client:
                for stored in store.files:
                    if state is None:
                        index = await client.archive.shelf.get(stored.series, depth="deep")
                        assert index.header.depth == "deep"
                    yield client, stored


def store_corpus(source: Path, folder: Path) -> Corpus:
    """Ingest all files below `source`; what is in conflict goes into a further datastore, until nothing is."""
    entries = json.loads((source / "manifest.json").read_bytes())["files"]
    manifest = [entry for entry in entries if "DICOMDIR" not in entry["file"]]  # named as a source: the files it lists
    stores: list[Store] = []
    refused: dict[str, str] = {}
    waiting = [source / entry["file"] for entry in manifest]
    while waiting:
        target = folder / f"store{len(stores)}"
        report = asyncio.run(_ingest(waiting, target))
        assert report.new, "nothing was stored, and something is in conflict"
        assert {(note.outcome, note.message) for note in report.series} == {(Outcome.STORED, None)}
        assert report.same == []
        refused |= {_name(item.path, source): item.reason for item in report.refused}
        stores.append(Store(target, [_stored(note, source) for note in report.new]))
        waiting = [Path(note.path) for note in report.conflict]
    return Corpus(manifest, stores, refused, folder / "state")


async def _ingest(paths: list[Path], target: Path) -> Report:
    bucket = open_bucket(str(target), create=True)
    try:
        return await ingest(paths, bucket)
    finally:
        await bucket.close()


def _stored(note: InstanceNote, source: Path) -> Stored:
    series = SeriesKey(note.study_uid, note.series_uid)
    return Stored(_name(note.path, source), Path(note.path), series, note.instance_uid)


def _name(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix()
