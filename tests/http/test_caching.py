"""What caches and decompressors meet: codings, entity tags, freshness."""

import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import zstandard

from tests.http import ALONE, FILE, MADE, STORED, data_set, entries_of, store_of, value_of
from tests.support.buckets import RecordingBucket
from tests.support.server import Client, serving
from tests.support.stores import instance_path, loaded, series_key

ENTRY = entries_of("append")[0]
KEY = series_key(ENTRY)
SERIES = f"/dicomweb/{KEY.stem}"
METADATA = f"{SERIES}/metadata"
FRAME = f"{instance_path(ENTRY)}/frames/1"
MANY = 150
"""More instances than two blocks of an index hold."""
CODINGS = ("gzip", "zstd", "identity")


async def raw_get(client: Client, path: str, coding: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """An answer and its body before any content decoding."""
    async with client.stream("GET", path, headers={"accept-encoding": coding, **headers}) as response:
        body = b"".join([chunk async for chunk in response.aiter_raw()])
    return response, body


def gunzipped(body: bytes) -> bytes:
    """The only member of a gzip body: Chromium, curl and httpx stop after the first without a word."""
    member = zlib.decompressobj(wbits=31)
    text = member.decompress(body)
    assert member.eof
    assert member.unused_data == b""
    return text


def unzstd(body: bytes) -> bytes:
    """All frames of a zstd body."""
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        return reader.read()


DECODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gunzipped, "zstd": unzstd, "identity": bytes}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(await loaded("append"), tmp_path) as client:
        await client.archive.shelf.get(KEY, depth="deep")
        yield client


async def test_the_coding_is_the_one_the_client_likes_best(client: Client) -> None:
    """Rule 26; RFC 9110 §12.5.3. zstd only for who names it: old clients say `*` and cannot read it."""
    expected = {
        "": "identity",
        "identity": "identity",
        "gzip": "gzip",
        "x-gzip": "gzip",
        "GZIP": "gzip",
        "*": "gzip",
        "gzip, deflate, br, zstd": "zstd",
        "gzip, deflate, br": "gzip",
        "deflate, br": "identity",
        "zstd": "zstd",
        "zstd;q=0.5, gzip;q=1.0": "gzip",
        "zstd;q=1, gzip;q=0.5": "zstd",
        "zstd;q=0, *": "gzip",
        "*, gzip;q=0": "identity",
        "*;q=0": "identity",
        "gzip;q=0": "identity",
        "gzip;q=0.000": "identity",
        "gzip;q=0.5, identity;q=0.8": "identity",
        "zstd;q=0.5, identity;q=1": "identity",
        "identity;q=0.5, gzip;q=0.8": "gzip",
        "identity;q=0, gzip": "gzip",
        "gzip ; q = .2": "gzip",
        "gzip;q=abc": "identity",
        ",,;;": "identity",
    }
    for accept_encoding, coding in expected.items():
        for path in (METADATA, "/dicomweb/instances?includefield=all"):
            response, body = await raw_get(client, path, accept_encoding)

            assert response.headers.get("content-encoding", "identity") == coding, accept_encoding
            assert "Accept-Encoding" in response.headers["vary"]
            assert json.loads(DECODERS[coding](body))


async def test_pixels_are_not_compressed_again(client: Client) -> None:
    """Rule 26: progressive loading needs true lengths."""
    for path, headers in ((FRAME, ALONE), (FRAME, STORED), (instance_path(ENTRY), FILE), (SERIES, {})):
        response, _ = await raw_get(client, path, "gzip, zstd", **headers)

        assert "content-encoding" not in response.headers
        assert "content-length" in response.headers


