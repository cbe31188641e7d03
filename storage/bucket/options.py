"""How to reach a bucket and how patient to be with it: plain values, handed from the settings to every process."""

from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where an S3 service is and who asks. Credentials come from boto3's own chain (environment, profile, SSO, role)."""

    endpoint: str = ""
    """Address of a service that is not Amazon's, e.g. https://ceph.example.org; http only if the address says so.

    Empty: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon's.
    """
    region: str = ""
    """Empty: as AWS_REGION or the AWS configuration says, else us-east-1."""
    profile: str = ""
    """Profile of the AWS configuration; empty: the default one."""
    anonymous: bool = False
    """Send unsigned requests (public buckets)."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket's name goes: the path, the host name, or (auto) the path for an own endpoint."""


@dataclass(frozen=True, slots=True)
class GcsOptions:
    """Where Google Cloud Storage is and who asks. Credentials are Google's application default credentials."""

    endpoint: str = ""
    """Address of a service that is not Google's (an emulator); `STORAGE_EMULATOR_HOST` counts too."""
    project: str = ""
    """Project that pays for requests to requester-pays buckets."""
    anonymous: bool = False
    """Send no credentials (public buckets, emulators)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a store on the network, and how often to ask again."""

    connect_seconds: float = 5
    read_seconds: float = 30
    """Longest wait for an answer to begin, between two pieces of its body, and for a place among `requests`."""
    attempts: int = 4
    """Requests in all, the first one counted, before a failure that may pass is given up."""
    backoff_seconds: float = 0.1
    """Longest wait before the second attempt; doubles with each further one, up to `longest_backoff_seconds`.

    The wait itself is drawn evenly from zero to that (full jitter), so that clients that failed together do not
    come back together.
    """
    longest_backoff_seconds: float = 5
    requests: int = 64
    """Requests in flight at once, of one process; others wait their turn."""
    hedge_seconds: float = 0
    """Ask once more for a range that is not there after so long, and take whichever answer is first; 0: never."""
    idle_stream_seconds: float = 5
    """How long who reads a stream may keep a chunk before the request is given up; it is made anew for the next one."""


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """Everything that an address does not say."""

    s3: S3Options = field(default_factory=S3Options)
    gcs: GcsOptions = field(default_factory=GcsOptions)
    patience: Patience = field(default_factory=Patience)
