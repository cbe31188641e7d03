"""S3 keeps the contract of buckets, and bears faults on the way: moto, a service made for tests."""

import pytest

from tests.bucket.s3_contract import S3Contract, S3FaultContract
from tests.support.moto_server import moto, s3_credentials

__all__ = ["moto", "s3_credentials"]


class TestS3OnMoto(S3Contract):
    @pytest.fixture(autouse=True)
    def _service(self, moto: str) -> None:
        self.endpoint = moto


@pytest.mark.long
class TestFaultsOnTheWayToMoto(S3FaultContract):
    @pytest.fixture(autouse=True)
    def _service(self, moto: str) -> None:
        self.endpoint = moto
