"""S3 beyond the contract: large uploads, odd services, refusals, and what an address and the options mean."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from storage.bucket import BucketOptions, open_bucket
from storage.bucket.options import Patience, S3Options
from storage.bucket.remote import RemoteBucket
from storage.bucket.remote.threads import PARTS_IN_FLIGHT
from storage.bucket.s3 import S3Store
from storage.bucket.s3.parts import MIB
from storage.bucket.s3.refusal import Refusal, read_response, read_text
from storage.bucket.s3.service import reach
from storage.errors import (
    NotFound,
    ObjectChanged,
    ObjectNotFound,
    ObjectTruncated,
    StorageError,
    StorageUnavailable,
    TryAgain,
)
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, in_pieces, listed
from tests.bucket.s3_contract import LONG
from tests.support.fault_proxy import Act, Delay, FaultProxy, Refuse, Reset, fault_proxy
from tests.support.moto_server import moto, s3_credentials
from tests.support.s3_place import PREFIX, QUICK, S3Place

__all__ = ["moto", "s3_credentials"]

pytestmark = pytest.mark.usefixtures("s3_credentials")


def said(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>words</Message></Error>".encode()


@pytest.fixture
async def proxy(moto: str) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(moto) as proxy:
        yield proxy


@pytest.fixture
async def place(moto: str, proxy: FaultProxy) -> AsyncIterator[S3Place]:
    place = S3Place(moto, through=proxy.url)
    yield place
    await place.bucket.close()


async def test_a_long_upload_that_is_cancelled_leaves_nothing_behind(place: S3Place) -> None:
    place.put(KEY, DATA)
    reached = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes | memoryview]:
        for chunk in LONG:
            yield chunk
        reached.set()
        await asyncio.sleep(60)

    upload = asyncio.create_task(place.bucket.upload(KEY, chunks()))
    await reached.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert (place.keys(), place.get(KEY)) == ([KEY], DATA)


async def test_a_long_upload_bears_faults_of_every_request(place: S3Place, proxy: FaultProxy) -> None:
    for method in ("POST", "PUT", "PUT"):
        proxy.strike(Refuse(503), method=method)
    proxy.strike(Reset(), method="PUT")

    await place.bucket.upload(KEY, in_pieces(LONG))

    assert place.get(KEY) == b"".join(LONG)


async def test_a_completion_whose_answer_was_lost_is_found_out(place: S3Place, proxy: FaultProxy) -> None:
    proxy.strike(Reset(is_heard=True), method="POST", contains="uploadId=")

    info = await place.bucket.upload(KEY, in_pieces(LONG))

    assert place.get(KEY) == b"".join(LONG)
    assert info == await place.bucket.head(KEY)


async def test_a_long_upload_that_is_cancelled_twice_leaves_nothing_behind(place: S3Place, proxy: FaultProxy) -> None:
    proxy.strike(Delay(0.3), method="DELETE")

    async def chunks() -> AsyncIterator[bytes | memoryview]:
        for chunk in LONG:
            yield chunk
        reached.set()
        await asyncio.sleep(60)

    for until_second in (0, 0.05):
        reached = asyncio.Event()
        upload = asyncio.create_task(place.bucket.upload(KEY, chunks()))
        await reached.wait()
        upload.cancel()
        await asyncio.sleep(until_second)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload

        assert place.keys() == []


async def test_an_upload_that_is_cancelled_while_it_begins_leaves_nothing_behind(
    place: S3Place, proxy: FaultProxy
) -> None:
    proxy.strike(Delay(0.2), method="POST")
    upload = asyncio.create_task(place.bucket.upload(KEY, in_pieces(LONG)))
    while not proxy.requests:  # noqa: ASYNC110  sockets tell nobody
        await asyncio.sleep(0.01)

    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    await asyncio.sleep(0.4)  # whatever is on its way has arrived
    assert place.keys() == []


async def test_a_write_that_is_late_is_never_overtaken_by_its_own_repeat(moto: str, proxy: FaultProxy) -> None:
    """The time of a request is over before its client's own: the connection still stands, and may still be heard."""
    patience = replace(QUICK, read_seconds=0.2, connect_seconds=0.05)
    place = S3Place(moto, through=proxy.url, patience=patience)
    service = replace(reach(place.name, place.options.s3, patience), patience=replace(patience, read_seconds=5))
    bucket = RemoteBucket(S3Store(service, PREFIX), patience)
    heard: list[int] = []
    await bucket.write(KEY, b"warm")
    proxy.heal()
    proxy.strike(Delay(0.6), method="PUT")
    proxy.strike(Act(lambda: heard.append(len(place.get(KEY) or b""))), method="PUT")

    await bucket.write(KEY, b"longer than warm")

    assert heard == [len(b"longer than warm")]
    await bucket.close()
    await place.bucket.close()


