"""What every bucket promises, as tests: a bucket's test file subclasses `BucketContract` and says how to reach it.

Source: the docstrings of `storage/bucket/base.py`. The raw helpers of `Place` go round the bucket, so that what it
says about the store is compared with the store.
"""

from tests.bucket.contract.copying import CopyingContract
from tests.bucket.contract.listing import ListingContract
from tests.bucket.contract.model import ModelContract
from tests.bucket.contract.place import DATA, KEY, LARGE, ODD_KEYS, Place, in_pieces, listed, stored, streamed
from tests.bucket.contract.reading import ReadingContract
from tests.bucket.contract.versions import VersionContract
from tests.bucket.contract.writing import WritingContract

__all__ = ["DATA", "KEY", "LARGE", "ODD_KEYS", "BucketContract", "Place", "in_pieces", "listed", "stored", "streamed"]


class BucketContract(
    ReadingContract, VersionContract, ListingContract, WritingContract, CopyingContract, ModelContract
):
    """Inherited by one class for each bucket."""
