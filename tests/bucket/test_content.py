"""What stores on the network tell of an object: the published library reads metadata.json as text only if it says gzip."""

import gzip

import pytest

from storage.bucket.remote.content import content_of
from tests.support.moto_server import moto, s3_credentials
from tests.support.s3_place import PREFIX, S3Place

__all__ = ["moto", "s3_credentials"]

PACKED = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("key", "data", "media_type", "coding"),
    [
        ("studies/1/series/2/metadata.json", PACKED, "application/json", "gzip"),
        ("studies/1/series/2/metadata.json", b"{}", "application/json", ""),
        ("studies/1/series/2/.gradient.lock", PACKED, "application/json", "gzip"),
        ("studies/1/series/2.tar", PACKED, "application/x-tar", ""),
        ("studies/1/series/2/index.sqlite", b"SQLite", "application/vnd.sqlite3", ""),
        (".codweb/indexes/v1/1/2.index", PACKED, "application/octet-stream", ""),
    ],
    ids=["packed", "plain", "lock", "tar", "sqlite", "index"],
)
def test_an_object_is_what_its_name_and_its_first_bytes_say(
    key: str, data: bytes, media_type: str, coding: str
) -> None:
    content = content_of(key, data)

    assert (content.media_type, content.coding) == (media_type, coding)


@pytest.mark.usefixtures("s3_credentials")
async def test_metadata_in_s3_says_that_it_is_compressed_and_is_read_as_it_was_written(moto: str) -> None:
    place = S3Place(moto)
    try:
        await place.bucket.create("studies/1/series/2/metadata.json", PACKED)
        head = place.client.head_object(Bucket=place.name, Key=f"{PREFIX}/studies/1/series/2/metadata.json")

        assert (head["ContentType"], head["ContentEncoding"]) == ("application/json", "gzip")
        assert bytes((await place.bucket.read("studies/1/series/2/metadata.json")).data) == PACKED
    finally:
        await place.bucket.close()
