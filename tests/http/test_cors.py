"""Cross-origin access: any viewer's page reads every answer, and nobody's credentials ever travel along."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from storage.errors import StorageUnavailable
from tests.http import ALONE, entries_of, resources_of, searches_of
from tests.support.buckets import FailingBucket, RecordingBucket
from tests.support.server import Client, serving
from tests.support.stores import instance_path, loaded, series_key

ENTRY = entries_of("append")[0]
KEY = series_key(ENTRY)
PAGE = {"origin": "https://viewer.example.org"}
NEEDED_REQUEST_HEADERS = {"accept", "authorization", "content-type", "range", "if-none-match"}
NEEDED_ANSWER_HEADERS = {
    "content-range", "content-length", "content-location", "etag", "warning", "accept-ranges", "x-total-count",
}  # fmt: skip

ANSWERS = {
    "a search": (200, "GET", "/dicomweb/studies", {}),
    "metadata": (200, "GET", f"/dicomweb/{KEY.stem}/metadata", {}),
    "a frame": (200, "GET", f"{instance_path(ENTRY)}/frames/1", {}),
    "a part of a frame": (206, "GET", f"{instance_path(ENTRY)}/frames/1", {**ALONE, "range": "bytes=0-9"}),
    "HEAD": (200, "HEAD", f"{instance_path(ENTRY)}/frames/1", {}),
    "unchanged metadata": (304, "GET", f"/dicomweb/{KEY.stem}/metadata", {"if-none-match": "*"}),
    "a bad query": (400, "GET", "/dicomweb/studies?limit=abc", {}),
    "a bad path": (400, "GET", "/dicomweb/studies/%2e%2e/metadata", {}),
    "an encoded slash": (400, "GET", "/dicomweb/studies/1.2%2F3/metadata", {}),
    "an unknown study": (404, "GET", "/dicomweb/studies/9.9.9/metadata", {}),
    "an unknown path": (404, "GET", "/nowhere/to/be/found", {}),
    "an unknown method": (405, "POST", "/dicomweb/studies", {}),
    "an unknown type": (406, "GET", "/dicomweb/studies", {"accept": "application/nope"}),
    "a range behind the end": (416, "GET", f"{instance_path(ENTRY)}/frames/1", {**ALONE, "range": "bytes=9999999-"}),
    "health": (200, "GET", "/healthz", {}),
    "the documentation": (200, "GET", "/openapi.json", {}),
}


def names_in(response: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in response.headers[header].split(",")}


def check_open_to_anybody(response: httpx.Response) -> None:
    assert response.headers.get_list("access-control-allow-origin") == ["*"]
    assert names_in(response, "access-control-expose-headers") >= NEEDED_ANSWER_HEADERS
    assert "access-control-allow-credentials" not in response.headers
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.fixture
async def bucket() -> FailingBucket:
    return FailingBucket(await loaded("append"))


@pytest.fixture
async def client(bucket: FailingBucket, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(KEY, depth="deep")
        yield client


async def test_every_answer_may_be_read_by_any_page(client: Client) -> None:
    """Rules 24 and 25 of the viewers, G17, T30: errors too, or a viewer sees nothing but "network error"."""
    for name, (status, method, path, headers) in ANSWERS.items():
        response = await client.request(method, path, headers={**PAGE, **headers})

        assert response.status_code == status, (name, response.text)
        check_open_to_anybody(response)


@pytest.mark.parametrize(
    ("error", "status"), [(StorageUnavailable("no answer"), 503), (RuntimeError("a mistake of ours"), 500)]
)
async def test_answers_of_a_failing_bucket_may_be_read_by_any_page(
    client: Client, bucket: FailingBucket, error: Exception, status: int
) -> None:
    """Rule 24: a viewer that cannot read a 503 cannot try again."""
    bucket.fail("read", lambda key: True, error)

    response = await client.get(f"{instance_path(ENTRY)}/frames/1", headers=PAGE)

    assert response.status_code == status
    check_open_to_anybody(response)


async def test_a_preflight_is_answered_on_every_path_without_touching_the_bucket(tmp_path: Path) -> None:
    """Rule 24, G17: a quoted Accept means one preflight a frame."""
    bucket = RecordingBucket(await loaded("append"))
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "accept,range"}
    async with serving(bucket, tmp_path) as client:
        bucket.reset()
        for path in (*resources_of(ENTRY).values(), *searches_of(KEY).values(), "/nowhere", "*"):
            response = await client.request("OPTIONS", path, headers={**PAGE, **asked})

            assert response.status_code == 200, path
            assert response.content == b""
            assert names_in(response, "access-control-allow-methods") >= {"get", "head", "options"}
            assert names_in(response, "access-control-allow-headers") >= NEEDED_REQUEST_HEADERS
            assert response.headers["access-control-max-age"] == "7200"
            check_open_to_anybody(response)
        assert bucket.requests == []


async def test_a_preflight_needs_no_bucket_at_all(client: Client, bucket: FailingBucket) -> None:
    bucket.fail(None, lambda key: True, StorageUnavailable("no answer"))

    response = await client.request("OPTIONS", f"{instance_path(ENTRY)}/frames/1", headers=PAGE)

    assert response.status_code == 200


ORIGINS = {
    "https://viewer.example.org": "https://viewer.example.org",
    "http://localhost:3000": "http://localhost:3000",
    "https://viewer.example.org.evil.net": None,
    "https://VIEWER.example.org": None,
    "null": None,
    None: None,
}


async def test_with_configured_origins_only_those_are_told_that_they_may_read(tmp_path: Path) -> None:
    """T30: explicit origins are echoed one by one; caches are told that the answer depends on who asks."""
    configured = "https://Viewer.example.org/, http://localhost:3000"
    async with serving(await loaded("custom_fields"), tmp_path, cors_origins=configured) as client:
        for origin, allowed in ORIGINS.items():
            headers = {} if origin is None else {"origin": origin}
            for method in ("GET", "OPTIONS"):
                for path in ("/dicomweb/studies", "/dicomweb/studies?limit=abc", "/nowhere"):
                    response = await client.request(method, path, headers=headers)

                    assert response.headers.get("access-control-allow-origin") == allowed
                    assert "origin" in names_in(response, "vary")
                    assert "access-control-allow-credentials" not in response.headers


async def test_the_answer_to_an_origin_keeps_what_else_it_varies_by(tmp_path: Path) -> None:
    async with serving(await loaded("custom_fields"), tmp_path, cors_origins="https://viewer.example.org") as client:
        response = await client.get("/dicomweb/studies", headers=PAGE)

    assert names_in(response, "vary") >= {"origin", "accept", "accept-encoding"}
