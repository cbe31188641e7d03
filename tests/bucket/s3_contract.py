"""The contract of buckets as S3 keeps it, and S3's own part: inherited for each service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.bucket import ObjectInfo
from storage.bucket.options import Patience
from tests.bucket.contract import DATA, KEY, LARGE, BucketContract, Place, in_pieces
from tests.bucket.fault_contract import FaultContract
from tests.support.s3_place import S3Place

LONG = [LARGE] * 4
"""20 MiB: three parts."""


@pytest.mark.usefixtures("s3_credentials")
class S3Contract(BucketContract):
    """The contract, with what an ETag can say in the place of what it cannot."""

    endpoint: str

    def make_place(self, folder: Path) -> Place:
        return S3Place(self.endpoint)

    # A service answers some hundred requests a second: fewer examples than a folder gets.
    test_a_bucket_behaves_like_a_dictionary = settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )(given(data=st.data())(BucketContract.test_a_bucket_behaves_like_a_dictionary.hypothesis.inner_test))

    async def test_a_listing_of_many_objects_can_be_left_and_resumed(self, place: Place) -> None:
        """As many objects as a service takes in a moment; pages are in `test_s3.py`."""
        keys = sorted(f"studies/{study}/series/{series}.tar" for study in range(4) for series in range(15))
        for key in keys:
            place.put(key, b"x")
        seen: list[str] = []
        for _ in range(5):
            listing = place.bucket.list("studies/", after=seen[-1] if seen else "")
            seen += [info.key async for info in _first(13, listing)]

        assert seen == keys

    async def test_quick_writes_of_one_size_all_get_versions_of_their_own(self, place: Place) -> None:
        """An ETag is a digest of the bytes: other bytes have another version, whenever they are written."""
        versions = [(await place.bucket.write(KEY, b"%02d" % index)).version for index in range(20)]

        assert len(set(versions)) == 20

    async def test_an_object_made_again_after_its_deletion_has_a_new_version(self, place: Place) -> None:
        """With the same bytes it has the same version: whoever reads across the deletion reads the right bytes."""
        first = await place.bucket.write(KEY, DATA)
        await place.bucket.delete(KEY)
        second = await place.bucket.write(KEY, DATA[::-1])
        await place.bucket.delete(KEY)
        third = await place.bucket.write(KEY, DATA)

        assert second.version != first.version
        assert third.version == first.version

    async def test_a_long_upload_goes_in_parts_and_a_broken_one_leaves_none(self, place: Place) -> None:
        with pytest.raises(ZeroDivisionError):
            await place.bucket.upload(KEY, in_pieces(LONG, ZeroDivisionError()))
        assert place.keys() == []

        info = await place.bucket.upload(KEY, in_pieces(LONG))

        assert place.get(KEY) == b"".join(LONG)
        assert info == await place.bucket.head(KEY)
        assert info.version.endswith("-3")


@pytest.mark.usefixtures("s3_credentials")
class S3FaultContract(FaultContract):
    """Faults between codweb and the service."""

    endpoint: str

    def upstream(self) -> str:
        return self.endpoint

    def make_faulty(self, url: str, patience: Patience) -> Place:
        return S3Place(self.endpoint, through=url, patience=patience)


async def _first(count: int, listing: AsyncIterator[ObjectInfo]) -> AsyncIterator[ObjectInfo]:
    async for info in listing:
        yield info
        count -= 1
        if count == 0:
            return
