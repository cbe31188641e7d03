"""Errors: the right status, a reason in problem+json, no patient in it, and never a failure dressed as an absence."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.settings import Settings
from storage.bucket import Bucket
from storage.errors import CorruptSeries, ObjectChanged, StorageError, StorageUnavailable
from tests.http import ALONE, FILE, STORED, entries_of, resources_of, searches_of
from tests.support.buckets import FailingBucket, RecordingBucket
from tests.support.server import Client, serving
from tests.support.stores import instance_path, loaded, series_key

ENTRY = entries_of("append")[0]
KEY = series_key(ENTRY)
INSTANCE = instance_path(ENTRY)
EVERYWHERE = {**resources_of(ENTRY), **searches_of(KEY)}
NO_ANSWER = StorageUnavailable("the bucket does not answer")

REFUSALS = {
    "a malformed UID": (400, "/dicomweb/studies/1.2_3/metadata", {}),
    "a malformed frame list": (400, f"{INSTANCE}/frames/one", {}),
    "frame zero": (400, f"{INSTANCE}/frames/0", {}),
    "a malformed attribute path": (400, f"{INSTANCE}/bulkdata/PixelData", {}),
    "a malformed limit": (400, "/dicomweb/studies?limit=-1", {}),
    "a malformed date": (400, "/dicomweb/studies?StudyDate=20240231", {}),
    "an attribute that DICOM does not know": (400, "/dicomweb/studies?PatientNmae=x", {}),
    "an unsupported charset": (400, "/dicomweb/studies?charset=x-none", {}),
    "an unknown study": (404, "/dicomweb/studies/9.9.9", {}),
    "metadata of an unknown study": (404, "/dicomweb/studies/9.9.9/metadata", {}),
    "an unknown series": (404, f"/dicomweb/studies/{KEY.study_uid}/series/9.9.9", {}),
    "metadata of an unknown series": (404, f"/dicomweb/studies/{KEY.study_uid}/series/9.9.9/metadata", {}),
    "a series under another study": (404, f"/dicomweb/studies/9.9.9/series/{KEY.series_uid}/metadata", {}),
    "an unknown instance": (404, f"/dicomweb/{KEY.stem}/instances/9.9.9", {}),
    "metadata of an unknown instance": (404, f"/dicomweb/{KEY.stem}/instances/9.9.9/metadata", {}),
    "a frame of an unknown instance": (404, f"/dicomweb/{KEY.stem}/instances/9.9.9/frames/1", {}),
    "a frame beyond the last": (404, f"{INSTANCE}/frames/2", {}),
    "a frame beyond the last among others": (404, f"{INSTANCE}/frames/1,2", {}),
    "bulk data that is not there": (404, f"{INSTANCE}/bulkdata/00420011", {}),
    "bulk data of an unknown instance": (404, f"/dicomweb/{KEY.stem}/instances/9.9.9/bulkdata/7FE00010", {}),
    "an unknown resource": (404, f"{INSTANCE}/nothing", {}),
    "the service root": (404, "/dicomweb", {}),
    "XML metadata": (406, f"/dicomweb/{KEY.stem}/metadata", {"accept": "application/dicom+xml"}),
    "XML search results": (406, "/dicomweb/studies", {"accept": 'multipart/related; type="application/dicom+xml"'}),
    "a rendered instance": (406, INSTANCE, {"accept": "image/png"}),
    "frames as JPEG": (406, f"{INSTANCE}/frames/1", {"accept": "image/jpeg"}),
    "frames in another syntax": (
        406,
        f"{INSTANCE}/frames/1",
        {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.4.90'},
    ),
    "a range behind the end": (416, f"{INSTANCE}/frames/1", {**ALONE, "range": "bytes=99999999-"}),
}


def check_problem(response: httpx.Response, status: int) -> None:
    """RFC 9457."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["content-length"] == str(len(response.content))
    document = response.json()
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]


@pytest.fixture
async def bucket() -> FailingBucket:
    return FailingBucket(await loaded("append"))


