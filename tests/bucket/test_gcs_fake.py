"""The fake of Cloud Storage, asked by Google's own client: what the tests of the bucket rely on is checked by another."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[attr-defined, import-untyped, unused-ignore] # ships no types

from tests.support.gcs_fake import GcsFake

TEXT = b"some text, " * 1000


@pytest.fixture(scope="module")
def fake() -> Iterator[GcsFake]:
    with GcsFake() as fake:
        yield fake


@pytest.fixture
def bucket(fake: GcsFake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # Any: the client ships no types
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    fake.objects.drop_bucket("b")
    fake.objects.make_bucket("b")
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call] # google-auth
    client = storage.Client(project="p", credentials=nobody, client_options={"api_endpoint": fake.endpoint})
    yield client.bucket("b")
    client.close()


def test_generations_grow_and_metagenerations_count_from_one(bucket: Any) -> None:
    blob = bucket.blob("a/b c.tar")
    blob.upload_from_string(b"one")
    first = blob.generation
    blob.metadata = {"seen": "yes"}
    blob.patch()

    assert (blob.generation, blob.metageneration) == (first, 2)
    blob.upload_from_string(b"two")
    assert blob.generation > first
    assert blob.metageneration == 1


def test_preconditions_hold(bucket: Any) -> None:
    blob = bucket.blob("lock")
    blob.upload_from_string(b"mine", if_generation_match=0)
    generation = blob.generation

    with pytest.raises(PreconditionFailed):
        bucket.blob("lock").upload_from_string(b"theirs", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("lock").delete(if_generation_match=generation + 1)
    with pytest.raises(PreconditionFailed):
        bucket.blob("lock").patch(if_metageneration_match=7)
    with pytest.raises(PreconditionFailed):
        bucket.blob("lock").upload_from_string(b"theirs", if_generation_not_match=generation)
    assert blob.download_as_bytes(if_generation_match=generation) == b"mine"
    blob.delete(if_generation_match=generation)
    assert not blob.exists()


def test_a_generation_that_was_replaced_is_not_found(bucket: Any) -> None:
    blob = bucket.blob("a")
    blob.upload_from_string(b"one")
    old = blob.generation
    blob.upload_from_string(b"two")

    with pytest.raises(NotFound, match="No such object"):
        bucket.blob("a", generation=old).download_as_bytes()


def test_a_long_upload_in_parts_is_checked_by_the_client(bucket: Any) -> None:
    data = bytes(range(256)) * 3000
    blob = bucket.blob("long", chunk_size=256 * 1024)
    with blob.open("wb") as writer:
        writer.write(data)

    assert bucket.blob("long").download_as_bytes() == data


def test_an_object_stored_as_gzip_is_decompressed_unless_asked_for_raw(fake: GcsFake, bucket: Any) -> None:
    """https://cloud.google.com/storage/docs/transcoding: without gzip in Accept-Encoding, and then the range is ignored."""
    blob = bucket.blob("packed")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(TEXT))
    raw = blob.download_as_bytes(raw_download=True)
    url = f"{fake.endpoint}/download/storage/v1/b/b/o/packed?alt=media"

    plain = requests.get(url, headers={"Accept-Encoding": "identity", "Range": "bytes=0-9"}, timeout=5)

    assert gzip.decompress(raw) == TEXT == blob.download_as_bytes()
    assert (plain.status_code, plain.content) == (200, TEXT)
    assert "Content-Encoding" not in plain.headers
    assert "Content-Length" not in plain.headers
    assert plain.headers["X-Goog-Stored-Content-Encoding"] == "gzip"
    assert plain.headers["X-Goog-Stored-Content-Length"] == str(len(raw))


@pytest.mark.parametrize("path", ["/download/storage/v1/b/b/o/a%2Fx?alt=media", "/b/a/x"], ids=["JSON", "XML"])
def test_both_ways_to_bytes_tell_the_same(fake: GcsFake, bucket: Any, path: str) -> None:
    blob = bucket.blob("a/x")
    blob.storage_class = "NEARLINE"
    blob.upload_from_string(TEXT)

    answer = requests.get(fake.endpoint + path, headers={"Range": "bytes=5-14"}, timeout=5)

    assert (answer.status_code, answer.content) == (206, TEXT[5:15])
    assert answer.headers["Content-Range"] == f"bytes 5-14/{len(TEXT)}"
    assert answer.headers["X-Goog-Generation"] == str(blob.generation)
    assert answer.headers["X-Goog-Storage-Class"] == "NEARLINE"
    assert f"crc32c={blob.crc32c}" in answer.headers["X-Goog-Hash"]
    past = requests.get(fake.endpoint + path, headers={"Range": "bytes=999999-"}, timeout=5)
    assert past.status_code == 416


def test_listings_have_prefixes_pages_and_a_beginning(bucket: Any) -> None:
    names = ["a", "b/1", "b/2", "b/c/3", "d", "é"]
    for name in names:
        bucket.blob(name).upload_from_string(b"x")

    folded = bucket.list_blobs(delimiter="/", page_size=2)

    assert [blob.name for blob in bucket.list_blobs(page_size=2)] == names
    assert [blob.name for blob in folded] == ["a", "d", "é"]
    assert folded.prefixes == {"b/"}
    assert [blob.name for blob in bucket.list_blobs(prefix="b/", start_offset="b/2")] == ["b/2", "b/c/3"]


def test_absent_buckets_and_absent_objects_are_told_apart_by_words_only(bucket: Any) -> None:
    with pytest.raises(NotFound, match="No such object: b/absent"):
        bucket.blob("absent").reload()
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        bucket.client.bucket("absent").blob("a").reload()
