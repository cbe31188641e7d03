"""The pass over a bucket: what is read, what is kept, what is forgotten, and what a failure may cost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.bucket.base import Bucket, ObjectInfo
from storage.bucket.memory import MemoryBucket
from storage.catalogue.base import KnownSeries, SeriesSummary
from storage.catalogue.query import Level, Query
from storage.catalogue.sqlite import SqliteCatalogue
from storage.catalogue.sync import SyncReport, sync
from storage.errors import CorruptSeries, ObjectNotFound, SeriesInMotion, StorageUnavailable
from storage.keys import SeriesKey
from tests.catalogue.builders import summary
from tests.catalogue.contract import series_uids
from tests.support.buckets import FailingBucket, RecordingBucket

A, B, C = SeriesKey("1.1", "1.1.1"), SeriesKey("1.1", "1.1.2"), SeriesKey("1.2", "1.2.1")


class Summaries:
    """Makes summaries from listed objects, remembers which, and fails where it is told."""

    def __init__(self) -> None:
        self.asked: list[SeriesKey] = []
        self.failures: dict[SeriesKey, Exception] = {}
        self.running = self.most_running = 0
        self.held_at: SeriesKey | None = None
        self.reached = asyncio.Event()

    async def __call__(self, key: SeriesKey, metadata: ObjectInfo, tar: ObjectInfo | None) -> SeriesSummary:
        assert metadata.key == key.metadata
        assert tar is None or tar.key == key.tar
        self.asked.append(key)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            if key == self.held_at:
                self.reached.set()
                await asyncio.Event().wait()
            if key in self.failures:
                raise self.failures[key]
        finally:
            self.running -= 1
        made = summary(key.study_uid, key.series_uid, {0x00080020: "20240101"}, version=metadata.version)
        return replace(made, tar_version=tar.version if tar is not None else None)


@pytest.fixture
async def catalogue(tmp_path: Path) -> AsyncIterator[SqliteCatalogue]:
    catalogue = SqliteCatalogue(tmp_path / "catalogue.sqlite")
    yield catalogue
    await catalogue.close()


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def summaries() -> Summaries:
    return Summaries()


async def put(bucket: Bucket, *keys: SeriesKey, data: bytes = b"{}") -> None:
    for key in keys:
        await bucket.write(key.tar, b"tar")
        await bucket.write(key.metadata, data)


async def found(catalogue: SqliteCatalogue) -> list[str]:
    return series_uids(await catalogue.search(Query(Level.SERIES)))


async def known(catalogue: SqliteCatalogue) -> list[KnownSeries]:
    return await catalogue.known(limit=10_000)


async def test_first_pass_reads_every_series_and_completes_the_catalogue(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, A, B, C)
    await bucket.write("studies/1.2/series/1.2.1/thumbnail.jpg", b"x")
    await bucket.write("README", b"not a series")

    report = await sync(bucket, catalogue, summaries)

    assert await found(catalogue) == ["1.1.1", "1.1.2", "1.2.1"]
    assert report == SyncReport(listed=3, added=3)
    status = await catalogue.status()
    assert (status.complete, status.cursor) == (True, None)


async def test_second_pass_reads_nothing_and_asks_the_bucket_for_a_listing_only(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, A, B, C)
    await sync(bucket, catalogue, summaries)
    summaries.asked.clear()
    recording = RecordingBucket(bucket)

    report = await sync(recording, catalogue, summaries)

    assert summaries.asked == []
    assert [request.verb for request in recording.requests] == ["list"]
    assert report == SyncReport(listed=3, unchanged=3)


async def test_only_what_changed_is_read_again(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    """A tar may change without its metadata: an interrupted append."""
    await put(bucket, A, B, C)
    await sync(bucket, catalogue, summaries)
    summaries.asked.clear()
    await bucket.write(A.metadata, b"{ }")
    await bucket.write(C.tar, b"tar, longer")

    report = await sync(bucket, catalogue, summaries)

    assert sorted(summaries.asked) == [A, C]
    assert (report.changed, report.unchanged, report.added) == (2, 1, 0)


async def test_what_the_listing_does_not_show_is_forgotten(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, A, B, C)
    await sync(bucket, catalogue, summaries)
    await bucket.delete(A.metadata)
    await bucket.delete(C.metadata)
    await bucket.delete(C.tar)

    report = await sync(bucket, catalogue, summaries)

    assert await found(catalogue) == ["1.1.2"]
    assert report.removed == 2
    assert report.tars_without_metadata == 1
    assert str(A) in report.notes[0]


async def test_an_emptied_bucket_empties_the_catalogue(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await catalogue.upsert([summary("9.1", f"9.1.{n}") for n in range(300)])

    assert (await sync(bucket, catalogue, summaries)).removed == 300
    assert await known(catalogue) == []


async def test_a_listing_that_fails_removes_nothing(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, A, B)
    await sync(bucket, catalogue, summaries)
    failing = FailingBucket(bucket)
    failing.fail("list", lambda key: True, StorageUnavailable("the store is away"))
    await bucket.delete(A.metadata)

    with pytest.raises(StorageUnavailable):
        await sync(failing, catalogue, summaries)

    assert await found(catalogue) == ["1.1.1", "1.1.2"]


async def test_a_listing_that_breaks_off_keeps_what_was_read_and_removes_nothing(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    many = [SeriesKey(f"1.{n:03}", "1") for n in range(200)]
    gone = SeriesKey("0.1", "1")
    await put(bucket, *many)
    await catalogue.upsert([summary(gone.study_uid, gone.series_uid)])

    class BreakingOff(FailingBucket):
        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
            count = 0
            async for info in self.inner.list(prefix, after=after):
                count += 1
                if count > 300:
                    raise StorageUnavailable("the store went away")
                yield info

    with pytest.raises(StorageUnavailable):
        await sync(BreakingOff(bucket), catalogue, summaries)

    held = [one.key for one in await known(catalogue)]
    assert gone in held
    assert len(held) == 1 + 128
    assert not (await catalogue.status()).complete


async def test_a_cancelled_pass_is_taken_up_where_it_was_broken_off(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    many = [SeriesKey(f"1.{n:03}", "1") for n in range(300)]
    await put(bucket, *many)
    summaries.held_at = many[200]
    task = asyncio.create_task(sync(bucket, catalogue, summaries))
    await summaries.reached.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    before = {one.key for one in await known(catalogue)}
    assert before == {*many[:128]}
    status = await catalogue.status()
    assert (status.complete, status.cursor) == (False, "1.127/1")

    summaries.held_at = None
    summaries.asked.clear()
    report = await sync(bucket, catalogue, summaries)

    assert {*summaries.asked} == {*many[128:]}
    assert (report.added, report.unchanged) == (172, 128)
    assert (await catalogue.status()).complete


async def test_a_series_that_cannot_be_read_does_not_stop_the_others(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries, caplog: pytest.LogCaptureFixture
) -> None:
    """Its row says why; a program's error is named without the text that might quote a patient."""
    await put(bucket, A, B, C)
    summaries.failures = {A: CorruptSeries("metadata.json ends after 7 bytes"), B: KeyError("Doe^John")}

    report = await sync(bucket, catalogue, summaries)

    assert await found(catalogue) == ["1.2.1"]
    assert (report.unreadable, report.added) == (2, 3)
    problems = {one.key: one.problem for one in await known(catalogue)}
    assert problems == {A: "metadata.json ends after 7 bytes", B: "KeyError while its metadata was read", C: None}
    assert "Doe" not in caplog.text + "".join(report.notes)
    assert (await catalogue.status()).problems == 2

    summaries.asked.clear()
    await sync(bucket, catalogue, summaries)
    assert summaries.asked == []

    summaries.failures.clear()
    await bucket.write(A.metadata, b"{ }")
    await sync(bucket, catalogue, summaries)
    assert await found(catalogue) == ["1.1.1", "1.2.1"]


