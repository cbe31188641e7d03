"""The bucket over Google Cloud Storage keeps the contract, on a fake of the service, also when the way there is bad."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.bucket.options import Patience
from tests.bucket.contract import BucketContract, Place
from tests.bucket.fault_contract import FaultContract
from tests.support.gcs_fake import GcsFake, GcsPlace


@pytest.fixture(scope="module")
def fake() -> Iterator[GcsFake]:
    with GcsFake() as fake:
        yield fake


class TestGcsBucket(BucketContract):
    @pytest.fixture(autouse=True)
    def service(self, fake: GcsFake) -> None:
        fake.heal()
        self._fake = fake

    def make_place(self, folder: Path) -> Place:
        return GcsPlace(self._fake)


@pytest.mark.long
class TestFaultsOnTheWayToGcs(FaultContract):
    @pytest.fixture(autouse=True)
    def service(self, fake: GcsFake) -> None:
        fake.heal()
        self._fake = fake

    def upstream(self) -> str:
        return self._fake.endpoint

    def make_faulty(self, url: str, patience: Patience) -> Place:
        return GcsPlace(self._fake, through=url, patience=patience)
