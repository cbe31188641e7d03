"""A place of the bucket contract over the fake: a bucket of its own, and hands that go round it."""

import itertools

from storage.bucket import Bucket
from storage.bucket.gcs import GcsStore
from storage.bucket.options import BucketOptions, GcsOptions, Patience
from storage.bucket.remote.bucket import RemoteBucket
from tests.support.gcs_fake.faults import Fault
from tests.support.gcs_fake.server import GcsFake

HASTY = Patience(connect_seconds=1, read_seconds=2, attempts=3, backoff_seconds=0.01, longest_backoff_seconds=0.05)
_OTHERS = {"other/object": b"beside the prefix", "inner/": b""}
"""What lies beside; the second is a folder as web consoles make it."""
_numbers = itertools.count()


class GcsPlace:
    """Below a prefix.

    Args:
        through: address of the way to the fake, if it is not the fake's own.
    """

    def __init__(self, fake: GcsFake, *, through: str = "", patience: Patience = HASTY) -> None:
        self._fake = fake
        self._name = f"bucket-{next(_numbers)}"
        self._endpoint = through or fake.endpoint
        self._patience = patience
        fake.objects.make_bucket(self._name)
        for name, data in _OTHERS.items():
            fake.objects.put(self._name, name, data)
        self._bucket = self._open()

    @property
    def bucket(self) -> Bucket:
        return self._bucket

    def put(self, key: str, data: bytes) -> None:
        self._fake.objects.put(self._name, f"inner/{key}", data)

    def get(self, key: str) -> bytes | None:
        stored = self._fake.objects.live(self._name, f"inner/{key}")
        return None if stored is None else stored.data

    def keys(self) -> list[str]:
        names = [name for name in self._fake.objects.names(self._name) if name not in _OTHERS]
        unfinished = [f"unfinished upload {index}" for index in range(self._fake.open_sessions)]
        return [name.removeprefix("inner/") for name in names] + unfinished

    def broken(self, key: str) -> Bucket:
        quoted = key.replace("/", "%2F")
        self._fake.fail(lambda request: quoted in request.raw_path, Fault(status=403, body="no"), times=1000)
        return self._open()

    def _open(self) -> Bucket:
        options = BucketOptions(gcs=GcsOptions(endpoint=self._endpoint), patience=self._patience)
        return RemoteBucket(GcsStore.open(self._name, "inner", options), self._patience)
