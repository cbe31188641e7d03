"""The contract of versions: two reads of one object are never mixed."""

import time

import pytest

from storage.errors import ObjectChanged
from storage.ranges import ByteRange
from tests.bucket.contract.place import DATA, KEY, ContractBase, Place, streamed


class VersionContract(ContractBase):
    """What every verb says about versions."""

    async def test_every_answer_names_the_same_version_of_an_unchanged_object(self, place: Place) -> None:
        written = await place.bucket.write(KEY, DATA)

        whole = await place.bucket.read(KEY, version=written.version)
        part = await place.bucket.read(KEY, ByteRange(5, 6), version=written.version)
        infos = [await place.bucket.head(KEY), *[info async for info in place.bucket.list("")]]

        assert whole.version == part.version == written.version
        assert infos == [written, written]

    async def test_an_object_that_was_replaced_is_changed_for_who_names_the_old_version(self, place: Place) -> None:
        place.put(KEY, DATA)
        first = await place.bucket.read(KEY, ByteRange(0, 512))
        place.put(KEY, DATA[::-1])

        with pytest.raises(ObjectChanged):
            await place.bucket.read(KEY, ByteRange(512, 1024), version=first.version)
        with pytest.raises(ObjectChanged):
            await place.bucket.read(KEY, version=first.version)
        with pytest.raises(ObjectChanged):
            await streamed(place.bucket, KEY, ByteRange(512, 1024), 100, first.version)

    async def test_a_shortened_object_is_changed_rather_than_truncated(self, place: Place) -> None:
        place.put(KEY, DATA)
        first = await place.bucket.head(KEY)
        place.put(KEY, b"short")

        with pytest.raises(ObjectChanged):
            await place.bucket.read(KEY, ByteRange(0, 512), version=first.version)

    async def test_quick_writes_of_one_size_all_get_versions_of_their_own(self, place: Place) -> None:
        versions = [(await place.bucket.write(KEY, b"%d" % (index % 10))).version for index in range(50)]

        assert len(set(versions)) == 50

    async def test_an_object_made_again_after_its_deletion_has_a_new_version(self, place: Place) -> None:
        first = await place.bucket.write(KEY, DATA)
        await place.bucket.delete(KEY)
        second = await place.bucket.write(KEY, DATA)

        assert second.version != first.version

    async def test_head_tells_size_and_time(self, place: Place) -> None:
        before = time.time()
        await place.bucket.write(KEY, DATA)
        after = time.time()

        info = await place.bucket.head(KEY)

        assert (info.key, info.size) == (KEY, len(DATA))
        assert before - 2 <= info.updated <= after + 2  # clocks and time stamps may be coarse
