"""Garbage among shared indexes is removed, and nothing else is."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.bucket.memory import MemoryBucket
from storage.errors import StorageUnavailable
from storage.indexing.sharing import collect_garbage
from storage.indexing.sharing.garbage import GarbageReport
from storage.keys import SeriesKey, parse_shared_index_key, shared_index_key
from storage.series_index.layout import FORMAT
from tests.support.buckets import FailingBucket, RecordingBucket

DAY = 86400.0
FOREIGN = [
    ".codweb/indexes/v1/readme.txt",
    ".codweb/indexes/v1/1.2/3/4.index",
    ".codweb/indexes/latest/1.2/3.index",
    ".codweb/other/1.2/3.index",
    "notes.index",
]
UIDS = st.text("12.-a", min_size=1, max_size=3).filter(lambda uid: uid not in (".", ".."))
KEYS = st.sets(st.builds(SeriesKey, UIDS, UIDS), max_size=40)


async def store(series: Iterable[SeriesKey], copies: Iterable[SeriesKey], format: int = FORMAT) -> MemoryBucket:
    bucket = MemoryBucket()
    for key in series:
        await bucket.write(key.metadata, b"{}")
        await bucket.write(key.tar, b"tar")
    for key in copies:
        await bucket.write(shared_index_key(key, format), b"index")
    return bucket


async def keys_of(bucket: MemoryBucket, prefix: str = ".codweb/") -> set[str]:
    return {info.key async for info in bucket.list(prefix)}


@settings(max_examples=50, deadline=None)
@given(KEYS, KEYS)
def test_what_stays_is_exactly_what_has_a_series(series: set[SeriesKey], copies: set[SeriesKey]) -> None:
    """Whatever the order of the UIDs: `1.2/` sorts after `1.2.3/`, though `1.2` sorts before `1.2.3`."""

    async def run() -> None:
        bucket = await store(series, copies)
        before = await keys_of(bucket, "studies/")

        report = await collect_garbage(bucket)

        assert await keys_of(bucket) == {shared_index_key(key, FORMAT) for key in series & copies}
        assert await keys_of(bucket, "studies/") == before
        gone = len(copies - series)
        assert report == GarbageReport(len(series & copies), gone, 0, gone * len(b"index"))

    asyncio.run(run())


async def test_a_tar_alone_is_no_series() -> None:
    key = SeriesKey("1", "2")
    bucket = await store([], [key])
    await bucket.write(key.tar, b"tar")

    await collect_garbage(bucket)

    assert await keys_of(bucket) == set()


async def test_what_is_not_ours_is_left_alone() -> None:
    bucket = await store([], [SeriesKey("1.2", "3")])
    for key in FOREIGN:
        await bucket.write(key, b"x")

    await collect_garbage(bucket)

    assert await keys_of(bucket, "") == set(FOREIGN)


async def test_without_garbage_two_listings_are_all_that_is_asked() -> None:
    studies = ["1", "1.2", "1.2.3", "1-2", "1.10", "1.9"]  # a listing has them in the order of `1.2/`, `1.2.3/`
    keys = [SeriesKey(study_uid, f"2.{number}") for study_uid in studies for number in range(5)]
    bucket = RecordingBucket(await store(keys, [key for key in keys if key.study_uid in ("1", "1.2", "1.9")]))

    await collect_garbage(bucket)

    assert [request.verb for request in bucket.requests] == ["list", "list"]


async def test_a_series_that_came_since_its_study_was_listed_keeps_its_index() -> None:
    key = SeriesKey("1", "2")
    memory = await store([], [key])
    bucket = FailingBucket(memory)

    def ingest(verb: str, asked: str) -> None:
        if verb == "head":
            with pytest.raises(StopIteration):  # a bucket in memory writes without waiting for anything
                memory.write(key.metadata, b"{}").send(None)

    bucket.before_each(ingest)

    assert await collect_garbage(bucket) == GarbageReport(kept=1)
    assert await keys_of(memory) == {shared_index_key(key, FORMAT)}


@pytest.mark.parametrize("verb", ["list", "head", "delete"])
async def test_a_bucket_that_does_not_answer_loses_nothing(verb: str) -> None:
    here, gone = SeriesKey("1", "2"), SeriesKey("1", "3")
    memory = await store([here], [here, gone])
    bucket = FailingBucket(memory)
    bucket.fail(verb, lambda key: True, StorageUnavailable("down"))

    with pytest.raises(StorageUnavailable):
        await collect_garbage(bucket)

    assert len(await keys_of(memory)) == 2


@pytest.mark.parametrize(("days", "removed"), [(29.9, 0), (30.1, 80)])
async def test_older_formats_go_when_ours_has_been_in_use_for_long_enough(days: float, removed: int) -> None:
    """Replicas of the older version may be served until then; those of a newer one always."""
    keys = [SeriesKey("1.2", f"{number}") for number in range(40)]
    bucket = await store(keys, [])
    for format in (1, 2, 3, 4, 30):
        for key in keys:
            await bucket.write(shared_index_key(key, format), b"index")
    oldest = min([info.updated async for info in bucket.list(".codweb/indexes/v3/")])

    report = await collect_garbage(bucket, format=3, keep_days=30, now=lambda: oldest + days * DAY)

    assert (report.kept, report.of_older_formats) == (40, removed)
    left = await keys_of(bucket)
    assert len(left) == 200 - removed
    assert {key for key in left if "/v3/" in key or "/v4/" in key or "/v30/" in key} == {
        shared_index_key(key, format) for key in keys for format in (3, 4, 30)
    }


async def test_older_formats_stay_while_nothing_of_ours_is_shared() -> None:
    bucket = await store([], [SeriesKey("1", "2")], format=1)

    assert await collect_garbage(bucket, format=2, now=lambda: 1e12) == GarbageReport()


@pytest.mark.parametrize(
    "key",
    [
        ".codweb/indexes/v1/../1.index",
        ".codweb/indexes/v1/1/...index",
        ".codweb/indexes/vx/1/2.index",
        ".codweb/indexes/v1/1/2.index.tmp",
        "studies/1/series/2.index",
        ".codweb/indexes/v1/1/2.index\n",
    ],
)
def test_other_keys_name_no_shared_index(key: str) -> None:
    assert parse_shared_index_key(key) is None


@given(UIDS, UIDS, st.integers(1, 999))
def test_the_key_of_a_shared_index_names_its_series(study_uid: str, series_uid: str, format: int) -> None:
    key = SeriesKey(study_uid, series_uid)

    assert parse_shared_index_key(shared_index_key(key, format)) == key