async def test_an_upload_that_is_refused_is_aborted(place: S3Place, proxy: FaultProxy) -> None:
    proxy.strike(Refuse(403, body=said("AccessDenied")), method="PUT")

    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        await place.bucket.upload(KEY, in_pieces(LONG))

    assert place.keys() == []


async def test_an_upload_waits_for_parts_and_does_not_gather_them_all(place: S3Place, proxy: FaultProxy) -> None:
    """At most the parts in flight and the one being gathered are ahead of what the service has."""
    taken = 0

    async def chunks() -> AsyncIterator[bytes | memoryview]:
        nonlocal taken
        for _ in range(64):
            taken += MIB
            yield bytes(MIB)

    proxy.strike(Refuse(503), times=10, method="PUT")

    with pytest.raises(StorageUnavailable):
        await place.bucket.upload(KEY, chunks())

    assert taken <= (PARTS_IN_FLIGHT + 2) * 8 * MIB
    assert place.keys() == []


async def test_a_version_is_the_digest_that_the_service_names(place: S3Place) -> None:
    info = await place.bucket.write(KEY, DATA)

    assert info.version == hashlib.md5(DATA, usedforsecurity=False).hexdigest()


async def test_a_service_that_wants_tags_without_quotes_is_understood(place: S3Place, proxy: FaultProxy) -> None:
    """Ceph 16 compares `If-Match` of a PUT with the bare tag, quotes and all."""
    first = await place.bucket.write(KEY, b"first")
    proxy.heal()
    proxy.strike(Refuse(412, body=said("PreconditionFailed")), method="PUT")

    second = await place.bucket.replace(KEY, b"second", version=first.version)
    third = await place.bucket.replace(KEY, b"third", version=second.version)

    assert place.get(KEY) == b"third"
    tags = [seen.headers["if-match"] for seen in proxy.requests if seen.method == "PUT"]
    assert tags == [f'"{first.version}"', first.version, second.version]
    with pytest.raises(ObjectChanged):
        await place.bucket.replace(KEY, b"fourth", version=second.version)
    assert (await place.bucket.head(KEY)).version == third.version


async def test_writers_that_meet_are_told_to_ask_again(place: S3Place, proxy: FaultProxy) -> None:
    """Amazon S3 answers 409 to a conditional write that met another one."""
    proxy.strike(Refuse(409, body=said("ConditionalRequestConflict")), method="PUT")

    await place.bucket.create(KEY, DATA)

    assert place.get(KEY) == DATA


async def test_retry_after_is_honoured_and_handed_on(place: S3Place, proxy: FaultProxy) -> None:
    proxy.strike(Refuse(503, headers=("Retry-After: 40",)), method="PUT")

    with pytest.raises(StorageUnavailable) as caught:
        await place.bucket.write(KEY, DATA)

    assert caught.value.retry_after_seconds == 40


async def test_a_listing_takes_as_many_pages_as_it_needs(moto: str) -> None:
    place = S3Place(moto, list_page=3)
    keys = [f"a/{number}" for number in range(7)]
    for key in keys:
        place.put(key, b"x")

    assert await listed(place.bucket) == keys
    assert await listed(place.bucket, "a/", "a/4") == keys[5:]
    await place.bucket.close()


def page(*keys: str, token: str | None, is_truncated: bool) -> Refuse:
    """An answer to a listing, as a service could give it."""
    contents = "".join(
        f"<Contents><Key>data/store/{key}</Key><LastModified>2024-01-01T00:00:00Z</LastModified><ETag>e</ETag>"
        "<Size>1</Size></Contents>"
        for key in keys
    )
    next_token = "" if token is None else f"<NextContinuationToken>{token}</NextContinuationToken>"
    truncated = str(is_truncated).lower()
    body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{next_token}{contents}</ListBucketResult>"
    return Refuse(200, body=body.encode())


