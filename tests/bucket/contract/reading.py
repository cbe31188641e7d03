"""The contract of reading: exact bytes, one version, and absence told from failure."""

import asyncio

import pytest

from storage.errors import ObjectChanged, ObjectNotFound, ObjectTruncated, StorageUnavailable
from storage.ranges import ByteRange
from tests.bucket.contract.place import DATA, KEY, LARGE, ODD_KEYS, ContractBase, Place, in_pieces, listed, streamed


class ReadingContract(ContractBase):
    """`read`, `stream`, `head`."""

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 10_240), (1, 257), (511, 4097), (10_239, 10_240)])
    async def test_a_range_reads_exactly_its_bytes(self, place: Place, start: int, stop: int) -> None:
        place.put(KEY, DATA)

        answer = await place.bucket.read(KEY, ByteRange(start, stop))

        assert bytes(answer.data) == DATA[start:stop]
        assert answer.size == len(DATA)

    async def test_no_range_reads_the_whole_object(self, place: Place) -> None:
        place.put(KEY, DATA)

        answer = await place.bucket.read(KEY)

        assert bytes(answer.data) == DATA
        assert answer.size == len(DATA)

    async def test_an_empty_object_is_an_object(self, place: Place) -> None:
        place.put(KEY, b"")

        answer = await place.bucket.read(KEY)

        assert (bytes(answer.data), answer.size) == (b"", 0)
        assert (await place.bucket.head(KEY)).size == 0

    @pytest.mark.parametrize("at", [0, 7, 10_240])
    async def test_an_empty_range_reads_nothing_of_an_existing_object(self, place: Place, at: int) -> None:
        place.put(KEY, DATA)

        answer = await place.bucket.read(KEY, ByteRange(at, at))

        assert bytes(answer.data) == b""
        assert answer.size == len(DATA)

    async def test_an_empty_range_still_checks_object_and_version(self, place: Place) -> None:
        place.put(KEY, DATA)

        with pytest.raises(ObjectNotFound):
            await place.bucket.read("absent", ByteRange(0, 0))
        with pytest.raises(ObjectChanged):
            await place.bucket.read(KEY, ByteRange(0, 0), version="another")
        with pytest.raises(ObjectTruncated):
            await place.bucket.read(KEY, ByteRange(10_241, 10_241))

    @pytest.mark.parametrize(("start", "stop"), [(0, 10_241), (10_239, 10_241), (10_240, 10_241), (20_000, 20_001)])
    async def test_a_range_past_the_end_is_an_error_and_never_shortened(
        self, place: Place, start: int, stop: int
    ) -> None:
        place.put(KEY, DATA)

        with pytest.raises(ObjectTruncated):
            await place.bucket.read(KEY, ByteRange(start, stop))
        with pytest.raises(ObjectTruncated):
            await streamed(place.bucket, KEY, ByteRange(start, stop), 1024)

    async def test_a_large_object_is_read_exactly(self, place: Place) -> None:
        place.put(KEY, LARGE)

        whole = await place.bucket.read(KEY)
        part = await place.bucket.read(KEY, ByteRange(1_000_001, 4_000_003))

        assert bytes(whole.data) == LARGE
        assert bytes(part.data) == LARGE[1_000_001:4_000_003]

    async def test_many_reads_at_once_each_get_their_own_bytes(self, place: Place) -> None:
        place.put(KEY, LARGE)
        wanted = [ByteRange(offset, offset + 70_000) for offset in range(0, 5_000_000, 100_003)]

        answers = await asyncio.gather(*(place.bucket.read(KEY, each) for each in wanted))

        assert [bytes(answer.data) for answer in answers] == [LARGE[each.start : each.stop] for each in wanted]

    async def test_bytes_of_a_read_stay_when_the_object_is_replaced(self, place: Place) -> None:
        place.put(KEY, DATA)
        answer = await place.bucket.read(KEY)

        await place.bucket.write(KEY, bytes(len(DATA)))

        assert bytes(answer.data) == DATA

    async def test_an_absent_object_is_not_found(self, place: Place) -> None:
        place.put("a/b", DATA)

        for key in ("absent", "a/absent", "a", "absent/b", "a/b/c"):
            with pytest.raises(ObjectNotFound):
                await place.bucket.read(key)
            with pytest.raises(ObjectNotFound):
                await place.bucket.read(key, ByteRange(0, 1))
            with pytest.raises(ObjectNotFound):
                await place.bucket.head(key)
            with pytest.raises(ObjectNotFound):
                await streamed(place.bucket, key, ByteRange(0, 1), 10)

    async def test_an_object_that_cannot_be_read_is_unavailable_and_not_absent(self, place: Place) -> None:
        place.put("a/b", DATA)
        bucket = place.broken("a/b")

        for version in (None, "any"):
            with pytest.raises(StorageUnavailable) as caught:
                await bucket.read("a/b", ByteRange(0, 1), version=version)
            assert not isinstance(caught.value, ObjectChanged)
        with pytest.raises(StorageUnavailable):
            await streamed(bucket, "a/b", ByteRange(0, 1), 10)
        await bucket.close()

    @pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key[:12]))
    async def test_an_odd_key_is_refused_by_every_verb(self, place: Place, key: str) -> None:
        bucket = place.bucket

        with pytest.raises(ValueError, match="key"):
            await bucket.read(key)
        with pytest.raises(ValueError, match="key"):
            await streamed(bucket, key, ByteRange(0, 1), 10)
        with pytest.raises(ValueError, match="key"):
            await bucket.head(key)
        with pytest.raises(ValueError, match="key"):
            await bucket.write(key, DATA)
        with pytest.raises(ValueError, match="key"):
            await bucket.upload(key, in_pieces([DATA]))
        with pytest.raises(ValueError, match="key"):
            await bucket.create(key, DATA)
        with pytest.raises(ValueError, match="key"):
            await bucket.replace(key, DATA, version="1")
        with pytest.raises(ValueError, match="key"):
            await bucket.delete(key)
        assert place.keys() == []

    async def test_keys_may_hold_dots_spaces_and_letters_of_any_script(self, place: Place) -> None:
        keys = ["...", ".a", "a b", "a..b", "x/.gradient.lock", "ä/日本/🫀", "%2e%2e", "a?b#c", "-"]
        for key in keys:
            await place.bucket.write(key, key.encode())

        for key in keys:
            assert bytes((await place.bucket.read(key)).data) == key.encode() == place.get(key)
        assert await listed(place.bucket) == sorted(keys, key=str.encode)

    @pytest.mark.parametrize("chunk_bytes", [1, 100, 4096, 10_000, 10_240, 1_000_000])
    async def test_a_stream_sums_to_its_range(self, place: Place, chunk_bytes: int) -> None:
        place.put(KEY, DATA)

        assert await streamed(place.bucket, KEY, ByteRange(9_001, 10_240), chunk_bytes) == DATA[9_001:]
        assert await streamed(place.bucket, KEY, ByteRange(17, 18), chunk_bytes) == DATA[17:18]

    async def test_a_large_stream_sums_to_its_range(self, place: Place) -> None:
        place.put(KEY, LARGE)

        for chunk_bytes in (300_000, 2_000_000):
            assert await streamed(place.bucket, KEY, ByteRange(3, len(LARGE)), chunk_bytes) == LARGE[3:]

    async def test_a_stream_of_an_empty_range_has_no_chunks(self, place: Place) -> None:
        place.put(KEY, DATA)

        assert [chunk async for chunk in place.bucket.stream(KEY, ByteRange(9, 9))] == []

    async def test_a_stream_never_mixes_two_versions(self, place: Place) -> None:
        """When the object is replaced underway it breaks off, or goes on with the object it began with."""
        old, new = b"o" * 4_000_000, b"n" * 4_000_000
        place.put(KEY, old)
        received = bytearray()

        try:
            async for chunk in place.bucket.stream(KEY, ByteRange(0, len(old)), chunk_bytes=64 * 1024):
                if not received:
                    place.put(KEY, new)
                received += chunk
        except ObjectChanged:
            assert len(received) < len(old)
        else:
            assert len(received) == len(old)
        assert set(received) == set(b"o")

    async def test_a_stream_that_is_left_early_does_no_harm(self, place: Place) -> None:
        place.put(KEY, LARGE)

        async for chunk in place.bucket.stream(KEY, ByteRange(0, len(LARGE)), chunk_bytes=1000):
            assert bytes(chunk) == LARGE[:1000]
            break

        assert bytes((await place.bucket.read(KEY, ByteRange(8, 16))).data) == LARGE[8:16]
