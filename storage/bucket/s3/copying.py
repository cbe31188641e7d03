"""Stored ranges as parts of an upload, copied by the service; and the proof that they were the named ones.

Source: Amazon S3 API Reference, UploadPartCopy. Its condition (`x-amz-copy-source-if-match`) is one that services drop
silently, and some shorten a range that goes beyond the end: what is copied is asked for once more, when it is copied.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from storage.bucket.base import ObjectInfo, StoredRange
from storage.bucket.remote.attempts import Attempts
from storage.bucket.s3.control import Control, Refused
from storage.bucket.s3.etag import quoted
from storage.errors import ObjectChanged, ObjectTruncated, StorageError, TryAgain

PartPlace = dict[str, object]
"""Where a part goes: key, upload and number, as boto3 names them."""


class RangeCopies:
    """The copied parts of one upload.

    Args:
        bucket: its name, as the service knows it.
        prefix: before each key.
        head: describes an object by its key; raises ObjectNotFound.
        error: what a refusal means that was about a key.
    """

    def __init__(
        self,
        control: Control,
        attempts: Attempts,
        bucket: str,
        prefix: str,
        head: Callable[[str], Awaitable[ObjectInfo]],
        error: Callable[[Refused, str], StorageError],
    ) -> None:
        self._control = control
        self._attempts = attempts
        self._bucket = bucket
        self._prefix = prefix
        self._head = head
        self._error = error
        self._stops: dict[tuple[str, str], int] = {}
        """How far each object, by key and version, is copied."""

    async def copy(self, stored: StoredRange, place: PartPlace) -> dict[str, Any]:
        """Let the service copy a range, which is not empty, to a part. What it says about that part.

        Raises:
            ObjectNotFound, ObjectTruncated, ObjectChanged: of the stored range.
        """
        source = (stored.key, stored.version)
        self._stops[source] = max(stored.range.stop, self._stops.get(source, 0))

        async def attempt() -> dict[str, Any]:
            try:
                return await self._ask(stored, place, quoted(stored.version))
            except Refused as refused:
                error = self._error(refused, stored.key)
                if isinstance(error, TryAgain):
                    raise error from refused
                await self._check(stored.key, stored.version, stored.range.stop)  # says better what is wrong
                if refused.refusal.status != 412:
                    raise error from refused
            try:
                return await self._ask(stored, place, stored.version)  # Ceph before 18 compares the bare tag
            except Refused as refused:
                raise self._error(refused, stored.key) from refused

        answer = await self._attempts.run(f"{stored.key}: copying a range of it", attempt)
        result: dict[str, Any] = answer["CopyPartResult"]
        return result

    async def check(self) -> None:
        """Raise as `copy` unless every object that was copied from still is what it was to be."""
        for (key, version), stop in self._stops.items():
            await self._attempts.run(key, partial(self._check, key, version, stop))

    async def _check(self, key: str, version: str, stop: int) -> None:
        info = await self._head(key)
        if info.version != version:
            raise ObjectChanged(f"{key}: version {info.version} instead of {version}")
        if stop > info.size:
            raise ObjectTruncated(f"{key}: wanted bytes up to {stop}, it has {info.size}")

    async def _ask(self, stored: StoredRange, place: PartPlace, tag: str) -> dict[str, Any]:
        return await self._control.ask(
            "upload_part_copy",
            **place,
            CopySource={"Bucket": self._bucket, "Key": self._prefix + stored.key},
            CopySourceIfMatch=tag,
            CopySourceRange=f"bytes={stored.range.start}-{stored.range.stop - 1}",
        )
