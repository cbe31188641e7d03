"""codweb over a bucket in a cloud that is this machine: S3 from `benchmarks.far_s3`, requests and bytes counted there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from benchmarks import server
from benchmarks.far_s3.process import FarStore
from benchmarks.far_s3.server import Counts
from benchmarks.server import Server

PREFIX = "archive"
"""Where the datastore lies in the bucket."""


class Missing(RuntimeError):
    """This codweb cannot do what would be measured."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a step cost the store."""

    requests: int
    bytes: int
    busiest: int
    """Most requests at one moment."""
    by_kind: dict[str, int]


def check_s3() -> None:
    """Raises Missing: this codweb reads no S3."""
    if "s3_endpoint" not in Settings.model_fields:
        raise Missing("this codweb has no S3")


def can_share() -> bool:
    """Whether indexes can be kept in the bucket."""
    return "share_indexes" in Settings.model_fields


@contextmanager
def cloud_codweb(store: FarStore, state: Path, *, deepen: str, shared: bool) -> Iterator[Server]:
    """`codweb serve` over the store."""
    variables = {
        "CODWEB_S3_ENDPOINT": store.endpoint,
        "CODWEB_S3_ANONYMOUS": "true",
        "CODWEB_S3_REGION": "us-east-1",
        **({"CODWEB_SHARE_INDEXES": "true"} if shared else {}),
    }
    address = f"s3://{store.bucket}/{PREFIX}"
    with server.codweb(address, state, server.free_port(), deepen=deepen, variables=variables) as running:
        yield running


def moved(before: Counts, after: Counts) -> Moved:
    """Between two looks at the counters."""
    kinds = {kind: count - before.by_kind.get(kind, 0) for kind, count in after.by_kind.items()}
    return Moved(
        after.requests - before.requests,
        after.bytes - before.bytes,
        after.busiest,
        {kind: count for kind, count in kinds.items() if count},
    )