async def test_an_empty_page_is_not_the_end_of_a_listing(place: S3Place, proxy: FaultProxy) -> None:
    """ListObjectsV2: the end is where IsTruncated is false; services that skip deleted objects send pages of none."""
    for answer in (
        page("a", token="t/1", is_truncated=True),
        page(token="t/2", is_truncated=True),
        page("b", token=None, is_truncated=False),
    ):
        proxy.strike(answer)

    assert await listed(place.bucket) == ["a", "b"]
    tokens = [parse_qs(urlsplit(seen.target).query).get("continuation-token") for seen in proxy.requests]
    assert tokens == [None, ["t/1"], ["t/2"]]


async def test_a_listing_without_a_way_on_is_unavailable_and_not_short(place: S3Place, proxy: FaultProxy) -> None:
    proxy.strike(page("a", token=None, is_truncated=True))
    with pytest.raises(StorageUnavailable, match="without a token"):
        await listed(place.bucket)

    proxy.heal()
    proxy.strike(page(token="t", is_truncated=True), times=100)
    with pytest.raises(StorageUnavailable, match="does not get on"):
        await listed(place.bucket)


async def test_a_listing_names_keys_of_any_letters(place: S3Place) -> None:
    keys = ["%2e%2e", "+", "a b", "a&b<c>", "a+b", "a\u2028b", "ä/日本/🫀"]
    for key in keys:
        place.put(key, b"x")

    assert await listed(place.bucket) == sorted(keys, key=str.encode)


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"<ListBucketResult><Contents/></ListBucketResult>"])
async def test_an_answer_that_is_no_listing_is_unavailable(place: S3Place, proxy: FaultProxy, body: bytes) -> None:
    proxy.strike(Refuse(200, body=body))

    with pytest.raises(StorageUnavailable, match="that is none"):
        await listed(place.bucket)


async def test_a_listing_leaves_out_what_others_put_beside(place: S3Place) -> None:
    for key in ("folder/", "a//b", "a/../b", "/c", "x\\y", "a/b"):
        place.put(key, b"")

    assert await listed(place.bucket) == ["a/b"]


async def test_no_such_bucket_is_told_from_no_such_object_by_every_verb(place: S3Place) -> None:
    bucket = place.broken(KEY)

    for call in (
        bucket.read(KEY),
        bucket.read(KEY, ByteRange(0, 1)),
        bucket.head(KEY),
        listed(bucket),
        bucket.write(KEY, DATA),
        bucket.create(KEY, DATA),
        bucket.replace(KEY, DATA, version="v"),
        bucket.upload(KEY, in_pieces(LONG)),
        bucket.delete(KEY),
    ):
        with pytest.raises(StorageUnavailable, match="does not exist: check the bucket's name"):
            await call
    await bucket.close()


REFUSALS: list[tuple[int, bytes, type[StorageError], str]] = [
    (404, said("NoSuchKey"), ObjectNotFound, KEY),
    (404, said("NoSuchBucket"), StorageUnavailable, "check the bucket's name"),
    (404, b"<html>nothing here</html>", StorageUnavailable, "is the endpoint an S3 service"),
    (404, b"", StorageUnavailable, "is the endpoint an S3 service"),
    (403, said("AccessDenied"), StorageUnavailable, "may not do this"),
    (403, said("InvalidAccessKeyId"), StorageUnavailable, "sign in again"),
    (400, said("ExpiredToken"), StorageUnavailable, "sign in again"),
    (403, said("RequestTimeTooSkewed"), StorageUnavailable, "clock"),
    (403, said("InvalidObjectState"), StorageUnavailable, "restore it first"),
    (301, said("PermanentRedirect"), StorageUnavailable, "wrong region"),
    (400, said("AuthorizationHeaderMalformed"), StorageUnavailable, "wrong region"),
    (416, said("InvalidRange"), ObjectTruncated, "ends before the range"),
    (400, said("KeyTooLongError"), StorageUnavailable, "KeyTooLongError: words"),
]


@pytest.mark.parametrize(("status", "body", "error", "words"), REFUSALS, ids=lambda value: repr(value)[:30])
async def test_a_refusal_says_what_to_do(
    place: S3Place, proxy: FaultProxy, status: int, body: bytes, error: type[StorageError], words: str
) -> None:
    place.put(KEY, DATA)
    proxy.strike(Refuse(status, body=body), times=2)

    with pytest.raises(error, match=words) as caught:
        await place.bucket.read(KEY, ByteRange(0, 10))

    assert type(caught.value) is error
    assert len(proxy.requests) == 1


