"""What is Google Cloud Storage's own: generations, transcoding, sessions of uploads, refusals and what they say."""

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import requests
from google.api_core.exceptions import GatewayTimeout

from storage.bucket.gcs import GcsStore
from storage.bucket.gcs.control import Control
from storage.bucket.gcs.login import Login
from storage.bucket.gcs.place import Place
from storage.bucket.gcs.refusals import refusal
from storage.bucket.gcs.resumable import PART_BYTES
from storage.bucket.options import BucketOptions, GcsOptions, Patience
from storage.bucket.remote.bucket import RemoteBucket
from storage.errors import NotFound, ObjectChanged, ObjectNotFound, StorageUnavailable, TryAgain
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, in_pieces, listed, streamed
from tests.support.gcs_fake import Fault, GcsFake

Calls = dict[str, Callable[[], Awaitable[object]]]

BUCKET = "the-bucket"
PATIENCE = Patience(connect_seconds=1, read_seconds=0.5, attempts=3, backoff_seconds=0.01, longest_backoff_seconds=2)
LONG = b"".join(number.to_bytes(4, "big") for number in range((2 * PART_BYTES + 1000) // 4))
"""Two parts of an upload and a bit."""


@pytest.fixture(scope="module")
def running() -> Iterator[GcsFake]:
    with GcsFake() as fake:
        yield fake


@pytest.fixture
def fake(running: GcsFake) -> GcsFake:
    """An empty bucket, and nothing that goes wrong."""
    running.objects.drop_bucket(BUCKET)
    running.objects.make_bucket(BUCKET)
    running.heal()
    return running


def store_of(fake: GcsFake, bucket: str = BUCKET, **gcs: object) -> GcsStore:
    options = GcsOptions(endpoint=fake.endpoint, **gcs)  # type: ignore[arg-type] # strings
    return GcsStore.open(bucket, "", BucketOptions(gcs=options, patience=PATIENCE))


@pytest.fixture
async def bucket(fake: GcsFake) -> AsyncIterator[RemoteBucket]:
    bucket = RemoteBucket(store_of(fake), PATIENCE)
    yield bucket
    await bucket.close()


class TestReading:
    async def test_a_read_is_one_request(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        version = str(fake.objects.put(BUCKET, KEY, DATA).generation)

        await bucket.read(KEY, ByteRange(10, 20), version=version)
        await bucket.read(KEY)
        await streamed(bucket, KEY, ByteRange(0, 5000), 1000)

        assert [method for method, _ in fake.requests] == ["GET"] * 3

    async def test_the_version_is_the_generation_and_outlives_a_change_of_metadata(
        self, fake: GcsFake, bucket: RemoteBucket
    ) -> None:
        """Cloud Storage, Object metadata: the metageneration counts changes of metadata."""
        version = str(fake.objects.put(BUCKET, KEY, DATA).generation)
        fake.objects.patch(BUCKET, KEY, metadata={"reviewed": "yes"})

        answer = await bucket.read(KEY, ByteRange(0, 10), version=version)
        info = await bucket.head(KEY)

        assert answer.version == info.version == version

    async def test_a_generation_that_was_replaced_is_changed_and_not_absent(
        self, fake: GcsFake, bucket: RemoteBucket
    ) -> None:
        """The XML API answers 404 for a generation that is gone."""
        old = str(fake.objects.put(BUCKET, KEY, DATA).generation)
        new = fake.objects.put(BUCKET, KEY, DATA).generation

        with pytest.raises(ObjectChanged, match=f"generation {new} instead of {old}"):
            await bucket.read(KEY, ByteRange(0, 10), version=old)

    async def test_an_object_deleted_since_is_absent(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        old = str(fake.objects.put(BUCKET, KEY, DATA).generation)
        fake.objects.delete(BUCKET, KEY, None)

        with pytest.raises(ObjectNotFound):
            await bucket.read(KEY, ByteRange(0, 10), version=old)

    @pytest.mark.parametrize("storage_class", ["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"])
    async def test_objects_of_every_storage_class_are_read_at_once(
        self, fake: GcsFake, bucket: RemoteBucket, storage_class: str
    ) -> None:
        """Cloud Storage, Storage classes: all have the same latency; none must be restored first."""
        fake.objects.put(BUCKET, KEY, DATA, storage_class=storage_class)

        assert bytes((await bucket.read(KEY, ByteRange(3, 99))).data) == DATA[3:99]


class TestTranscoding:
    """https://cloud.google.com/storage/docs/transcoding: without Accept-Encoding the store decompresses, ranges ignored."""

    PLAIN = json.dumps({"cod": {"instances": [{"uri": f"1.2.{number}"} for number in range(500)]}}).encode()
    STORED = gzip.compress(PLAIN)

    async def test_an_object_stored_as_gzip_is_read_raw(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        fake.objects.put(BUCKET, KEY, self.STORED, content_encoding="gzip", content_type="application/json")

        whole = await bucket.read(KEY)

        assert bytes(whole.data) == self.STORED
        assert whole.size == len(self.STORED) == (await bucket.head(KEY)).size

    async def test_a_range_of_an_object_stored_as_gzip_is_a_range_of_the_stored_bytes(
        self, fake: GcsFake, bucket: RemoteBucket
    ) -> None:
        fake.objects.put(BUCKET, KEY, self.STORED, content_encoding="gzip")
        stop = len(self.STORED)

        assert bytes((await bucket.read(KEY, ByteRange(5, 70))).data) == self.STORED[5:70]
        assert await streamed(bucket, KEY, ByteRange(5, stop), 64) == self.STORED[5:]

    async def test_decompressed_bytes_are_refused(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        fake.objects.put(BUCKET, KEY, self.STORED, content_encoding="gzip")
        fake.drops_accept_encoding = True

        for read in (bucket.read(KEY), bucket.read(KEY, ByteRange(0, 10))):
            with pytest.raises(StorageUnavailable, match="Accept-Encoding"):
                await read


class TestUploads:
    async def test_a_long_upload_goes_in_parts_and_is_their_sum(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        info = await bucket.upload(KEY, in_pieces([LONG[:3], LONG[3:-5], LONG[-5:]]))

        stored = fake.objects.live(BUCKET, KEY)
        assert stored is not None
        assert stored.data == LONG
        assert (info.size, info.version) == (len(LONG), str(stored.generation))
        assert [method for method, _ in fake.requests] == ["POST", "PUT", "PUT", "PUT"]
        assert info == await bucket.head(KEY)

    async def test_an_upload_that_is_given_up_is_cancelled_and_never_visible(
        self, fake: GcsFake, bucket: RemoteBucket
    ) -> None:
        fake.objects.put(BUCKET, KEY, DATA)

        with pytest.raises(ZeroDivisionError):
            await bucket.upload(KEY, in_pieces([LONG], ZeroDivisionError()))

        assert fake.objects.get(BUCKET, KEY, None).data == DATA
        assert fake.requests[-1][0] == "DELETE"
        assert fake.open_sessions == 0

    @pytest.mark.parametrize(
        "fault",
        [Fault(status=503), Fault(reset=True), Fault(swallow=True), Fault(status=429, headers={"Retry-After": "0"})],
        ids=["503", "reset", "answer lost", "throttled"],
    )
    @pytest.mark.parametrize("part", ["bytes 0-", f"bytes {2 * PART_BYTES}-"], ids=["first part", "last part"])
    async def test_a_part_that_fails_is_sent_again_from_where_it_broke(
        self, fake: GcsFake, bucket: RemoteBucket, fault: Fault, part: str
    ) -> None:
        fake.fail(lambda request: request.headers.get("Content-Range", "").startswith(part), fault)

        await bucket.upload(KEY, in_pieces([LONG]))

        assert fake.objects.get(BUCKET, KEY, None).data == LONG
        asked = [headers.get("Content-Range", "") for headers in fake.headers]
        assert len([each for each in asked if each.startswith("bytes */")]) == 1
        assert fake.open_sessions == 0

    async def test_an_upload_fails_when_its_parts_keep_failing(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        fake.fail(lambda request: request.method == "PUT", Fault(status=503), times=100)

        with pytest.raises(StorageUnavailable, match="given up after 3 attempts"):
            await bucket.upload(KEY, in_pieces([LONG]))

        assert fake.objects.live(BUCKET, KEY) is None

    @pytest.mark.parametrize(
        "kind", [requests.ConnectionError, requests.ReadTimeout, requests.TooManyRedirects, GatewayTimeout]
    )
    async def test_the_address_of_an_upload_is_a_secret(self, kind: Callable[[str], Exception]) -> None:
        """Who has it can write: https://cloud.google.com/storage/docs/resumable-uploads#session-uris."""
        place = Place("http://127.0.0.1:9", BUCKET, "", "", is_anonymous=True)
        control = Control(place, Login(is_anonymous=True), PATIENCE)

        def fail() -> None:
            raise kind("Max retries exceeded with url: /upload?upload_id=secret")

        with pytest.raises(StorageUnavailable) as caught:
            await control.run(KEY, fail, changes=True)

        assert "secret" not in str(caught.value)
        assert KEY in str(caught.value)
        await control.close()

    async def test_an_address_that_is_refused_is_named_by_the_number_of_the_systems_error(self) -> None:
        options = BucketOptions(gcs=GcsOptions(endpoint="http://127.0.0.1:9"), patience=PATIENCE)
        bucket = RemoteBucket(GcsStore.open(BUCKET, "", options), PATIENCE)

        with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:9: ConnectionError, ECONNREFUSED"):
            await bucket.upload(KEY, in_pieces([LONG]))
        await bucket.close()


class TestListing:
    async def test_a_listing_takes_one_request_for_a_thousand_objects(
        self, fake: GcsFake, bucket: RemoteBucket
    ) -> None:
        keys = sorted(f"studies/{number}.tar" for number in range(2100))
        for key in keys:
            fake.objects.put(BUCKET, key, b"x")

        assert await listed(bucket, "studies/") == keys

        assert len(fake.requests) == 3
        assert all("fields=" in path for _, path in fake.requests)

    async def test_a_listing_goes_on_after_a_page_that_failed(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        keys = sorted(f"{number}" for number in range(1500))
        for key in keys:
            fake.objects.put(BUCKET, key, b"x")
        fake.fail(lambda request: "pageToken" in request.query, Fault(status=503), times=2)

        assert await listed(bucket) == keys


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=503),
            Fault(status=500),
            Fault(status=429),
            Fault(status=408),
            Fault(reset=True),
            Fault(body_bytes=1000),
            Fault(stall_seconds=1.5),
        ],
        ids=["503", "500", "429", "408", "reset", "short body", "stalled body"],
    )
    async def test_a_read_is_repeated_and_its_bytes_are_right(
        self, fake: GcsFake, bucket: RemoteBucket, fault: Fault
    ) -> None:
        fake.objects.put(BUCKET, KEY, DATA)
        for read in (bucket.read(KEY, ByteRange(7, 9000)), bucket.read(KEY)):
            fake.heal()
            fake.fail_reads(fault)

            answer = await read

            assert bytes(answer.data) in (DATA[7:9000], DATA)
            assert len(fake.requests) == 2

    async def test_a_stream_that_breaks_goes_on_where_it_broke(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        fake.objects.put(BUCKET, KEY, LONG)
        fake.fail_reads(Fault(body_bytes=3_000_000), times=2)

        assert await streamed(bucket, KEY, ByteRange(1, len(LONG)), 500_000) == LONG[1:]

    async def test_a_stream_never_goes_on_with_another_object(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        fake.objects.put(BUCKET, KEY, LONG)
        fake.fail_reads(Fault(body_bytes=3_000_000))
        fake.fail_reads(Fault(before=lambda: fake.objects.put(BUCKET, KEY, bytes(len(LONG)))))

        with pytest.raises(ObjectChanged):
            await streamed(bucket, KEY, ByteRange(0, len(LONG)), 500_000)

    @pytest.mark.parametrize("verb", ["read", "head", "list", "write", "delete"])
    async def test_a_failure_that_stays_is_unavailable_and_never_an_absence(
        self, fake: GcsFake, bucket: RemoteBucket, verb: str
    ) -> None:
        fake.fail(lambda request: True, Fault(status=503), times=1000)
        calls: Calls = {
            "read": lambda: bucket.read(KEY, ByteRange(0, 1)),
            "head": lambda: bucket.head(KEY),
            "list": lambda: listed(bucket),
            "write": lambda: bucket.write(KEY, b"x"),
            "delete": lambda: bucket.delete(KEY),
        }

        with pytest.raises(StorageUnavailable, match="given up after 3 attempts") as caught:
            await calls[verb]()

        assert not isinstance(caught.value, NotFound)

    async def test_the_store_says_how_long_to_wait(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        """RFC 9110 §10.2.3; longer than our patience, so it is passed on to the client."""
        fake.fail(lambda request: True, Fault(status=429, headers={"Retry-After": "17"}), times=1000)

        with pytest.raises(StorageUnavailable) as caught:
            await bucket.write(KEY, b"x")

        assert caught.value.retry_after_seconds == 17

    async def test_an_answer_to_a_create_that_was_lost_does_not_lose_the_lock(
        self, fake: GcsFake, bucket: RemoteBucket
    ) -> None:
        fake.fail(lambda request: request.method == "POST", Fault(swallow=True))

        info = await bucket.create(KEY, b"the lock, and who holds it")

        assert info == await bucket.head(KEY)

    async def test_bytes_damaged_on_their_way_to_the_store_are_not_kept(self, fake: GcsFake) -> None:
        """The CRC32C of the bytes goes with them: JSON API, Objects: insert."""
        store = store_of(fake)
        await store.put(KEY, DATA, None)

        body = next(body for body in fake.bodies if b"crc32c" in body)

        assert fake.objects.get(BUCKET, KEY, None).crc32c.encode() in body
        await store.close()


class TestRefusals:
    @pytest.mark.parametrize("verb", ["read", "whole", "head", "list", "write", "create", "upload", "delete"])
    async def test_an_absent_bucket_is_no_empty_datastore(self, fake: GcsFake, verb: str) -> None:
        """Cloud Storage answers 404 for an absent bucket and for an absent object."""
        bucket = RemoteBucket(store_of(fake, "mis-spelt"), PATIENCE)
        calls: Calls = {
            "read": lambda: bucket.read(KEY, ByteRange(0, 1)),
            "whole": lambda: bucket.read(KEY),
            "head": lambda: bucket.head(KEY),
            "list": lambda: listed(bucket),
            "write": lambda: bucket.write(KEY, b"x"),
            "create": lambda: bucket.create(KEY, b"x"),
            "upload": lambda: bucket.upload(KEY, in_pieces([LONG])),
            "delete": lambda: bucket.delete(KEY),
        }

        with pytest.raises(StorageUnavailable, match="no such bucket; check the address"):
            await calls[verb]()
        await bucket.close()

    async def test_a_bucket_whose_requester_pays_wants_a_project(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        """https://cloud.google.com/storage/docs/requester-pays."""
        fake.objects.put(BUCKET, KEY, DATA)
        fake.needs_project = True
        payer = RemoteBucket(store_of(fake, project="who-pays"), PATIENCE)

        for call in (bucket.read(KEY, ByteRange(0, 9)), bucket.head(KEY), bucket.write(KEY, b"x")):
            with pytest.raises(StorageUnavailable, match="name the project that pays"):
                await call
        assert bytes((await payer.read(KEY, ByteRange(0, 9))).data) == DATA[:9]
        assert (await payer.head(KEY)).size == len(DATA)
        await payer.upload(KEY, in_pieces([LONG]))
        assert await listed(payer) == [KEY]
        await payer.close()

    @pytest.mark.parametrize(
        ("status", "words"), [(401, "gcloud auth application-default login"), (403, "Storage Object Viewer")]
    )
    async def test_a_refusal_says_what_to_do_and_is_not_repeated(
        self, fake: GcsFake, bucket: RemoteBucket, status: int, words: str
    ) -> None:
        fake.fail(lambda request: True, Fault(status=status, body="no"), times=1000)

        for call in (bucket.read(KEY, ByteRange(0, 1)), bucket.head(KEY), bucket.write(KEY, b"x")):
            fake.requests.clear()
            with pytest.raises(StorageUnavailable, match=words):
                await call
            assert len(fake.requests) == 1

    async def test_a_404_without_words_asks_the_bucket(self, fake: GcsFake, bucket: RemoteBucket) -> None:
        fake.fail(lambda request: KEY.rpartition("/")[2] in request.path, Fault(status=404), times=1000)

        with pytest.raises(ObjectNotFound):
            await bucket.head(KEY)

    async def test_a_service_that_is_not_cloud_storage_holds_nothing_and_says_so(self, fake: GcsFake) -> None:
        fake.fail(lambda request: True, Fault(status=404, body="<h1>It works!</h1>"), times=1000)
        bucket = RemoteBucket(store_of(fake), PATIENCE)

        with pytest.raises(StorageUnavailable) as caught:
            await bucket.read(KEY)

        assert not isinstance(caught.value, NotFound)
        await bucket.close()

    @pytest.mark.parametrize("body", ["<h1>It works!</h1>", "{}"])
    async def test_a_service_that_says_yes_to_everything_is_not_believed(self, fake: GcsFake, body: str) -> None:
        answer = Fault(status=200, headers={"Content-Type": "application/json"}, body=body)
        fake.fail(lambda request: True, answer, times=1000)
        bucket = RemoteBucket(store_of(fake), PATIENCE)

        for call in (
            bucket.read(KEY, ByteRange(0, 1)),
            bucket.read(KEY),
            bucket.head(KEY),
            bucket.write(KEY, b"x"),
            bucket.upload(KEY, in_pieces([LONG])),
        ):
            with pytest.raises(StorageUnavailable):
                await call
        await bucket.close()

    @pytest.mark.parametrize("retry_after", ["3", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", None])
    def test_what_may_pass_is_tried_again(self, retry_after: str | None) -> None:
        """https://cloud.google.com/storage/docs/retry-strategy: 408, 429, 5xx."""
        for status in (408, 429, 500, 502, 503, 504):
            error = refusal("gs://b/k", status, "", retry_after)

            assert isinstance(error, TryAgain)
            assert error.after_seconds == {"3": 3, "soon": None, None: None}.get(retry_after, 0)

    @pytest.mark.parametrize("retry_after", ["inf", "nan", "-inf", "1e999", "9" * 400])
    def test_a_time_to_wait_without_end_counts_as_not_said(self, retry_after: str) -> None:
        error = refusal("gs://b/k", 503, "", retry_after)

        assert isinstance(error, TryAgain)
        assert error.after_seconds is None

    def test_an_exhausted_quota_is_tried_again_although_it_is_a_403(self) -> None:
        body = json.dumps({"error": {"message": "Quota", "errors": [{"reason": "userRateLimitExceeded"}]}})

        assert isinstance(refusal("gs://b/k", 403, body, None), TryAgain)
