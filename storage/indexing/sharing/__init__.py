"""Series indexes in the bucket, beside what they are made from: replicas and restarts start warm.

copies.py    takes a shared index where there is one, and puts there what was built
garbage.py   removes those of series that are gone, and of formats that nobody reads any more
"""

from storage.indexing.sharing.copies import SharedIndexes
from storage.indexing.sharing.garbage import collect_garbage

__all__ = ["SharedIndexes", "collect_garbage"]
