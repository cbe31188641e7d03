"""Pieces of uploads: neighbouring ranges are one, and what nobody copies is fetched."""

import pytest

from storage.bucket import Piece, StoredRange
from storage.bucket.pieces import joined
from storage.ranges import ByteRange
from tests.bucket.contract import DATA, KEY, in_pieces
from tests.bucket.test_remote import holding, remote
from tests.support.buckets import RecordingBucket


def of(start: int, stop: int, *, key: str = "a", version: str = "1") -> StoredRange:
    return StoredRange(key, ByteRange(start, stop), version)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([of(0, 5), of(5, 7), of(7, 7), of(7, 9)], [of(0, 9)]),
        ([of(0, 5), of(6, 7)], [of(0, 5), of(6, 7)]),
        ([of(5, 7), of(0, 5)], [of(5, 7), of(0, 5)]),
        ([of(0, 5), of(5, 7, key="b")], [of(0, 5), of(5, 7, key="b")]),
        ([of(0, 5), of(5, 7, version="2")], [of(0, 5), of(5, 7, version="2")]),
        ([b"x", of(0, 5), b"", of(5, 7), b"y", b"z"], [b"x", of(0, 5), b"", of(5, 7), b"y", b"z"]),
        ([], []),
    ],
)
async def test_ranges_that_follow_each_other_are_one(pieces: list[Piece], expected: list[Piece]) -> None:
    assert [piece async for piece in joined(in_pieces(pieces))] == expected


async def test_a_store_that_does_not_copy_is_asked_for_the_named_version_once() -> None:
    store = holding()
    version = store.objects[KEY][1]
    ranges = [of(start, start + 100, key=KEY, version=version) for start in range(0, 5000, 100)]

    await remote(store).upload("new", in_pieces([b"head", *ranges]))

    assert store.objects["new"][0] == b"head" + DATA[:5000]
    assert store.requests == [("stream", KEY, ByteRange(0, 5000), version), ("put", "new", None, None)]


async def test_a_recording_bucket_tells_copied_bytes_from_new_ones() -> None:
    store = holding()
    version = store.objects[KEY][1]
    bucket = RecordingBucket(remote(store))
    kept = of(0, 5000, key=KEY, version=version)

    await bucket.upload(KEY, in_pieces([kept, b"new", memoryview(b"er")]))
    await bucket.write("other", b"1234")

    assert bucket.copied == [(KEY, kept)]
    assert (bucket.bytes_copied(), bucket.bytes_copied(".tar"), bucket.bytes_copied("other")) == (5000, 5000, 0)
    assert (bucket.bytes_sent(), bucket.bytes_sent(".tar"), bucket.bytes_sent("other")) == (9, 5, 4)
    assert bucket.bytes_read == 0
    bucket.reset()
    assert (bucket.copied, bucket.bytes_sent()) == ([], 0)
