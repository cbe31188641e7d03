"""A whole datastore: listed once, series by series."""

from collections.abc import AsyncIterator, Callable

from storage.bucket import Bucket, ObjectInfo
from storage.checking.findings import Finding
from storage.checking.series import check_series
from storage.keys import SeriesKey, SeriesObject, parse_object_key

STUDIES = "studies/"


async def check_datastore(
    bucket: Bucket,
    *,
    prefix: str = STUDIES,
    all_bytes: bool = False,
    on_series: Callable[[SeriesKey], None] | None = None,
) -> AsyncIterator[Finding]:
    """Everything that is wrong with the series below a prefix.

    Args:
        prefix: `studies/`, or the prefix of one study.
        all_bytes: compare the checksum of every instance too; reads the whole datastore.
        on_series: called for each series when it has been checked.

    Raises:
        StorageUnavailable: the bucket does not answer.
    """
    async for key, objects in _series(bucket, prefix):
        async for finding in check_series(bucket, key, objects, all_bytes=all_bytes):
            yield finding
        if on_series is not None:
            on_series(key)


async def check_one(bucket: Bucket, key: SeriesKey, *, all_bytes: bool = False) -> AsyncIterator[Finding]:
    """Everything that is wrong with one series. Raises as `check_datastore`."""
    async for found, objects in _series(bucket, key.stem):
        if found == key:
            async for finding in check_series(bucket, key, objects, all_bytes=all_bytes):
                yield finding


async def _series(bucket: Bucket, prefix: str) -> AsyncIterator[tuple[SeriesKey, dict[SeriesObject, ObjectInfo]]]:
    """The series of the listing with their objects; a study's keys lie together, a series' own need not."""
    study_uid = ""
    found: dict[SeriesKey, dict[SeriesObject, ObjectInfo]] = {}
    async for info in bucket.list(prefix):
        parsed = parse_object_key(info.key)
        if parsed is None:
            continue
        key, kind = parsed
        if key.study_uid != study_uid:
            for item in sorted(found.items(), key=lambda each: each[0]):
                yield item
            found, study_uid = {}, key.study_uid
        found.setdefault(key, {})[kind] = info
    for item in sorted(found.items(), key=lambda each: each[0]):
        yield item
