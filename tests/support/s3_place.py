"""A bucket of an S3 service under the contract, and boto3 as the hands that reach it without codweb."""

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from storage.bucket import Bucket
from storage.bucket.options import BucketOptions, Patience, S3Options
from storage.bucket.remote import RemoteBucket
from storage.bucket.s3 import S3Store
from storage.bucket.s3.service import reach
from storage.bucket.s3.store import LIST_PAGE

PREFIX = "data/store"
"""Where the bucket under test lies in its S3 bucket."""

QUICK = Patience(connect_seconds=2, read_seconds=5, attempts=3, backoff_seconds=0.01, longest_backoff_seconds=0.05)
"""Patience for a service on this machine."""

_names = itertools.count(1)
_clients: dict[str, Any] = {}


class S3Place:
    """An S3 bucket of its own; what lies outside of the prefix stays out of sight."""

    def __init__(
        self, endpoint: str, *, through: str = "", patience: Patience = QUICK, list_page: int = LIST_PAGE
    ) -> None:
        self.client = client(endpoint)
        self.name = f"codweb-{next(_names)}"
        self.client.create_bucket(Bucket=self.name)
        self.client.put_object(Bucket=self.name, Key="data/store.beside", Body=b"not ours")
        self.options = BucketOptions(s3=S3Options(endpoint=through or endpoint), patience=patience)
        service = replace(reach(self.name, self.options.s3, patience), session=_session())
        self._bucket = RemoteBucket(S3Store(service, PREFIX, list_page=list_page), patience)

    @property
    def bucket(self) -> Bucket:
        return self._bucket

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"{PREFIX}/{key}", Body=data)

    def get(self, key: str) -> bytes | None:
        try:
            body: bytes = self.client.get_object(Bucket=self.name, Key=f"{PREFIX}/{key}")["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return body

    def keys(self) -> list[str]:
        """Uploads that nobody finished or aborted count."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{PREFIX}/")
        keys = [str(each["Key"]) for page in pages for each in page.get("Contents", ())]
        uploads = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        keys += [str(each["Key"]) for each in uploads]
        return [key.removeprefix(f"{PREFIX}/") for key in keys]

    def broken(self, key: str) -> Bucket:
        """The same service under a bucket's name that it does not hold: every answer is a 404, and none is absence."""
        store = S3Store.open(f"{self.name}-absent", PREFIX, self.options)
        return RemoteBucket(store, self.options.patience)


@cache
def _session() -> Any:
    """One for all tests: what it has read of boto3's descriptions makes each further client ten times cheaper."""
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="testsecret", region_name="us-east-1")


def client(endpoint: str) -> Any:  # boto3 carries no types
    if endpoint not in _clients:
        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        _clients[endpoint] = _session().client("s3", endpoint_url=endpoint, config=config)
    return _clients[endpoint]
