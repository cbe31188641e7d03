"""Reads random tiles of a slide in S3 with highdicom, lazily, through smart_open; run in a Python that has both.

Arguments: endpoint, bucket, key, tile indices joined by commas. Prints JSON: seconds until the slide is open, seconds for
the tiles, and the SHA-256 of each. `benchmarks/requirements.txt` says what it needs.
"""

import json
import sys
from hashlib import sha256
from time import perf_counter

import boto3  # type: ignore[import-untyped]  # it has no types
import highdicom  # type: ignore[import-not-found]  # of another environment
import smart_open  # type: ignore[import-not-found]  # of another environment
from botocore import UNSIGNED  # type: ignore[import-untyped]  # it has no types
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types


def main(endpoint: str, bucket: str, key: str, indices: str) -> None:
    """Open, then read one tile after the other, without decoding any."""
    wanted = [int(index) for index in indices.split(",")]
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
    )
    begun = perf_counter()
    parameters = {"client": client, "defer_seek": True}
    with smart_open.open(f"s3://{bucket}/{key}", "rb", transport_params=parameters) as file:
        image = highdicom.imread(file, lazy_frame_retrieval=True)
        opened = perf_counter()
        print(json.dumps({"open_seconds": opened - begun}), flush=True)
        sys.stdin.readline()  # the counters are looked at meanwhile
        begun = perf_counter()
        tiles = [image.get_raw_frame(index, as_index=True) for index in wanted]
        seconds = perf_counter() - begun
    print(json.dumps({"seconds": seconds, "sha256": [sha256(tile).hexdigest() for tile in tiles]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
