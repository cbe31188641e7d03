"""The far bucket of the benchmarks, asked by clients that others wrote: what it answers must be what S3 answers."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no types
import obstore
import pytest
from botocore import UNSIGNED  # type: ignore[import-untyped]  # it has no types
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types
from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError
from obstore.store import S3Store

from benchmarks.far_s3.distance import HERE, Distance, Pace
from benchmarks.far_s3.process import FarStore, far_store

KEYS = ["a.bin", "studies/1/series/2.tar", "studies/1/series/2/metadata.json", "studies/1é/x", "studies/10/y", "z"]
LARGE = os.urandom(1_000_003)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("far")
    for key in KEYS:
        (top / key).parent.mkdir(parents=True, exist_ok=True)
        (top / key).write_bytes(LARGE if key.endswith(".tar") else key.encode())
    (top / "empty").write_bytes(b"")
    return top


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[FarStore]:
    with far_store(folder, HERE) as running:
        yield running


@pytest.fixture(scope="module")
def amazon(store: FarStore) -> Any:
    """boto3 makes its clients at run time: nothing to type."""
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )


@pytest.fixture(scope="module")
def rust(store: FarStore) -> S3Store:
    return S3Store(
        store.bucket,
        endpoint=store.endpoint,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
    )


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def test_whole_objects_and_ranges_are_the_bytes_of_the_file(amazon: Any, rust: S3Store) -> None:
    key = KEYS[1]

    whole = amazon.get_object(Bucket="bench", Key=key)
    part = amazon.get_object(Bucket="bench", Key=key, Range="bytes=1000-1999")
    tail = amazon.get_object(Bucket="bench", Key=key, Range="bytes=-10")
    beyond = amazon.get_object(Bucket="bench", Key=key, Range="bytes=1000000-9999999")

    assert whole["Body"].read() == LARGE
    assert (part["ContentRange"], part["Body"].read()) == ("bytes 1000-1999/1000003", LARGE[1000:2000])
    assert tail["Body"].read() == LARGE[-10:]
    assert beyond["Body"].read() == LARGE[1_000_000:]
    assert bytes(obstore.get(rust, key).bytes()) == LARGE
    assert bytes(obstore.get_range(rust, key, start=7, end=70_007)) == LARGE[7:70_007]


def test_an_object_answers_as_s3_does_to_preconditions(amazon: Any, rust: S3Store) -> None:
    head = amazon.head_object(Bucket="bench", Key="z")
    etag = head["ETag"]

    assert head["ContentLength"] == 1
    assert amazon.get_object(Bucket="bench", Key="z", IfMatch=etag)["Body"].read() == b"z"
    assert bytes(obstore.get(rust, "z", options={"if_match": etag}).bytes()) == b"z"
    with pytest.raises(ClientError) as changed:
        amazon.get_object(Bucket="bench", Key="z", IfMatch='"other"')
    with pytest.raises(ClientError) as unchanged:
        amazon.get_object(Bucket="bench", Key="z", IfNoneMatch=etag)
    assert code_of(changed) == (412, "PreconditionFailed")
    assert code_of(unchanged)[0] == 304
    with pytest.raises(PreconditionError):
        obstore.get(rust, "z", options={"if_match": '"other"'})
    with pytest.raises(NotModifiedError):
        obstore.get(rust, "z", options={"if_none_match": etag})


def test_absent_objects_absent_buckets_and_ranges_beyond_the_end_are_told_apart(amazon: Any, rust: S3Store) -> None:
    for arguments, expected in (
        ({"Bucket": "bench", "Key": "no/such"}, (404, "NoSuchKey")),
        ({"Bucket": "bench", "Key": "studies"}, (404, "NoSuchKey")),
        ({"Bucket": "bench", "Key": "../secret"}, (404, "NoSuchKey")),
        ({"Bucket": "other", "Key": "z"}, (404, "NoSuchBucket")),
        ({"Bucket": "bench", "Key": "z", "Range": "bytes=1-"}, (416, "InvalidRange")),
        ({"Bucket": "bench", "Key": "empty", "Range": "bytes=0-0"}, (416, "InvalidRange")),
    ):
        with pytest.raises(ClientError) as raised:
            amazon.get_object(**arguments)
        assert code_of(raised) == expected
    with pytest.raises(FileNotFoundError):
        obstore.get(rust, "no/such")
    assert amazon.get_object(Bucket="bench", Key="empty")["Body"].read() == b""


def test_a_listing_is_in_the_order_of_utf8_bytes_and_continues_over_pages(amazon: Any, rust: S3Store) -> None:
    every = sorted([*KEYS, "empty"], key=str.encode)

    pages = [*amazon.get_paginator("list_objects_v2").paginate(Bucket="bench", PaginationConfig={"PageSize": 2})]
    later = amazon.list_objects_v2(Bucket="bench", StartAfter="studies/1/series/2.tar", Prefix="studies/")

    assert [one["Key"] for page in pages for one in page["Contents"]] == every
    assert [len(page["Contents"]) for page in pages] == [2, 2, 2, 1]
    assert [one["Key"] for one in later["Contents"]] == [key for key in every if key > KEYS[1] and key[:2] == "st"]
    assert [info["path"] for batch in obstore.list(rust) for info in batch] == every
    assert {info["path"]: info["size"] for batch in obstore.list(rust, "studies") for info in batch}[
        KEYS[1]
    ] == 1_000_003
    assert amazon.list_objects_v2(Bucket="bench", Prefix="no/such")["KeyCount"] == 0


def test_a_listing_with_a_delimiter_names_folders_once(amazon: Any, rust: S3Store) -> None:
    """ListObjectsV2: keys that share their beginning up to the delimiter are rolled up, and count as one."""
    pages = [
        *amazon.get_paginator("list_objects_v2").paginate(
            Bucket="bench", Delimiter="/", Prefix="studies/", PaginationConfig={"PageSize": 2}
        )
    ]

    folders = [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])]
    assert folders == ["studies/1/", "studies/10/", "studies/1é/"]
    assert obstore.list_with_delimiter(rust, "studies")["common_prefixes"] == [name[:-1] for name in folders]


def test_what_a_listing_says_of_an_object_is_what_its_head_says(amazon: Any) -> None:
    listed = amazon.list_objects_v2(Bucket="bench", Prefix="z")["Contents"][0]
    head = amazon.head_object(Bucket="bench", Key="z")

    assert (listed["ETag"], listed["Size"]) == (head["ETag"], head["ContentLength"])


def test_writes_create_replace_and_refuse(amazon: Any, rust: S3Store) -> None:
    first = amazon.put_object(Bucket="bench", Key="new/one", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as exists:
        amazon.put_object(Bucket="bench", Key="new/one", Body=b"again", IfNoneMatch="*")
    with pytest.raises(AlreadyExistsError):
        obstore.put(rust, "new/one", b"again", mode="create")
    second = amazon.put_object(Bucket="bench", Key="new/one", Body=b"other", IfMatch=first["ETag"])
    with pytest.raises(ClientError) as changed:
        amazon.put_object(Bucket="bench", Key="new/one", Body=b"again", IfMatch=first["ETag"])

    assert code_of(exists) == code_of(changed) == (412, "PreconditionFailed")
    assert second["ETag"] != first["ETag"]
    assert bytes(obstore.get(rust, "new/one").bytes()) == b"other"
    amazon.delete_object(Bucket="bench", Key="new/one")
    with pytest.raises(FileNotFoundError):
        obstore.head(rust, "new/one")


def test_a_large_write_arrives_by_parts(rust: S3Store, folder: Path) -> None:
    body = LARGE * 12

    obstore.put(rust, "new/large", body, use_multipart=True, chunk_size=5 << 20)

    assert (folder / "new/large").read_bytes() == body
    obstore.delete(rust, "new/large")


def test_requests_and_bytes_are_counted_exactly(store: FarStore, rust: S3Store) -> None:
    store.count_anew()

    obstore.get_range(rust, KEYS[1], start=0, end=65_536)
    obstore.get_range(rust, KEYS[1], start=5, end=6)
    obstore.head(rust, "z")

    counts = store.counts()
    assert (counts.requests, counts.bytes) == (3, 65_537)
    assert counts.by_kind == {"GET .tar": 2, "HEAD z": 1}
    assert counts.busiest == 1


def test_a_client_that_goes_away_in_the_middle_ends_only_its_own_answer(folder: Path, capfd: Any) -> None:
    with far_store(folder, Distance(latency_seconds=0, bytes_per_second=2e6)) as far:
        address = ("127.0.0.1", int(far.endpoint.rpartition(":")[2]))
        with socket.create_connection(address) as gone:
            gone.sendall(f"GET /bench/{KEYS[1]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            gone.recv(1000)
        store = S3Store(
            far.bucket, endpoint=far.endpoint, region="x", skip_signature=True, client_options={"allow_http": True}
        )
        whole = bytes(obstore.get(store, KEYS[1]).bytes())
        sent = far.counts().bytes

    assert whole == LARGE
    assert len(LARGE) < sent < 2 * len(LARGE)
    assert capfd.readouterr().err == ""


def test_a_far_bucket_takes_its_time_for_requests_and_for_bytes(folder: Path) -> None:
    """Only lower bounds: a busy machine may take longer."""
    with far_store(folder, Distance(latency_seconds=0.05, bytes_per_second=10e6)) as far:
        store = S3Store(
            far.bucket, endpoint=far.endpoint, region="x", skip_signature=True, client_options={"allow_http": True}
        )
        begun = perf_counter()
        obstore.get_range(store, KEYS[1], start=0, end=1)
        between = perf_counter()
        obstore.get_range(store, KEYS[1], start=0, end=1_000_000)
        ended = perf_counter()

    assert between - begun >= 0.05
    assert ended - between >= 0.05 + 0.1


def test_waits_depend_on_the_seed_and_the_request_alone() -> None:
    here, there = Distance(0.03, jitter=0.2, tail_probability=0.1), Distance(0.03, jitter=0.2, seed=2)
    names = [str(number) for number in range(2000)]

    waits = [here.latency_of(name) for name in names]

    assert waits == [here.latency_of(name) for name in reversed(names)][::-1]
    assert waits != [there.latency_of(name) for name in names]
    assert all(0.024 <= wait <= 0.036 or 0.24 <= wait <= 0.36 for wait in waits)
    assert 140 <= sum(wait > 0.2 for wait in waits) <= 260  # 200 expected, standard deviation 13


def test_bytes_are_due_at_a_steady_rate_and_a_late_reader_finds_at_most_a_window() -> None:
    pace = Pace(1000, begun=10.0, window_bytes=500)

    assert pace.due(100, now=10.0) == pytest.approx(10.1)
    assert pace.due(100, now=10.15) == pytest.approx(10.2)
    assert pace.due(100, now=20.0) == pytest.approx(19.6)
    assert [pace.due(100, now=20.0) for _ in range(5)] == pytest.approx([19.7, 19.8, 19.9, 20.0, 20.1])
