"""The contract of writing: whole or not at all, and one winner where there can be one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.bucket import ObjectInfo
from storage.errors import ObjectChanged, ObjectExists, ObjectNotFound
from tests.bucket.contract.place import DATA, KEY, LARGE, ContractBase, Place, in_pieces, listed


class WritingContract(ContractBase):
    """`write`, `upload`, `create`, `replace`, `delete`."""

    async def test_a_written_object_is_what_the_store_holds(self, place: Place) -> None:
        info = await place.bucket.write(KEY, DATA)

        assert place.get(KEY) == DATA
        assert place.keys() == [KEY]
        assert (info.key, info.size) == (KEY, len(DATA))

    async def test_a_write_replaces_the_whole_object(self, place: Place) -> None:
        place.put(KEY, DATA)

        await place.bucket.write(KEY, b"new")

        assert place.get(KEY) == b"new"

    async def test_a_reader_sees_the_old_bytes_or_the_new_ones(self, place: Place) -> None:
        states = [bytes([letter]) * 200_000 for letter in b"abcdef"]
        await place.bucket.write(KEY, states[0])
        done = asyncio.Event()

        async def write() -> None:
            for state in states:
                await place.bucket.write(KEY, state)
            done.set()

        writer = asyncio.create_task(write())
        reads = 0
        while not done.is_set():
            answer = await place.bucket.read(KEY)
            assert bytes(answer.data) in states
            reads += 1
            await asyncio.sleep(0)
        await writer

        assert reads > 0

    async def test_an_upload_is_the_sum_of_its_chunks(self, place: Place) -> None:
        pieces = [LARGE[:10], b"", LARGE[10:3_000_000], LARGE[3_000_000:3_000_001], LARGE[3_000_001:]]

        info = await place.bucket.upload(KEY, in_pieces(pieces))

        assert place.get(KEY) == LARGE
        assert info == await place.bucket.head(KEY)

    async def test_an_upload_may_reuse_the_buffer_of_its_chunks(self, place: Place) -> None:
        buffer = bytearray(600_000)

        async def chunks() -> AsyncIterator[bytes | memoryview]:
            for letter in b"abc":
                buffer[:] = bytes([letter]) * len(buffer)
                yield memoryview(buffer)

        await place.bucket.upload(KEY, chunks())

        assert place.get(KEY) == b"a" * 600_000 + b"b" * 600_000 + b"c" * 600_000

    async def test_an_upload_of_nothing_is_an_empty_object(self, place: Place) -> None:
        await place.bucket.upload(KEY, in_pieces([]))

        assert place.get(KEY) == b""

    @pytest.mark.parametrize("before", [None, DATA])
    async def test_an_upload_that_fails_midway_leaves_the_object_as_it_was(
        self, place: Place, before: bytes | None
    ) -> None:
        if before is not None:
            place.put(KEY, before)

        with pytest.raises(ZeroDivisionError):
            await place.bucket.upload(KEY, in_pieces([LARGE, b"more"], ZeroDivisionError()))

        assert place.get(KEY) == before
        assert place.keys() == ([] if before is None else [KEY])

    async def test_a_cancelled_upload_leaves_the_object_as_it_was(self, place: Place) -> None:
        place.put(KEY, DATA)
        reached = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield LARGE
            reached.set()
            await asyncio.sleep(3600)

        upload = asyncio.create_task(place.bucket.upload(KEY, chunks()))
        await reached.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload

        assert place.get(KEY) == DATA
        assert place.keys() == [KEY]

    async def test_an_unfinished_upload_is_not_visible(self, place: Place) -> None:
        seen: list[list[str]] = []

        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield LARGE
            seen.append(await listed(place.bucket))
            with pytest.raises(ObjectNotFound):
                await place.bucket.head(KEY)
            yield b"end"

        await place.bucket.upload(KEY, chunks())

        assert seen == [[]]
        assert await listed(place.bucket) == [KEY]

    async def test_create_makes_an_object_that_is_absent(self, place: Place) -> None:
        info = await place.bucket.create(KEY, DATA)

        assert place.get(KEY) == DATA
        assert place.keys() == [KEY]
        assert info == await place.bucket.head(KEY)

    async def test_create_never_touches_an_object_that_exists(self, place: Place) -> None:
        place.put(KEY, DATA)
        before = await place.bucket.head(KEY)

        with pytest.raises(ObjectExists):
            await place.bucket.create(KEY, b"other")

        assert place.get(KEY) == DATA
        assert place.keys() == [KEY]
        assert await place.bucket.head(KEY) == before

    async def test_of_sixteen_creators_exactly_one_wins(self, place: Place) -> None:
        bodies = [b"%d" % index * 1000 for index in range(16)]

        outcomes = await asyncio.gather(*(place.bucket.create(KEY, body) for body in bodies), return_exceptions=True)

        winners = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, ObjectInfo)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, ObjectExists) for outcome in outcomes) == 15
        assert place.get(KEY) == bodies[winners[0]]
        assert place.keys() == [KEY]

    async def test_replace_puts_new_bytes_over_the_named_version(self, place: Place) -> None:
        first = await place.bucket.write(KEY, DATA)

        second = await place.bucket.replace(KEY, b"new", version=first.version)

        assert place.get(KEY) == b"new"
        assert second == await place.bucket.head(KEY)
        assert second.version != first.version

    async def test_replace_refuses_a_version_that_is_past(self, place: Place) -> None:
        first = await place.bucket.write(KEY, DATA)
        place.put(KEY, b"by another")

        with pytest.raises(ObjectChanged):
            await place.bucket.replace(KEY, b"new", version=first.version)

        assert place.get(KEY) == b"by another"
        assert place.keys() == [KEY]

    async def test_replace_of_an_absent_object_is_not_found_and_makes_nothing(self, place: Place) -> None:
        with pytest.raises(ObjectNotFound):
            await place.bucket.replace("a/b/c", b"new", version="1")
        place.put("a/b/d", b"x")
        with pytest.raises(ObjectNotFound):
            await place.bucket.replace("a/b/c", b"new", version="1")

        assert place.keys() == ["a/b/d"]

    async def test_of_sixteen_replacers_exactly_one_wins(self, place: Place) -> None:
        first = await place.bucket.write(KEY, b"first")
        bodies = [b"%05d" % index for index in range(16)]

        outcomes = await asyncio.gather(
            *(place.bucket.replace(KEY, body, version=first.version) for body in bodies), return_exceptions=True
        )

        winners = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, ObjectInfo)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, ObjectChanged) for outcome in outcomes) == 15
        assert place.get(KEY) == bodies[winners[0]]

    async def test_deleting_twice_is_no_error(self, place: Place) -> None:
        place.put(KEY, DATA)

        await place.bucket.delete(KEY)
        await place.bucket.delete(KEY)
        await place.bucket.delete("never/there")

        assert place.get(KEY) is None
        assert place.keys() == []
        with pytest.raises(ObjectNotFound):
            await place.bucket.read(KEY)

    async def test_deleting_a_prefix_of_keys_deletes_nothing(self, place: Place) -> None:
        place.put("a/b/c", DATA)

        await place.bucket.delete("a/b")
        await place.bucket.delete("a")

        assert place.keys() == ["a/b/c"]
