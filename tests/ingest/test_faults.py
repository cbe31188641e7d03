"""An ingest over a bad network: it completes, or fails cleanly with the old state intact and the lock gone or explained."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.bucket import Bucket
from storage.bucket.memory import MemoryBucket
from storage.bucket.options import BucketOptions, Patience, S3Options
from storage.errors import StorageUnavailable
from storage.ingest import Outcome, ingest
from storage.keys import SeriesKey
from tests.ingest.reading import CT, P10, entries_of, everything, key_of
from tests.support.buckets import FailingBucket, SlowBucket
from tests.support.fault_proxy import Delay, Drip, Fault, FaultProxy, Refuse, Reset, Shorten, fault_proxy
from tests.support.moto_server import moto, s3_credentials
from tests.support.s3_place import S3Place

__all__ = ["moto", "s3_credentials"]

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("s3_credentials")]

PATIENCE = Patience(
    connect_seconds=0.5, read_seconds=0.5, attempts=3, backoff_seconds=0.01, longest_backoff_seconds=0.05
)

HARMED = {
    "lock": ("PUT", ".gradient.lock"),
    "tar": ("PUT", ".tar"),
    "index": ("PUT", "index.sqlite"),
    "metadata": ("PUT", "metadata.json"),
    "reading metadata": ("GET", "metadata.json"),
    "head": ("HEAD", ".tar"),
    "release": ("DELETE", ".gradient.lock"),
}
"""Requests of an append, by method and a part of the address."""

FAULTS: dict[str, Fault] = {
    "503": Refuse(503),
    "reset": Reset(),
    "lost answer": Reset(is_heard=True),
    "time-out": Delay(2),
    "short": Shorten(40),
    "slow body": Drip(400, 0.05),
}


@pytest.fixture
async def proxy(moto: str) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(moto) as proxy:
        yield proxy


@pytest.fixture
async def place(moto: str, proxy: FaultProxy) -> AsyncIterator[S3Place]:
    """An S3 bucket with the first two slices, reached through the proxy."""
    place = S3Place(moto, through=proxy.url, patience=PATIENCE)
    await ingest(CT[:2], place.bucket)
    yield place
    await place.bucket.close()


@pytest.mark.parametrize(
    ("request_of", "fault"),
    [
        *(("tar", fault) for fault in FAULTS if fault not in ("short", "slow body")),
        *(("metadata", fault) for fault in FAULTS if fault not in ("short", "slow body")),
        ("reading metadata", "short"),
        ("reading metadata", "slow body"),
        *((request_of, "lost answer") for request_of in ("lock", "index", "release")),
        ("head", "503"),
    ],
)
async def test_fault_that_passes_is_survived(request_of: str, fault: str, place: S3Place, proxy: FaultProxy) -> None:
    method, contains = HARMED[request_of]
    proxy.strike(FAULTS[fault], method=method, contains=contains)

    report = await ingest(CT, place.bucket)

    assert [(note.outcome, note.message) for note in report.series] == [(Outcome.APPENDED, None)]
    assert (len(report.new), len(report.same), report.is_clean) == (4, 2, True)
    await assert_sound(place.bucket, key_of(report), 6)


@pytest.mark.parametrize("request_of", ["lock", "metadata", "release"])
async def test_fault_that_stays_fails_cleanly_and_the_next_run_completes(
    request_of: str, place: S3Place, proxy: FaultProxy
) -> None:
    before = await everything(place.bucket)
    method, contains = HARMED[request_of]
    proxy.strike(Refuse(503), method=method, contains=contains, times=1000)

    report = await ingest(CT, place.bucket)
    proxy.heal()
    between = await everything(place.bucket)
    again = await ingest(CT, place.bucket)

    key = key_of(report)
    (note,) = report.series
    if request_of == "release":
        assert (note.outcome, len(report.new)) == (Outcome.APPENDED, 4)
        assert "its lock could not be released" in str(note.message)
    else:
        assert (note.outcome, report.new) == (Outcome.FAILED, [])
        assert between[key.metadata] == before[key.metadata]
        for uid, entry in entries_of(between, key).items():
            assert bytes_of(between, key, entry) == bytes_of(before, key, entries_of(before, key)[uid])
    assert key.lock not in between or "lock" in str(note.message)
    assert again.is_clean
    await assert_sound(place.bucket, key, 6)


async def test_far_and_slow_store_is_filled_by_several_series_at_a_time(tmp_path: Path) -> None:
    bucket = SlowBucket(MemoryBucket(), latency_seconds=0.02, bytes_per_second=10e6)

    report = await ingest(sorted(P10.iterdir())[:24], bucket)

    assert {note.outcome for note in report.series} == {Outcome.STORED}
    assert len(report.series) > 8
    alone = sum(8 * 0.02 for _ in report.series)  # a series takes more than eight requests, one after the other
    assert report.seconds < alone


async def test_one_bad_series_does_not_keep_the_others_from_being_stored(tmp_path: Path) -> None:
    bucket = FailingBucket(MemoryBucket())
    bad = key_of(await ingest(CT, MemoryBucket()))
    bucket.fail(None, lambda key: key.startswith(bad.stem), StorageUnavailable("forbidden"))

    report = await ingest([CT[0].parent], bucket)

    outcomes = {SeriesKey(note.study_uid, note.series_uid): note.outcome for note in report.series}
    assert outcomes.pop(bad) is Outcome.FAILED
    assert set(outcomes.values()) == {Outcome.STORED}


async def test_what_stays_broken_is_told_after_a_few_attempts() -> None:
    bucket = FailingBucket(MemoryBucket())
    asked: list[str] = []
    bucket.before_each(lambda verb, key: asked.append(verb))
    bucket.fail("read", lambda key: True, StorageUnavailable("forbidden"))

    report = await ingest(CT, bucket)

    assert [note.outcome for note in report.series] == [Outcome.FAILED]
    assert asked == ["read"]  # it is no failure that passes


async def test_files_come_from_one_bucket_and_go_into_another(moto: str, proxy: FaultProxy, place: S3Place) -> None:
    for path in CT:
        place.client.put_object(Bucket=place.name, Key=f"inbox/{path.name}", Body=path.read_bytes())
    options = BucketOptions(s3=S3Options(endpoint=proxy.url), patience=PATIENCE)
    proxy.strike(Shorten(5000), method="GET", contains="inbox/", times=2)

    report = await ingest([f"s3://{place.name}/inbox"], place.bucket, options=options)

    assert (len(report.new), len(report.same), report.is_clean) == (4, 2, True)
    await assert_sound(place.bucket, key_of(report), 6)


async def test_small_objects_of_a_far_bucket_are_read_several_at_a_time(
    moto: str, proxy: FaultProxy, place: S3Place
) -> None:
    for number in range(16):
        data = (
            CT[0].read_bytes().replace(b"1.2.826.0.1.3680043.8.498.1", b"1.2.826.0.1.3680043.8.49%d.1" % (number % 8))
        )
        place.client.put_object(Bucket=place.name, Key=f"inbox/{number}", Body=data)
    options = BucketOptions(s3=S3Options(endpoint=proxy.url), patience=PATIENCE)
    proxy.strike(Delay(0.2), method="GET", contains="inbox/", times=1000)

    began = time.monotonic()
    report = await ingest([f"s3://{place.name}/inbox"], place.bucket, dry_run=True, options=options)
    seconds = time.monotonic() - began

    assert report.bytes_read > 0
    assert seconds < 16 * 0.2


async def test_source_bucket_that_does_not_answer_is_refused_and_not_absent(
    moto: str, proxy: FaultProxy, place: S3Place
) -> None:
    place.client.put_object(Bucket=place.name, Key="inbox/a", Body=CT[0].read_bytes())
    options = BucketOptions(s3=S3Options(endpoint=proxy.url), patience=PATIENCE)
    proxy.strike(Refuse(503), method="GET", contains="inbox/a", times=1000)

    report = await ingest([f"s3://{place.name}/inbox/a"], place.bucket, options=options)

    assert len(report.refused) == 1
    assert "given up after 3 attempts" in report.refused[0].reason
    assert not report.is_clean


def bytes_of(objects: dict[str, bytes], key: SeriesKey, entry: dict[str, object]) -> bytes:
    headers, size = entry["headers"], entry["size"]
    assert isinstance(headers, dict)
    assert isinstance(size, int)
    start = int(headers["start_byte"])
    return objects[key.tar][start : start + size]


async def assert_sound(bucket: Bucket, key: SeriesKey, count: int) -> None:
    """The three objects, no lock, and each instance where its entry has it."""
    objects = await everything(bucket)
    assert set(objects) == {key.tar, key.metadata, key.stem + "/index.sqlite"}
    entries = entries_of(objects, key)
    assert len(entries) == count
    assert {bytes_of(objects, key, entry) for entry in entries.values()} == {path.read_bytes() for path in CT[:count]}
