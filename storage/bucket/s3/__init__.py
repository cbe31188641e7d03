"""Buckets of S3 services: Amazon's and those that speak like it (Ceph, MinIO, R2, moto).

obstore reads; boto3 signs in, and does what happens seldom and needs more to be said: writing, listing, deleting.
"""

from storage.bucket.s3.store import S3Store

__all__ = ["S3Store"]
