"""S3 keeps the contract of buckets, and bears faults on the way: Ceph's gateway, a real service (CODWEB_CEPH=1)."""

import os

import pytest

from tests.bucket.s3_contract import S3Contract, S3FaultContract
from tests.support.ceph import SKIPPED, ceph
from tests.support.moto_server import s3_credentials

__all__ = ["ceph", "s3_credentials"]

if os.environ.get("CODWEB_CEPH") != "1":
    pytest.skip(SKIPPED, allow_module_level=True)  # once, and not for each test of the contract


class TestS3OnCeph(S3Contract):
    @pytest.fixture(autouse=True)
    def _service(self, ceph: str) -> None:
        self.endpoint = ceph


class TestFaultsOnTheWayToCeph(S3FaultContract):
    @pytest.fixture(autouse=True)
    def _service(self, ceph: str) -> None:
        self.endpoint = ceph
