"""Who asks Google Cloud Storage: credentials found, kept fresh, sent to Google only, and missed with words that help."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.auth import _helpers
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError

from storage.bucket.gcs.login import Login, not_signed_in
from storage.bucket.gcs.media import Media
from storage.bucket.gcs.place import Place
from storage.bucket.gcs.store import GcsStore
from storage.bucket.options import BucketOptions, GcsOptions, Patience
from storage.errors import StorageUnavailable, TryAgain
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY
from tests.support.gcs_fake import GcsFake

_NO_WAY = TransportError("no way to Google")  # type: ignore[no-untyped-call] # google-auth
_NO_GRANT = RefreshError("invalid_grant")  # type: ignore[no-untyped-call] # google-auth


class CountedCredentials(Credentials):
    """Each refresh gives the next token, for an hour."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # google-auth
        self.refreshed = 0
        self.error = error

    def refresh(self, request: Any) -> None:  # Any: as google-auth has it
        self.refreshed += 1
        if self.error is not None:
            raise self.error
        self.token = f"token-{self.refreshed}"
        self.expiry = _now() + timedelta(hours=1)


def _now() -> datetime:
    now: datetime = _helpers.utcnow()  # type: ignore[no-untyped-call] # google-auth
    return now


@pytest.fixture
def fake() -> Iterator[GcsFake]:
    with GcsFake() as fake:
        fake.objects.make_bucket("bucket")
        fake.objects.put("bucket", KEY, DATA)
        yield fake


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without credentials, which is not asked whether it is Google's."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


async def test_one_token_serves_many_requests_until_it_ends() -> None:
    credentials = CountedCredentials()
    login = Login(is_anonymous=False, credentials=credentials)

    tokens = await asyncio.gather(*(login.token() for _ in range(20)))
    credentials.expiry = _now() + timedelta(minutes=1)
    later = await login.token()

    assert {token["token"] for token in tokens} == {"token-1"}
    assert later["token"] == "token-2"
    assert credentials.refreshed == 2


async def test_the_end_of_a_token_is_told_with_its_time_zone() -> None:
    token = await Login(is_anonymous=False, credentials=CountedCredentials()).token()

    ends = token["expires_at"]
    assert ends is not None
    assert ends.utcoffset() == timedelta(0)


async def test_a_token_that_still_counts_is_used_when_no_new_one_can_be_had() -> None:
    credentials = CountedCredentials()
    login = Login(is_anonymous=False, credentials=credentials)
    await login.token()
    credentials.expiry = _now() + timedelta(minutes=1)
    credentials.error = _NO_WAY

    assert (await login.token())["token"] == "token-1"


async def test_reads_carry_the_token(fake: GcsFake) -> None:
    place = Place(endpoint=fake.endpoint, bucket="bucket", prefix="", project="", is_anonymous=False)
    media = Media(place, Login(is_anonymous=False, credentials=CountedCredentials()), Patience())

    for _ in range(3):
        await media.get(KEY, ByteRange(0, 10), None)

    assert {headers.get("Authorization") for headers in fake.headers} == {"Bearer token-1"}


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (_NO_WAY, TryAgain, "gave no token"),
        (_NO_GRANT, StorageUnavailable, "gcloud auth application-default login"),
    ],
)
async def test_a_read_without_a_token_says_why(
    fake: GcsFake, error: Exception, kind: type[Exception], words: str
) -> None:
    place = Place(endpoint=fake.endpoint, bucket="bucket", prefix="", project="", is_anonymous=False)
    media = Media(place, Login(is_anonymous=False, credentials=CountedCredentials(error)), Patience())

    with pytest.raises(StorageUnavailable, match=words) as caught:
        await media.get(KEY, ByteRange(0, 10), None)

    assert type(caught.value) is kind
    assert fake.requests == []


async def test_a_token_never_goes_to_a_service_that_is_not_googles(fake: GcsFake) -> None:
    options = BucketOptions(gcs=GcsOptions(endpoint=fake.endpoint))
    store = GcsStore("bucket", "", options, credentials=CountedCredentials())

    await store.get(KEY, ByteRange(0, 10), None)
    await store.head(KEY)

    assert not any("Authorization" in headers for headers in fake.headers)
    await store.close()


@pytest.mark.parametrize(
    ("endpoint", "is_anonymous"),
    [
        ("", False),
        ("https://storage.googleapis.com", False),
        ("https://storage.europe-west3.rep.googleapis.com/", False),
        ("http://storage.googleapis.com", True),
        ("https://storage.googleapis.com.example.org", True),
        ("localhost:4443", True),
    ],
)
def test_credentials_are_for_google_over_tls(nobody: None, endpoint: str, is_anonymous: bool) -> None:
    assert Place.of("bucket", "", GcsOptions(endpoint=endpoint)).is_anonymous is is_anonymous
    assert Place.of("bucket", "", GcsOptions(endpoint=endpoint, anonymous=True)).is_anonymous


def test_the_emulators_own_variable_counts(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:9023")

    assert Place.of("bucket", "", GcsOptions()).endpoint == "http://localhost:9023"
    assert Place.of("bucket", "", GcsOptions(endpoint="http://other:1")).endpoint == "http://other:1"


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://secret",
        "https://user:secret@host",
        "https://secret@host",
        "https://host/secret",
        "https://host?key=secret",
        "https://host#secret",
        "http://host:secret",
        "user:secret@host:4443",
    ],
)
def test_an_endpoint_that_is_no_address_is_refused_and_not_repeated(endpoint: str) -> None:
    with pytest.raises(ValueError, match="not the address of a storage service") as caught:
        Place.of("bucket", "", GcsOptions(endpoint=endpoint))

    assert "secret" not in str(caught.value)


async def test_a_failure_to_sign_in_is_a_new_error_for_each_read() -> None:
    login = Login(is_anonymous=False, credentials=CountedCredentials(_NO_WAY))
    with pytest.raises(TryAgain):
        await login.token()

    first, second = login.failure, login.failure

    assert first is not second
    assert (type(first), str(first)) == (type(second), str(second)) == (TryAgain, str(first))


def test_the_words_of_a_failure_to_sign_in_are_not_repeated() -> None:
    for kind in (TransportError, RefreshError):
        error = kind("POST https://sts.example.org/?token=secret")
        assert "secret" not in str(not_signed_in(error))
        assert kind.__name__ in str(not_signed_in(error))


@pytest.mark.parametrize("is_anonymous", [False, True])
async def test_credentials_that_obstore_cannot_read_do_no_harm(
    fake: GcsFake, nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_anonymous: bool
) -> None:
    """Workload identity federation writes a kind of file that google-auth knows and obstore does not."""
    file = tmp_path / "credentials.json"
    file.write_text('{"type": "external_account", "audience": "a"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    place = Place(fake.endpoint, "bucket", "", "", is_anonymous)
    media = Media(place, Login(is_anonymous=is_anonymous, credentials=CountedCredentials()), Patience())

    _, data = await media.get(KEY, ByteRange(0, 10), None)

    assert bytes(data) == DATA[:10]


async def test_missing_credentials_say_what_to_do(nobody: None) -> None:
    store = GcsStore.open("bucket", "", BucketOptions())

    for call in (store.get(KEY, ByteRange(0, 10), None), store.head(KEY), store.put(KEY, b"x", None)):
        with pytest.raises(StorageUnavailable, match="gcloud auth application-default login") as caught:
            await call
        assert not isinstance(caught.value, TryAgain)
    await store.close()
