"""Fixture stores as buckets in memory, so that tests may count, alter and tear them."""

from pathlib import Path
from typing import Any

from storage.bucket.memory import MemoryBucket
from storage.keys import SeriesKey

DATA = Path(__file__).parent.parent / "data"


async def loaded(store: str, *, name: str = "") -> MemoryBucket:
    """A copy of a fixture store in memory."""
    bucket = MemoryBucket(name or store)
    root = DATA / "cod" / store / "dicomweb"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            await bucket.write(path.relative_to(root).as_posix(), path.read_bytes())
    return bucket


def series_key(entry: dict[str, Any]) -> SeriesKey:
    """The series of an entry of the manifest."""
    study_uid, series_uid = entry["series_key"].split("/studies/", 1)[1].split("/series/")
    return SeriesKey(study_uid, series_uid)


def instance_path(entry: dict[str, Any]) -> str:
    """The path of an entry of the manifest, below the server's base."""
    return f"/dicomweb/{series_key(entry).stem}/instances/{entry['key']}"
