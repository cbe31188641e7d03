"""The contract of copying inside a bucket: uploads with stored ranges among their pieces."""

from collections.abc import AsyncIterator

import pytest

from storage.bucket import Piece, StoredRange
from storage.errors import ObjectChanged, ObjectNotFound, ObjectTruncated
from storage.ranges import ByteRange
from tests.bucket.contract.place import DATA, KEY, LARGE, ContractBase, Place, in_pieces, stored

OTHER = "studies/1.2.3/series/7.8.9.tar"
LONG = LARGE + LARGE[::-1] + DATA
"""10 MiB and a bit: S3 copies most of it, and fetches what is below 5 MiB."""

SIZES = pytest.mark.parametrize("data", [DATA, LONG], ids=["small", "long"])


class CopyingContract(ContractBase):
    """`upload` of stored ranges."""

    @SIZES
    async def test_an_upload_is_the_sum_of_its_new_and_its_stored_pieces(self, place: Place, data: bytes) -> None:
        place.put(OTHER, data)
        place.put("third", DATA)
        size = len(data)
        pieces: list[Piece] = [
            b"head",
            await stored(place.bucket, OTHER, 0, size),
            await stored(place.bucket, OTHER, 7, size - 1),
            memoryview(b"between"),
            await stored(place.bucket, "third", 100, 10_100),
            b"",
            await stored(place.bucket, OTHER, size - 3, size),
            b"tail",
        ]

        info = await place.bucket.upload(KEY, in_pieces(pieces))

        assert place.get(KEY) == (
            b"head" + data + data[7 : size - 1] + b"between" + DATA[100:10_100] + data[size - 3 :] + b"tail"
        )
        assert info == await place.bucket.head(KEY)
        assert sorted(place.keys()) == sorted([KEY, OTHER, "third"])
        assert place.get(OTHER) == data

    @SIZES
    async def test_an_object_can_be_made_of_what_it_replaces(self, place: Place, data: bytes) -> None:
        place.put(KEY, data)
        before = await place.bucket.head(KEY)

        appended = await place.bucket.upload(
            KEY, in_pieces([await stored(place.bucket, KEY, 0, len(data) - 1024), b"new"])
        )
        assert place.get(KEY) == data[:-1024] + b"new"
        assert appended.version != before.version

        await place.bucket.upload(
            KEY,
            in_pieces(
                [await stored(place.bucket, KEY, 0, 10), await stored(place.bucket, KEY, 1000, len(data) - 1021)]
            ),
        )
        assert place.get(KEY) == data[:10] + data[1000:-1024] + b"new"

    @SIZES
    async def test_neighbouring_ranges_may_be_named_one_by_one(self, place: Place, data: bytes) -> None:
        place.put(OTHER, data)
        version = (await place.bucket.head(OTHER)).version
        step = len(data) // 50
        steps = [StoredRange(OTHER, ByteRange(start, start + step), version) for start in range(0, 50 * step, step)]

        await place.bucket.upload(KEY, in_pieces(steps))

        assert place.get(KEY) == data[: 50 * step]

    @SIZES
    async def test_a_range_of_another_version_is_changed_and_nothing_is_replaced(
        self, place: Place, data: bytes
    ) -> None:
        place.put(KEY, data)
        past = await stored(place.bucket, KEY, 0, len(data))
        place.put(KEY, data[::-1])

        with pytest.raises(ObjectChanged):
            await place.bucket.upload(KEY, in_pieces([past, b"new"]))

        assert place.get(KEY) == data[::-1]
        assert place.keys() == [KEY]

    @SIZES
    async def test_a_range_beyond_the_end_is_truncated_and_nothing_is_replaced(self, place: Place, data: bytes) -> None:
        place.put(KEY, data)

        for start, stop in ((0, len(data) + 1), (len(data) + 1, len(data) + 1), (len(data), 2 * len(data))):
            with pytest.raises(ObjectTruncated):
                await place.bucket.upload(KEY, in_pieces([b"new", await stored(place.bucket, KEY, start, stop)]))

        assert place.get(KEY) == data
        assert place.keys() == [KEY]

    @SIZES
    async def test_a_range_of_an_absent_object_is_not_found(self, place: Place, data: bytes) -> None:
        with pytest.raises(ObjectNotFound, match=OTHER):
            await place.bucket.upload(KEY, in_pieces([StoredRange(OTHER, ByteRange(0, len(data)), "version")]))

        assert place.keys() == []

    async def test_an_empty_range_adds_nothing_and_still_must_be_of_its_version(self, place: Place) -> None:
        place.put(OTHER, DATA)
        empty = await stored(place.bucket, OTHER, 5, 5)

        await place.bucket.upload(KEY, in_pieces([b"a", empty, b"b"]))
        assert place.get(KEY) == b"ab"

        place.put(OTHER, b"by another")
        with pytest.raises(ObjectChanged):
            await place.bucket.upload(KEY, in_pieces([b"c", empty]))
        assert place.get(KEY) == b"ab"

    @SIZES
    async def test_what_the_pieces_do_at_their_end_still_meets_the_old_object(self, place: Place, data: bytes) -> None:
        place.put(KEY, data)
        whole = await stored(place.bucket, KEY, 0, len(data))
        seen: list[bool] = []

        async def pieces() -> AsyncIterator[Piece]:
            yield whole
            yield b"new"
            seen.append(bytes((await place.bucket.read(KEY, version=whole.version)).data) == data)
            await place.bucket.write("journal", b"about to be replaced")

        await place.bucket.upload(KEY, pieces())

        assert seen == [True]
        assert place.get(KEY) == data + b"new"
        assert place.get("journal") == b"about to be replaced"

    @SIZES
    async def test_pieces_that_fail_after_a_stored_range_leave_the_object_as_it_was(
        self, place: Place, data: bytes
    ) -> None:
        place.put(KEY, data)

        with pytest.raises(ZeroDivisionError):
            await place.bucket.upload(
                KEY, in_pieces([await stored(place.bucket, KEY, 0, len(data)), b"new"], ZeroDivisionError())
            )

        assert place.get(KEY) == data
        assert place.keys() == [KEY]

    @SIZES
    async def test_an_object_replaced_while_it_is_copied_is_never_mixed_with_another(
        self, place: Place, data: bytes
    ) -> None:
        """The upload is of the named version, or it is refused."""
        place.put(OTHER, data)
        whole = await stored(place.bucket, OTHER, 0, len(data))

        async def pieces() -> AsyncIterator[Piece]:
            yield whole
            yield b"new"
            place.put(OTHER, data[::-1])
            yield b"end"

        try:
            await place.bucket.upload(KEY, pieces())
        except ObjectChanged:
            assert place.keys() == [OTHER]
        else:
            assert place.get(KEY) == data + b"newend"

    @pytest.mark.parametrize("key", ["", "/a", "a/../b", ".codweb-tmp-1"])
    async def test_a_stored_range_of_an_odd_key_is_refused(self, place: Place, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            await place.bucket.upload(KEY, in_pieces([b"new", StoredRange(key, ByteRange(0, 1), "1")]))

        assert place.keys() == []