async def test_blocks_of_a_long_series_make_one_gzip_member_and_a_row_of_zstd_frames(tmp_path: Path) -> None:
    """W8. Spliced, never compressed again; whatever the coding, mode and service root, the JSON is the same."""
    sets = [data_set(n, InstanceNumber=n, PatientComments="x" * n) for n in range(MANY)]
    bucket = await store_of(sets, tmp_path)
    async with serving(bucket, tmp_path / "state") as client:
        index = await client.archive.shelf.get(MADE, depth="deep")
        assert len(index.header.blocks) == 3
        for path in (f"/dicomweb/studies/{MADE.study_uid}/metadata", f"/dicomweb/{MADE.stem}/metadata"):
            for host in ("testserver:8042", "127.0.0.1:8042"):  # the second is the root that is stored
                bodies = {coding: (await raw_get(client, path, coding, host=host))[1] for coding in CODINGS}
                texts = {coding: DECODERS[coding](body) for coding, body in bodies.items()}

                assert texts["gzip"] == texts["zstd"] == texts["identity"]
                found = json.loads(texts["identity"])
                assert [value_of(each, "00200013") for each in found] == list(range(MANY))
                assert [len(value_of(each, "00104000") or "") for each in found] == list(range(MANY))
                assert len(bodies["gzip"]) < len(texts["gzip"]) / 5


async def test_every_coding_has_its_own_strong_etag_and_304_answers_only_that_one(client: Client) -> None:
    """Rule 27, G16. A cache that mixed two codings under one tag would hand zstd to whoever cannot read it."""
    tags = {}
    for path in (METADATA, f"{instance_path(ENTRY)}/metadata", f"/dicomweb/studies/{KEY.study_uid}/metadata"):
        for coding in CODINGS:
            response, _ = await raw_get(client, path, coding)
            tags[path, coding] = response.headers["etag"]
            assert response.headers["cache-control"] == "private, no-cache"
            assert response.headers["x-cod-metadata"] == "deep"
        assert len({tags[path, coding] for coding in CODINGS}) == len(CODINGS)
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags.values())

    for (path, coding), tag in tags.items():
        for condition in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            response, body = await raw_get(client, path, coding, **{"if-none-match": condition})

            assert (response.status_code, body) == (304, b"")
            assert response.headers["etag"] == tag
            assert response.headers["vary"] == "Accept, Accept-Encoding"
            assert response.headers["cache-control"] == "private, no-cache"
        for other in CODINGS:
            if other != coding:
                response, _ = await raw_get(client, path, other, **{"if-none-match": tag})
                assert response.status_code == 200


@pytest.mark.parametrize("headers", [ALONE, STORED, FILE, {}], ids=["alone", "stored", "file", "anything"])
async def test_pixels_and_files_are_revalidated_without_being_read(tmp_path: Path, headers: dict[str, str]) -> None:
    """Rule 27: OHIF asks for frames again when a study is opened again."""
    bucket = RecordingBucket(await loaded("append"))
    async with serving(bucket, tmp_path) as client:
        await client.archive.shelf.get(KEY, depth="deep")
        for path in (instance_path(ENTRY),) if headers is FILE else (FRAME, f"{instance_path(ENTRY)}/frames"):
            first = await client.get(path, headers=headers)
            assert first.headers["cache-control"] == "private, no-cache"
            bucket.reset()

            response = await client.get(path, headers={**headers, "if-none-match": first.headers["etag"]})

            assert response.status_code == 304
            assert bucket.bytes_read == 0 or headers is FILE


async def test_the_tag_of_a_multipart_is_weak_for_its_boundary_is_never_the_same(client: Client) -> None:
    first, second = [await client.get(FRAME, headers=STORED) for _ in range(2)]

    assert first.content != second.content
    assert first.headers["etag"] == second.headers["etag"]
    assert first.headers["etag"].startswith("W/")
    assert not (await client.get(FRAME, headers=ALONE)).headers["etag"].startswith("W/")


async def test_quick_metadata_is_not_to_be_kept_and_deep_metadata_is(tmp_path: Path) -> None:
    """metadata.json alone cannot tell which attributes it lost: a better answer follows."""
    async with serving(await loaded("append"), tmp_path) as client:
        quick = await client.get(METADATA, headers={"if-none-match": "*"})
        await client.archive.shelf.get(KEY, depth="deep")
        deep = await client.get(METADATA)

    assert (quick.status_code, quick.headers["x-cod-metadata"], quick.headers["cache-control"]) == (
        200,
        "quick",
        "no-store",
    )
    assert "etag" not in quick.headers
    assert (deep.headers["x-cod-metadata"], deep.headers["cache-control"]) == ("deep", "private, no-cache")
    assert len(deep.json()) == len(quick.json()) == 4
