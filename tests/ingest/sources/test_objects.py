"""Buckets as sources: listed once, read by ranges of the version that was listed, from any process."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from storage.bucket import BucketOptions, open_bucket
from storage.bucket.options import GcsOptions
from storage.errors import StorageUnavailable
from storage.ingest.sources import SourceChanged
from storage.ingest.sources.background import background
from tests.ingest.sources.conftest import p10
from tests.ingest.sources.finding import content_of, find
from tests.ingest.sources.test_tar import tar_of
from tests.support.gcs_fake import Fault, GcsFake
from tests.support.gcs_fake.place import HASTY
from tests.support.moto_server import moto, s3_credentials
from tests.support.s3_place import S3Place

__all__ = ["moto", "s3_credentials"]

pytestmark = pytest.mark.usefixtures("buckets_are_closed")

SMALL, LARGE = p10(b"small"), p10(b"large" * 600_000)
OBJECTS = {
    "scans/1/a.dcm": SMALL,
    "scans/1/b": LARGE,
    "scans/2/DICOMDIR": p10(b""),
    "scans/2/c": p10(b""),
    "scans-old/d": p10(b"old"),
    "scan": p10(b"one"),
}


@pytest.fixture(scope="module")
def fake() -> Iterator[GcsFake]:
    with GcsFake() as fake:
        fake.objects.make_bucket("media")
        for name, data in OBJECTS.items():
            fake.objects.put("media", name, data)
        yield fake


@pytest.fixture
def gcs(fake: GcsFake) -> BucketOptions:
    fake.heal()
    return BucketOptions(gcs=GcsOptions(endpoint=fake.endpoint), patience=HASTY)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("gs://media", ["scan", "scans-old/d", "scans/1/a.dcm", "scans/1/b", "scans/2/c"]),
        ("gs://media/", ["scan", "scans-old/d", "scans/1/a.dcm", "scans/1/b", "scans/2/c"]),
        ("gs://media/scans", ["1/a.dcm", "1/b", "2/c"]),
        ("gs://media/scans/", ["1/a.dcm", "1/b", "2/c"]),
        ("gs://media/scans/1", ["a.dcm", "b"]),
        ("gs://media/scans/1/a.dcm", ["a.dcm"]),
        ("gs://media/scans/1/a", ["a.dcm"]),
        ("gs://media/scan", ["scan"]),
        ("gs://media/scan/", []),
        ("gs://media/sca", ["scan", "scans-old/d", "scans/1/a.dcm", "scans/1/b", "scans/2/c"]),
        ("gs://media/absent", []),
    ],
)
async def test_an_address_means_an_object_else_a_folder_else_a_beginning(
    gcs: BucketOptions, source: str, shown: list[str]
) -> None:
    found = await find(source, options=gcs)

    assert found.shown == shown
    assert all(data in OBJECTS.values() for _, data in found.contents)
    assert [each.reason for each in found.refused] == ([] if shown else ["nothing is stored there"])


async def test_a_dicomdir_in_a_bucket_is_skipped(gcs: BucketOptions) -> None:
    assert set((await find("gs://media/scans", options=gcs)).skips) == {"DICOMDIR"}


@pytest.mark.usefixtures("s3_credentials")
async def test_objects_of_s3_are_found_with_their_bytes(moto: str) -> None:
    place = S3Place(moto)
    for name, data in OBJECTS.items():
        place.put(name, data)

    found = await find(f"s3://{place.name}/data/store/scans", options=place.options)
    one = await find(f"s3://{place.name}/data/store/scans/1/a.dcm", options=place.options)

    assert found.contents == [("1/a.dcm", SMALL), ("1/b", LARGE), ("2/c", p10(b""))]
    assert found.places[0].name == f"s3://{place.name}/data/store/scans/1/a.dcm"
    assert (one.shown, one.places[0].stamp) == (["a.dcm"], found.places[0].stamp)


async def test_no_byte_of_an_object_is_asked_for_twice(fake: GcsFake, gcs: BucketOptions) -> None:
    small, large, _ = (await find("gs://media/scans", options=gcs)).places
    costs = []
    for place in (small, large):
        fake.heal()
        with place.open() as source:
            assert source.has_prefix()
            assert (
                source.read(0, min(100_000, source.size)) == OBJECTS[place.name.removeprefix("gs://media/")][:100_000]
            )
            assert sum(len(chunk) for chunk in source.chunks()) == place.size
            source.check()
        costs.append([headers.get("Range") for headers in fake.headers])

    assert costs == [
        [f"bytes=0-{len(SMALL) - 1}"],
        ["bytes=0-65535", "bytes=65536-99999", f"bytes=100000-{len(LARGE) - 1}"],
    ]


async def test_an_object_that_was_replaced_is_not_read(fake: GcsFake, gcs: BucketOptions) -> None:
    fake.objects.put("media", "moving/x", LARGE)
    (place,) = (await find("gs://media/moving", options=gcs)).places
    fake.objects.put("media", "moving/x", LARGE[::-1])

    with place.open() as source:
        with pytest.raises(SourceChanged):
            source.read(0, 10)
        with pytest.raises(SourceChanged):
            list(source.chunks())
    assert (await find("gs://media/moving", options=gcs)).places[0].stamp != place.stamp


async def test_a_bucket_that_does_not_answer_is_no_changed_source(fake: GcsFake, gcs: BucketOptions) -> None:
    (place,) = (await find("gs://media/scans/1/b", options=gcs)).places
    fake.fail_reads(Fault(status=503), times=100)

    with place.open() as source:
        with pytest.raises(StorageUnavailable):
            source.read(0, 10)
        with pytest.raises(StorageUnavailable):
            list(source.chunks())
    fake.heal()
    assert content_of(place) == LARGE


async def test_what_is_still_open_when_the_process_ends_is_let_go(gcs: BucketOptions) -> None:
    (place,) = (await find("gs://media/scans/1/b", options=gcs)).places
    with place.open() as source:
        chunks = source.chunks()
        next(chunks)
        background().close()

        with pytest.raises(RuntimeError, match="closed"):
            list(chunks)
    assert content_of(place) == LARGE  # who asks anew gets another reader


async def test_a_stream_left_in_the_middle_ends(gcs: BucketOptions) -> None:
    (place,) = (await find("gs://media/scans/1/b", options=gcs)).places

    for _ in range(3):
        with place.open() as source:
            chunks = source.chunks()
            assert LARGE.startswith(next(chunks))
    assert content_of(place) == LARGE


async def test_members_of_a_tar_are_read_where_they_are(fake: GcsFake, gcs: BucketOptions) -> None:
    files = [("../instances/a", SMALL), ("b", LARGE), ("inner.tar", tar_of([("x", SMALL)]))]
    fake.objects.put("media", "studies/1.2/series/3.4.tar", tar_of(files))
    fake.objects.put("media", "studies/1.2/series/3.4/metadata.json", b"{}")
    fake.objects.put("media", "studies/1.2/series/cut.tar", tar_of(files[:2])[:-20_000])

    found = await find("gs://media/studies", options=gcs)

    assert found.contents == [
        ("1.2/series/3.4.tar/instances/a", SMALL),
        ("1.2/series/3.4.tar/b", LARGE),
        ("1.2/series/cut.tar/instances/a", SMALL),
    ]
    assert found.reasons["inner.tar"] == "an archive inside an archive: unpack the outer one first"
    assert found.reasons["cut.tar"].startswith("an archive: cut off")
    assert set(found.skips) == {"metadata.json"}
    assert found.places[1].name == "gs://media/studies/1.2/series/3.4.tar/b"


async def test_other_archives_in_buckets_are_refused(fake: GcsFake, gcs: BucketOptions) -> None:
    for name in ("a.zip", "b.TGZ", "c.tar.xz"):
        fake.objects.put("media", f"archives/{name}", b"x")

    found = await find("gs://media/archives", options=gcs)

    assert found.places == []
    assert set(found.reasons) == {"a.zip", "b.TGZ", "c.tar.xz"}
    assert all("copy it to a disk first" in reason for reason in found.reasons.values())


async def test_addresses_that_cannot_be_listed_are_refused_and_the_others_count(gcs: BucketOptions) -> None:
    found = await find("https://example.org/x", "gs://absent/x", "gs://media/a//b", "gs://media/scan", options=gcs)

    assert found.shown == ["scan"]
    assert len(found.refused) == 3


@pytest.mark.usefixtures("s3_credentials")
async def test_every_kind_of_place_opens_in_another_process(moto: str, tmp_path: Path) -> None:
    s3 = S3Place(moto)
    s3.put("a", LARGE)
    (tmp_path / "file").write_bytes(SMALL)
    (tmp_path / "x.tar").write_bytes(tar_of([("b", LARGE)]))
    found = await find(tmp_path, f"s3://{s3.name}/data/store/a", options=s3.options)
    context = multiprocessing.get_context("spawn")

    with ProcessPoolExecutor(1, mp_context=context) as pool:
        contents = list(pool.map(content_of, found.places))

    assert contents == [SMALL, LARGE, LARGE]


async def test_a_bucket_in_memory_is_a_source_too() -> None:
    bucket = open_bucket("memory://ingest-sources")
    await bucket.write("a/b", SMALL)

    assert (await find("memory://ingest-sources")).contents == [("a/b", SMALL)]
    assert (await find("memory://ingest-sources/a")).contents == [("b", SMALL)]
