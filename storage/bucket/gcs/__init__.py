"""Google Cloud Storage as a store: metadata and small writes by Google's client, bytes by HTTP of our own.

`docs/decisions/0006-gcs-reads.md` says why there are two ways.
"""

from storage.bucket.gcs.store import GcsStore

__all__ = ["GcsStore"]