@pytest.fixture
async def client(bucket: FailingBucket, tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(bucket, tmp_path) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_every_refusal_has_its_status_and_says_why(client: Client, method: str) -> None:
    """G14, W10, Q30 and viewers' rule 23; HEAD fails as GET does, without a body."""
    for name, (status, path, headers) in REFUSALS.items():
        if method == "HEAD" and status == 416:
            continue  # ranges are for GET alone

        response = await client.request(method, path, headers=headers)

        if method == "GET":
            check_problem(response, status)
        else:
            assert response.status_code == status, name
            assert response.content == b""


async def test_a_406_lists_what_is_available(client: Client) -> None:
    """G6: PS3.18 §8.7.8.1."""
    response = await client.get("/dicomweb/studies", headers={"accept": "application/nope"})

    assert response.json()["available"] == ["application/dicom+json", "application/json"]


@pytest.mark.parametrize("method", ["POST", "DELETE", "PROPFIND"])
async def test_405_names_the_methods_that_there_are(client: Client, method: str) -> None:
    """G14."""
    for path in (*EVERYWHERE.values(), "/healthz", "/readyz"):
        response = await client.request(method, path)

        check_problem(response, 405)
        assert {name.strip() for name in response.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(("error", "seconds"), [(NO_ANSWER, 5), (ObjectChanged("another version, again and again"), 1)])
async def test_503_says_when_to_try_again(
    client: Client, bucket: FailingBucket, error: StorageUnavailable, seconds: int
) -> None:
    """G14: Retry-After."""
    bucket.fail(None, lambda key: True, error)

    response = await client.get(f"/dicomweb/{KEY.stem}/metadata")

    check_problem(response, 503)
    assert response.headers["retry-after"] == str(seconds) == str(response.json()["retry_after_seconds"])


async def test_a_bucket_that_fails_is_503_on_every_resource_and_never_404(tmp_path: Path) -> None:
    """A failure to read is never an absence: a viewer would show a study with images missing."""
    bucket = FailingBucket(await loaded("append"))
    bucket.fail(None, lambda key: True, NO_ANSWER)
    async with serving(bucket, tmp_path, wait=False) as client:
        for name, path in EVERYWHERE.items():
            if name in ("studies", "series", "instances"):
                continue  # answered by the catalogue, which says that it is not complete
            response = await client.get(path)

            check_problem(response, 503)
            assert "retry-after" in response.headers, name


async def test_searches_of_a_catalogue_that_could_not_be_filled_say_so(tmp_path: Path) -> None:
    bucket = FailingBucket(await loaded("append"))
    bucket.fail(None, lambda key: True, NO_ANSWER)
    async with serving(bucket, tmp_path) as client:
        for name in ("studies", "series", "instances"):
            response = await client.get(f"/dicomweb/{name}")

            assert response.status_code == 200
            assert response.json() == []
            assert response.headers["warning"].startswith("299 ")
        assert (await client.get(f"/dicomweb/studies?StudyInstanceUID={KEY.study_uid}")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize("verb", ["read", "stream", "head", "list"])
@pytest.mark.parametrize("is_warm", [True, False])
async def test_whichever_call_fails_the_answer_is_whole_or_503(tmp_path: Path, verb: str, is_warm: bool) -> None:
    bucket = FailingBucket(await loaded("append"))
    async with serving(bucket, tmp_path, revalidate_seconds=0) as client:
        expected = {}
        if is_warm:
            await client.archive.shelf.get(KEY, depth="deep")
        else:
            bucket.fail(verb, lambda key: True, NO_ANSWER)
        for name, path in EVERYWHERE.items():
            bucket.heal()
            if is_warm:
                expected[name] = (await client.get(path)).content
            bucket.fail(verb, lambda key: True, NO_ANSWER)

            response = await client.get(path)

            assert response.status_code in (200, 503), (name, response.text)
            if response.status_code == 200 and is_warm and "multipart" not in response.headers["content-type"]:
                assert response.content == expected[name]


@pytest.mark.parametrize(
    "error", [RuntimeError("Secret^Patient"), KeyError("Secret^Patient"), OSError("Secret^Patient")]
)
async def test_an_error_that_nobody_expected_is_500_without_its_message(
    client: Client, bucket: FailingBucket, error: Exception
) -> None:
    """T32: nobody has promised that a stranger's message names no patient."""
    bucket.fail(None, lambda key: True, error)

    response = await client.get(INSTANCE)

    check_problem(response, 500)
    assert "Secret" not in response.text


async def test_a_corrupt_series_is_500_with_the_reason(tmp_path: Path) -> None:
    bucket = await loaded("append")
    await bucket.write(KEY.metadata, b"\x1f\x8b damaged")
    async with serving(bucket, tmp_path) as client:
        for name, path in resources_of(ENTRY).items():
            response = await client.get(path)

            check_problem(response, 500)
            assert KEY.series_uid in response.json()["detail"], name


async def test_no_value_of_a_query_gets_into_an_answer_or_a_log(
    client: Client, bucket: FailingBucket, caplog: pytest.LogCaptureFixture
) -> None:
    """T32: what is searched for is a patient's name."""
    caplog.set_level(logging.DEBUG)
    secret = "Geheimrat"
    refused = [
        f"PatientName={secret}*&PatientName=x{secret}",
        f"StudyDate={secret}",
        f"StudyInstanceUID={secret}_1",
        f"SeriesNumber={secret}",
        f"limit={secret}",
        f"offset={secret}",
        f"fuzzymatching={secret}",
        f"charset={secret}",
        f"ModalitiesInStudy=CT,{secret}*",
        f"PatientName=x%00{secret}",
        f"PatientName={secret * 200}",
        f"RequestAttributesSequence={secret}",
        f"PatientName={secret}%FF",
    ]
    found = [f"PatientName=*{secret}*", f"00100020={secret}", f"PatientBirthDate=19700101&PatientComments={secret}"]

    answers = [await client.get(f"/dicomweb/studies?{query}") for query in (*refused, *found)]
    bucket.fail(None, lambda key: True, NO_ANSWER)
    answers.append(await client.get(f"/dicomweb/studies?StudyInstanceUID=9.9.9&PatientName={secret}"))
    bucket.heal()
    bucket.fail(None, lambda key: True, RuntimeError("a mistake of ours"))
    answers.append(await client.get(f"/dicomweb/studies?StudyInstanceUID=9.9.9&PatientName={secret}"))

    assert [answer.status_code for answer in answers] == [400] * len(refused) + [200] * len(found) + [503, 500]
    for answer in answers:
        assert secret.lower() not in (answer.text + str(answer.headers)).lower()
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert any("503" in message for message in ours)
    assert not any(secret.lower() in message.lower() for message in ours)


async def test_head_answers_as_get_does_and_reads_no_pixels(tmp_path: Path) -> None:
    """G16. A length that only reading would tell is left out (RFC 9110 §9.3.2)."""
    bucket = RecordingBucket(await loaded("append"))
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(KEY, depth="deep")
        for name, path in {**EVERYWHERE, "health": "/healthz", "readiness": "/readyz"}.items():
            for accept in ("*/*", ALONE["accept"], FILE["accept"]):
                expected = await client.get(path, headers={"accept": accept})
                bucket.reset()

                response = await client.head(path, headers={"accept": accept})

                assert response.content == b""
                assert response.status_code == expected.status_code, (name, accept)
                assert without_boundary(response) == without_boundary(expected, response), (name, accept)
                header_bytes = 64 * 1024 if name == "bulk data" else 0
                assert bucket.bytes_read <= header_bytes, name


def without_boundary(response: httpx.Response, other: httpx.Response | None = None) -> dict[str, str]:
    """The headers, boundaries aside; without the length if `other` is a frame's answer that does not tell it."""
    headers = dict(response.headers)
    headers["content-type"] = headers["content-type"].partition("; boundary=")[0]
    if "/frames" in response.url.path and other is not None and "content-length" not in other.headers:
        headers.pop("content-length")
    return headers


async def test_head_of_a_frame_of_every_syntax_has_the_headers_of_get(tmp_path: Path) -> None:
    async with serving(await loaded("v2_raw"), tmp_path) as client:
        for entry in entries_of("v2_raw"):
            path = f"{instance_path(entry)}/frames/1"

            expected, response = await client.get(path, headers=STORED), await client.head(path, headers=STORED)

            assert response.status_code == expected.status_code, entry["source"]
            if expected.status_code == 200:
                assert without_boundary(response) == without_boundary(expected, response)


@asynccontextmanager
async def listening(bucket: Bucket, state: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The app behind a real socket, where a connection can break."""
    settings = Settings(state_dir=state, deepen="off", sync_seconds=0)
    config = uvicorn.Config(create_app(settings, bucket), log_config=None, access_log=False, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as place:
        task = asyncio.create_task(server.serve(sockets=[place]))
        while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = place.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield client
        server.should_exit = True
        await task


@pytest.mark.parametrize("error", [NO_ANSWER, RuntimeError("a mistake of ours")])
async def test_a_stream_that_fails_midway_breaks_the_connection(tmp_path: Path, error: Exception) -> None:
    """A body that ends politely would be taken for whole: half a study, or half a picture."""
    first, second = sorted({series_key(entry) for entry in entries_of("quirk_edit")})
    study = f"/dicomweb/studies/{first.study_uid}"
    bucket = FailingBucket(await loaded("quirk_edit"))
    async with listening(bucket, tmp_path) as client:
        whole = await client.get(study)
        assert whole.status_code == 200
        assert whole.headers["content-length"] == str(len(whole.content))
        order = [whole.content.find(key.series_uid.encode()) for key in (first, second)]
        last = second if order[0] < order[1] else first
        bucket.fail("stream", lambda key: key == last.tar, error)

        async with client.stream("GET", study) as response:
            assert response.status_code == 200
            body = b""
            with pytest.raises(httpx.RemoteProtocolError):
                async for chunk in response.aiter_raw():
                    body += chunk

        boundary = response.headers["content-type"].partition("boundary=")[2].partition(";")[0].encode()
        assert b"--" + boundary in body
        assert b"--" + boundary + b"--" not in body
        bucket.heal()
        assert (await client.get(study)).status_code == 200


@pytest.mark.parametrize("error", [NO_ANSWER, CorruptSeries("the tar ends early")])
async def test_a_stream_that_fails_before_its_first_byte_is_an_error_answer(
    client: Client, bucket: FailingBucket, error: StorageError
) -> None:
    """The status goes out when the first bytes are there, not when they are hoped for."""
    await client.archive.shelf.get(KEY, depth="deep")
    bucket.fail("stream", lambda key: True, error)

    for name in ("study", "series"):
        response = await client.get(resources_of(ENTRY)[name])

        check_problem(response, 503 if error is NO_ANSWER else 500)
