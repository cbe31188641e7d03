"""Buckets on the network: `RemoteBucket` is patient and doubtful, the `Store` behind it speaks one service's language."""

from storage.bucket.remote.bucket import RemoteBucket
from storage.bucket.remote.store import Answer, Condition, Store

__all__ = ["Answer", "Condition", "RemoteBucket", "Store"]