@pytest.mark.parametrize("error", [StorageUnavailable("throttled"), SeriesInMotion("locked")])
async def test_a_series_that_is_unavailable_keeps_its_row_and_is_tried_again(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries, error: Exception
) -> None:
    await put(bucket, A, B)
    await sync(bucket, catalogue, summaries)
    await put(bucket, A, C, data=b"{ }")
    summaries.failures = {A: error, C: error}

    report = await sync(bucket, catalogue, summaries)

    assert await found(catalogue) == ["1.1.1", "1.1.2"]
    assert report.unavailable == 2
    assert await catalogue.contains_series(C)

    summaries.failures.clear()
    await sync(bucket, catalogue, summaries)
    assert await found(catalogue) == ["1.1.1", "1.1.2", "1.2.1"]
    assert (await catalogue.status()).problems == 0


async def test_a_series_that_vanishes_under_the_pass_is_left_to_the_next(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, A, B)
    summaries.failures = {A: ObjectNotFound("gone")}

    await sync(bucket, catalogue, summaries)

    assert [one.key for one in await known(catalogue)] == [B]


async def test_a_series_that_is_ingested_during_the_pass_stays(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    """The listing had passed its place when it came: it is known and was not listed."""
    await put(bucket, A, C)
    ingested = SeriesKey("1.1", "1.1.9")

    class Ingesting(FailingBucket):
        async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
            async for info in self.inner.list(prefix, after=after):
                if info.key == C.metadata:
                    await put(self.inner, ingested)
                    await catalogue.upsert([summary(ingested.study_uid, ingested.series_uid)])
                yield info

    report = await sync(Ingesting(bucket), catalogue, summaries)

    assert await catalogue.contains_series(ingested)
    assert report.removed == 0


async def test_what_cannot_be_asked_is_not_forgotten(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, A, B)
    await sync(bucket, catalogue, summaries)
    await bucket.delete(A.metadata)
    failing = FailingBucket(bucket)
    failing.fail("head", lambda key: True, StorageUnavailable("throttled"))

    report = await sync(failing, catalogue, summaries)

    assert await catalogue.contains_series(A)
    assert (report.removed, report.unavailable) == (0, 1)


async def test_metadata_alone_makes_a_series_and_a_tar_alone_does_not(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await bucket.write(A.metadata, b"{}")
    await bucket.write(B.tar, b"tar")

    report = await sync(bucket, catalogue, summaries)

    (one,) = await known(catalogue)
    assert (one.key, one.tar_version) == (A, None)
    assert (report.listed, report.metadata_without_tar, report.tars_without_metadata) == (1, 1, 1)


async def test_series_are_read_side_by_side_within_the_bound(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, *(SeriesKey("1.1", f"1.1.{n}") for n in range(40)))

    await sync(bucket, catalogue, summaries, concurrency=5)

    assert summaries.most_running == 5


async def test_progress_is_told_after_every_batch(
    bucket: MemoryBucket, catalogue: SqliteCatalogue, summaries: Summaries
) -> None:
    await put(bucket, *(SeriesKey("1.1", f"1.1.{n}") for n in range(200)))
    told: list[SyncReport] = []

    report = await sync(bucket, catalogue, summaries, progress=told.append)

    assert [one.added for one in told] == [128, 200, 200]
    assert told[-1] == report


uids = st.text("12.-a", min_size=1, max_size=4).filter(lambda text: text not in (".", ".."))
keys = st.builds(SeriesKey, uids, uids)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(keys, max_size=12), st.sets(keys, max_size=12), st.sets(keys, max_size=3))
def test_after_a_pass_the_catalogue_holds_what_the_bucket_holds(
    tmp_path_factory: pytest.TempPathFactory, held: set[SeriesKey], stored: set[SeriesKey], lone_tars: set[SeriesKey]
) -> None:
    """Whatever the order of keys: `1.2/` sorts behind `1.2.3/`, and a tar away from its metadata."""

    async def run() -> None:
        bucket, catalogue = MemoryBucket(), SqliteCatalogue(tmp_path_factory.mktemp("sync") / "c.sqlite", readers=1)
        try:
            await catalogue.upsert([summary(key.study_uid, key.series_uid) for key in held])
            await put(bucket, *stored)
            for key in lone_tars - stored:
                await bucket.write(key.tar, b"tar")
            first, again = Summaries(), Summaries()
            report = await sync(bucket, catalogue, first)
            await sync(bucket, catalogue, again)

            assert {one.key for one in await known(catalogue)} == stored
            assert sorted(first.asked) == sorted(stored)
            assert again.asked == []
            assert (report.added, report.changed) == (len(stored - held), len(stored & held))
            assert report.removed == len(held - stored)
            assert report.tars_without_metadata == len(lone_tars - stored)
        finally:
            await catalogue.close()

    asyncio.run(run())
