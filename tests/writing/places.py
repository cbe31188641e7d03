"""Datastores that processes share: a folder, and a bucket of an S3 service."""

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage.bucket import Bucket
from storage.bucket.folder import FolderBucket
from storage.keys import SeriesKey
from tests.support.s3_place import S3Place
from tests.writing.builders import KEY
from tests.writing.zygote import Job, Zygote, zygote_process


@dataclass
class Place:
    """A datastore, and how processes are to behave in it."""

    name: str
    bucket: Bucket
    store: str
    endpoint: str = ""
    longest_seconds: float = 0.06
    """About what a command takes."""
    pause_seconds: float = 0.005
    """Between two looks of a reader; moto serves one request at a time, and is to serve writers too."""
    most_instances: int = 100
    """That a reader asks for in one look."""
    random_kills: int = 5
    """Of each command: at any moment, from outside."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def new_key(self) -> SeriesKey:
        return SeriesKey(f"{KEY.study_uid}.{next(self._numbers)}", KEY.series_uid)

    def job(self, key: SeriesKey, command: str, **told: Any) -> Job:
        return Job(self.store, key.study_uid, key.series_uid, command, self.endpoint, **told)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with zygote_process() as process:
        yield process


@pytest.fixture(params=["folder", "s3"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        made = Place("folder", FolderBucket(tmp_path / "store"), str(tmp_path / "store"))
    else:
        request.getfixturevalue("s3_credentials")
        endpoint = request.getfixturevalue("moto")
        s3 = S3Place(endpoint)
        made = Place("s3", s3.bucket, s3.name, endpoint, 0.3, pause_seconds=0.05, most_instances=2, random_kills=1)
    yield made
    await made.bucket.close()