async def test_a_failure_that_speaks_of_an_absent_key_is_no_absence(place: S3Place, proxy: FaultProxy) -> None:
    place.put(KEY, DATA)
    for status in (500, 503):
        proxy.heal()
        proxy.strike(Refuse(status, body=said("NoSuchKey")))
        assert bytes((await place.bucket.read(KEY, ByteRange(0, 10))).data) == DATA[:10]
        assert len(proxy.requests) == 2
        proxy.strike(Refuse(status, body=said("NoSuchKey")), method="DELETE")
        await place.bucket.delete(KEY)
        assert place.keys() == []
        place.put(KEY, DATA)

    for status, code in ((503, "NoSuchKey"), (503, "NoSuchBucket"), (0, "NoSuchKey")):
        assert isinstance(Refusal(status, code, "").error(KEY, "there"), TryAgain)
    for status in (200, 400, 403, 410):
        assert not isinstance(Refusal(status, "NoSuchKey", "").error(KEY, "there"), NotFound | TryAgain)


def test_a_time_to_wait_that_is_no_number_of_seconds_is_not_said() -> None:
    for said_to_wait, seconds in (("3", 3), ("9" * 400, None), ("inf", None), ("-1", None), ("", None)):
        metadata = {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": said_to_wait}}
        assert read_response({"ResponseMetadata": metadata}).after_seconds == seconds


async def test_a_service_that_is_not_there_is_named(s3_credentials: None) -> None:
    patience = Patience(connect_seconds=0.5, attempts=1)
    for endpoint, words in (
        ("http://127.0.0.1:9", "nobody listens there"),
        ("http://codweb.invalid", "name is not known"),
    ):
        bucket = open_bucket("s3://bucket", options=BucketOptions(s3=S3Options(endpoint=endpoint), patience=patience))
        with pytest.raises(StorageUnavailable, match=words) as caught:
            await bucket.read(KEY)
        assert endpoint in str(caught.value)
        await bucket.close()


async def test_tls_asked_of_a_service_that_has_none_is_said_so(moto: str) -> None:
    options = BucketOptions(s3=S3Options(endpoint=moto.replace("http:", "https:")), patience=Patience(attempts=1))
    bucket = open_bucket("s3://bucket", options=options)

    with pytest.raises(StorageUnavailable, match="no TLS there"):
        await bucket.read(KEY)

    await bucket.close()


def test_a_key_cannot_pretend_to_be_an_answer() -> None:
    text = (
        "Object at location a<Code>NoSuchKey</Code> status code: 200 not found: Error performing GET http://x/y in 1ms -"
        " Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>\n\nDebug source: z"
    )

    assert read_text(text) == Refusal(404, "NoSuchBucket", read_text(text).message)


def test_every_passing_refusal_is_tried_again() -> None:
    for refusal in (Refusal(0, "", "reset"), Refusal(503, "SlowDown", ""), Refusal(500, "", ""), Refusal(429, "", "")):
        assert isinstance(refusal.error(KEY, "there"), TryAgain)
    assert not isinstance(Refusal(501, "NotImplemented", "").error(KEY, "there"), TryAgain)


async def test_an_open_bucket_is_read_without_credentials(place: S3Place, moto: str, no_credentials: None) -> None:
    place.put(KEY, DATA)
    place.client.put_object_acl(Bucket=place.name, Key=f"data/store/{KEY}", ACL="public-read")
    options = BucketOptions(s3=S3Options(endpoint=moto, anonymous=True), patience=QUICK)

    bucket = open_bucket(f"s3://{place.name}/data/store", options=options)

    assert bytes((await bucket.read(KEY)).data) == DATA
    assert await listed(bucket) == [KEY]
    await bucket.close()


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, s3_credentials: None) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def test_missing_credentials_are_said_when_the_bucket_is_opened(no_credentials: None) -> None:
    with pytest.raises(StorageUnavailable, match="AWS_ACCESS_KEY_ID"):
        open_bucket("s3://bucket")


