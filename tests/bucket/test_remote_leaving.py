"""The end of a process that has just read from a bucket on the network."""

import subprocess
import sys

import pytest

_PROGRAM = """
import asyncio
from storage.bucket import BucketOptions, open_bucket
from storage.bucket.options import GcsOptions, Patience, S3Options
from storage.ranges import ByteRange

async def main():
    nobody = "http://127.0.0.1:9"
    options = BucketOptions(
        s3=S3Options(endpoint=nobody, anonymous=True), gcs=GcsOptions(endpoint=nobody), patience=Patience(attempts=2)
    )
    for url in ("s3://bucket/prefix", "gs://bucket/prefix"):
        bucket = open_bucket(url, options=options)
        reads = (bucket.read("key", ByteRange(0, 1)) for _ in range(20))
        await asyncio.gather(*reads, return_exceptions=True)
        await bucket.close()
    await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.long
def test_a_process_that_could_not_read_ends_by_itself_and_not_by_a_signal() -> None:
    """One alone may be lucky: without a wait, threads of obstore bring down some of them."""
    ends = [subprocess.run([sys.executable, "-c", _PROGRAM], stderr=subprocess.PIPE, timeout=60) for _ in range(8)]

    assert [(end.stderr, end.returncode) for end in ends] == [(b"", 0)] * len(ends)
