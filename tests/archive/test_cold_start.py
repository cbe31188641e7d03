"""A cold process beside warm ones: what a viewer waits for, counted and timed, when series indexes are shared."""

import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.archive import Archive
from storage.archive.metadata import MetadataBody
from storage.bucket import Bucket
from storage.bucket.folder import FolderBucket
from storage.bucket.memory import MemoryBucket
from storage.catalogue.query import Condition, Level, Page, Query, Text
from storage.errors import SeriesNotFound, StorageUnavailable
from storage.indexing.summary import summary_of
from storage.keys import SeriesKey, shared_index_key
from storage.metadata_modes import Extrapolation
from storage.series_index.layout import FORMAT
from tests.support.buckets import FailingBucket, RecordingBucket, Request, SlowBucket
from tests.support.stores import DATA, loaded, series_key

ROOT = "http://x/dicomweb"
LATENCY_SECONDS = 0.03


class DistantBucket(SlowBucket):
    """Counts the seconds in which at least one request was under way, and how often none was before."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner, LATENCY_SECONDS, bytes_per_second=100e6)
        self.waited_seconds = 0.0
        self.rounds = 0
        self._under_way = 0
        self._since = 0.0

    async def before(self, request: Request) -> None:
        self._begin()
        await super().before(request)
        self._end()

    async def moved(self, request: Request, count: int) -> None:
        before = self.rounds
        self._begin()
        await super().moved(request, count)
        self._end()
        self.rounds = before  # its bytes come with the answer

    def _begin(self) -> None:
        if self._under_way == 0:
            self._since = time.perf_counter()
            self.rounds += 1
        self._under_way += 1

    def _end(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self.waited_seconds += time.perf_counter() - self._since


@asynccontextmanager
async def opened(
    bucket: Bucket, state: Path, *, root: str = ROOT, share: bool = True, own_process: bool = False
) -> AsyncIterator[Archive]:
    """A server with a state folder; nothing is synced or deepened by itself."""
    rules = Extrapolation((), ())
    archive = Archive(bucket, state, root=root, rules=rules, deepen="off", own_process=own_process, share=share)
    try:
        yield archive
    finally:
        await archive.close()


@pytest.fixture
def entry(manifest: dict[str, Any]) -> dict[str, Any]:
    """An instance of a study of ten series."""
    entries = manifest["stores"]["v2_raw"]["instances"]
    return dict(next(entry for entry in entries if entry["source"] == "syn_ct_1.dcm"))


@pytest.fixture
def series(manifest: dict[str, Any], entry: dict[str, Any]) -> list[SeriesKey]:
    """All series of the study."""
    keys = {series_key(each) for each in manifest["stores"]["v2_raw"]["instances"]}
    return sorted(key for key in keys if key.study_uid == series_key(entry).study_uid)


@pytest.fixture
async def memory(series: list[SeriesKey], tmp_path: Path) -> MemoryBucket:
    """A datastore into which a replica has put its indexes."""
    bucket = await loaded("v2_raw")
    async with opened(bucket, tmp_path / "first", root="http://another.example/dicomweb") as archive:
        await archive.shelf.get_all(series, depth="deep")
    return bucket


def studies(study_uid: str) -> Query:
    condition = Condition((0x0020000D,), "UI", Text(study_uid, is_wildcard=False))
    return Query(Level.STUDY, conditions=(condition,))


def body_of(answer: MetadataBody) -> bytes:
    return b"".join(answer.parts if answer.chunks is None else answer.chunks)


def rows_of(page: Page) -> list[Any]:
    return [json.loads(row) for row in page.rows]


async def test_a_cold_process_shows_the_first_image_within_five_rounds_and_300_ms_of_waiting(
    memory: MemoryBucket, entry: dict[str, Any], series: list[SeriesKey], tmp_path: Path
) -> None:
    """Search by StudyInstanceUID, list of series, series metadata, first frame, at 30 ms a request."""
    key = series_key(entry)
    recording = RecordingBucket(memory)
    bucket = DistantBucket(recording)
    async with opened(bucket, tmp_path / "cold") as archive:
        found = await archive.searches.search(studies(key.study_uid))
        listed = await archive.searches.search(Query(Level.SERIES, study_uid=key.study_uid))
        metadata = await archive.metadata.of_series([key], mode="full", coding="gzip", root=ROOT)
        frames = await archive.frames.open(key, entry["key"])
        (frame,) = await frames.read([0])

    assert len(found.rows) == 1
    assert len(listed.rows) == len(series) == 10
    assert metadata.is_deep
    assert len(frame) == entry["oracle_frames"][0]["length"]
    assert bucket.rounds == 5  # listings, ends of indexes, versions, the index, the frame
    assert bucket.waited_seconds <= 0.3
    assert recording.count("read", "metadata.json") == 0
    assert recording.count("read", ".tar") == 1


async def test_metadata_of_a_cold_process_costs_two_rounds_and_its_frames_one_each(
    memory: MemoryBucket, entry: dict[str, Any], tmp_path: Path
) -> None:
    key, copy_key = series_key(entry), shared_index_key(series_key(entry), FORMAT)
    recording = RecordingBucket(memory)
    bucket = DistantBucket(recording)
    async with opened(bucket, tmp_path / "cold") as archive:
        await archive.metadata.of_series([key], mode="full", coding="zstd", root=ROOT)

        assert bucket.rounds == 2
        assert [(request.verb, request.key) for request in recording.requests] == [
            ("head", key.metadata),
            ("head", key.tar),
            ("head", copy_key),
            ("stream", copy_key),
        ]
        await (await archive.frames.open(key, entry["key"])).read([0])
        assert bucket.rounds == 3


async def test_a_search_tells_of_a_shared_index_what_it_tells_of_an_own_deep_one(
    memory: MemoryBucket, entry: dict[str, Any], series: list[SeriesKey], tmp_path: Path
) -> None:
    study_uid = series_key(entry).study_uid
    queries = studies(study_uid), Query(Level.SERIES, study_uid=study_uid)
    async with opened(memory, tmp_path / "cold") as cold, opened(memory, tmp_path / "own", share=False) as own:
        await own.shelf.get_all(series, depth="deep")
        for query in queries:
            assert rows_of(await cold.searches.search(query)) == rows_of(await own.searches.search(query))
        assert await cold.catalogue.known() == await own.catalogue.known()


async def test_the_first_sync_of_a_cold_process_reads_no_metadata_of_series_that_are_shared(
    memory: MemoryBucket, series: list[SeriesKey], tmp_path: Path
) -> None:
    recording = RecordingBucket(memory)
    async with opened(recording, tmp_path / "cold") as cold, opened(memory, tmp_path / "own", share=False) as own:
        report = await cold.sync()
        await own.sync()
        await own.shelf.get_all(series, depth="deep")
        for key in series:
            await own.catalogue.upsert([summary_of(await own.shelf.get(key))])

        read = [request.key for request in recording.requests if request.verb == "read"]
        assert not {key.metadata for key in series} & set(read)
        assert report.added == report.listed > len(series)
        theirs = {known.key: known for known in await cold.catalogue.known()}
        assert {key: theirs[key] for key in series} == {
            known.key: known for known in await own.catalogue.known() if known.key in series
        }


@pytest.mark.parametrize("root", [ROOT, "http://[2001:db8::1]/a/dicomweb"])
@pytest.mark.parametrize("mode", ["full", "main", "extrapolate"])
async def test_every_answer_is_that_of_an_archive_that_shares_nothing(
    memory: MemoryBucket, series: list[SeriesKey], tmp_path: Path, root: str, mode: Any
) -> None:
    """Also for a root that nobody configured: byte for byte, entity tag included."""
    async with opened(memory, tmp_path / "cold") as cold, opened(memory, tmp_path / "own", share=False) as own:
        await own.shelf.get_all(series, depth="deep")
        for coding in ("identity", "gzip", "zstd"):
            answers = [
                await archive.metadata.of_series(series, mode=mode, coding=coding, root=root) for archive in (cold, own)
            ]

            assert body_of(answers[0]) == body_of(answers[1])
            assert answers[0].etag == answers[1].etag
            assert answers[0].is_deep
    if mode == "full":
        assert b"another.example" not in body_of(answers[0])


async def test_series_without_a_usable_index_are_looked_over_together(
    entry: dict[str, Any], series: list[SeriesKey], tmp_path: Path
) -> None:
    """Ten metadata.json in two rounds of eight, not one after the other."""
    bucket = DistantBucket(await loaded("v2_raw"))
    async with opened(bucket, tmp_path) as archive:
        page = await archive.searches.search(Query(Level.SERIES, study_uid=series[0].study_uid))

    assert len(page.rows) == len(series)
    assert bucket.waited_seconds < LATENCY_SECONDS * len(series)


async def test_a_series_that_was_rewritten_is_told_by_its_metadata(
    memory: MemoryBucket, series: list[SeriesKey], tmp_path: Path
) -> None:
    rewritten = series[3]
    await memory.write(rewritten.metadata, bytes((await memory.read(rewritten.metadata)).data))
    bucket = RecordingBucket(memory)
    async with opened(bucket, tmp_path / "cold") as archive:
        assert await archive.series_of_study(rewritten.study_uid)
        known = await archive.catalogue.known()

    assert {one.key for one in known if one.depth == "quick"} == {rewritten}
    assert [request.key for request in bucket.requests if request.key.endswith("metadata.json")] == [rewritten.metadata]


async def test_a_series_that_is_gone_is_not_found_by_the_index_it_left_behind(
    memory: MemoryBucket, series: list[SeriesKey], tmp_path: Path
) -> None:
    for gone in (series[0].metadata, series[0].tar):
        await memory.delete(gone)
    async with opened(memory, tmp_path / "cold") as archive:
        assert series[0] not in await archive.series_of_study(series[0].study_uid)
        with pytest.raises(SeriesNotFound):
            await archive.shelf.get(series[0])


async def test_a_search_does_without_shared_indexes_that_cannot_be_listed(
    memory: MemoryBucket, series: list[SeriesKey], tmp_path: Path
) -> None:
    bucket = FailingBucket(memory)
    bucket.fail(None, lambda key: key.startswith(".codweb"), StorageUnavailable("403"))
    async with opened(bucket, tmp_path / "cold") as archive:
        page = await archive.searches.search(replace(studies(series[0].study_uid), level=Level.SERIES))

    assert len(page.rows) == len(series)


async def test_what_a_process_of_its_own_has_built_is_shared_and_taken(series: list[SeriesKey], tmp_path: Path) -> None:
    """Over a folder, whose versions are of files: of use to a restart that has lost its state folder."""
    folder = tmp_path / "datastore"
    shutil.copytree(DATA / "cod" / "v2_raw" / "dicomweb", folder)
    async with opened(FolderBucket(folder), tmp_path / "first", own_process=True) as archive:
        built = await archive.shelf.get(series[0], depth="deep")

    async with opened(FolderBucket(folder), tmp_path / "second", own_process=True) as archive:
        taken = await archive.shelf.get(series[0])

    assert taken.identity == built.identity
    assert taken.header.depth == "deep"