def test_an_unknown_profile_is_said_when_the_bucket_is_opened() -> None:
    with pytest.raises(StorageUnavailable, match="absent-profile"):
        open_bucket("s3://bucket", options=BucketOptions(s3=S3Options(profile="absent-profile")))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://my.bucket-1/ä/%20", "s3://my.bucket-1/ä/%20"),
    ],
)
def test_an_address_has_one_form(written: str, normal: str) -> None:
    bucket = open_bucket(written)

    assert isinstance(bucket, RemoteBucket)
    assert bucket.url == normal
    assert open_bucket(bucket.url).url == normal


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket/prefix",
        "s3://bucket:9000/prefix",
        "s3://bucket/prefix?region=eu-west-1",
        "s3://bucket/a#b",
        "s3://bucket//prefix",
        "s3://bucket/a/../b",
        "gs://user@bucket",
    ],
)
def test_an_address_that_means_something_else_is_refused_and_repeats_no_secret(url: str) -> None:
    with pytest.raises(ValueError, match="://bucket/prefix") as caught:
        open_bucket(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "s3.example.org",
        "ftp://x",
        "https://",
        "https://user:pw@x",
        "https://x/bucket",
        "http://1.2.3.4.5",
        "http://x:y",
    ],
)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"https://s3\.example\.org"):
        reach("bucket", S3Options(endpoint=endpoint), QUICK)


def test_buckets_are_named_in_the_host_or_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    own = "https://s3.example.org/"
    assert not reach("bucket", S3Options(), QUICK).is_path_style
    assert reach("my.bucket", S3Options(), QUICK).is_path_style
    assert reach("bucket", S3Options(endpoint=own), QUICK).is_path_style

    virtual = reach("bucket", S3Options(endpoint=own, addressing="virtual"), QUICK)
    assert virtual.reader().config["endpoint"] == "https://bucket.s3.example.org"
    with pytest.raises(ValueError, match="path addressing"):
        reach("bucket", S3Options(endpoint="http://127.0.0.1:1", addressing="virtual"), QUICK)

    monkeypatch.setenv("AWS_ENDPOINT_URL", own)
    assert reach("bucket", S3Options(), QUICK).endpoint == "https://s3.example.org"
    assert reach("bucket", S3Options(region="eu-west-3"), QUICK).region == "eu-west-3"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
async def test_reads_go_where_writes_go_whatever_the_environment_says(
    place: S3Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """obstore reads all three by itself; the last one even goes before what it is told."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    bucket = open_bucket(f"s3://{place.name}/{PREFIX}", options=place.options)

    await bucket.write(KEY, DATA)

    assert bytes((await bucket.read(KEY)).data) == place.get(KEY) == DATA
    await bucket.close()


@pytest.mark.parametrize(
    ("bucket", "options", "endpoint"),
    [
        ("bucket", S3Options(), "https://bucket.s3.us-east-1.amazonaws.com"),
        ("my.bucket", S3Options(), "https://s3.us-east-1.amazonaws.com"),
        ("bucket", S3Options(region="eu-west-3", addressing="path"), "https://s3.eu-west-3.amazonaws.com"),
        ("bucket", S3Options(region="cn-north-1"), "https://bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_amazons_own_address_is_said_and_not_left_to_the_environment(
    monkeypatch: pytest.MonkeyPatch, bucket: str, options: S3Options, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")

    service = reach(bucket, options, QUICK)

    assert service.reader().config["endpoint"] == endpoint
    assert service.endpoint == ""
    assert "127.0.0.1" not in service.control().meta.endpoint_url


def test_both_names_of_the_region_count_signed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (S3Options(), S3Options(anonymous=True)):
        monkeypatch.delenv("AWS_REGION", raising=False)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        assert reach("bucket", options, QUICK).region == "eu-west-1"
        monkeypatch.setenv("AWS_REGION", "eu-west-2")
        assert reach("bucket", options, QUICK).region == "eu-west-2"
        assert reach("bucket", replace(options, region="eu-west-3"), QUICK).region == "eu-west-3"


def test_a_folder_needs_no_client_of_a_cloud_and_an_open_bucket_no_boto3() -> None:
    program = """
import sys
from storage.bucket import BucketOptions, open_bucket
from storage.bucket.options import S3Options
assert not {"obstore", "boto3", "botocore", "google.cloud", "aiohttp"} & sys.modules.keys(), "a folder"
open_bucket("s3://bucket", options=BucketOptions(s3=S3Options(anonymous=True)))
assert not {"boto3", "botocore"} & sys.modules.keys(), "anonymous"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
