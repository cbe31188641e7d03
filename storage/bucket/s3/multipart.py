"""Large objects written in parts, in bounded memory; nothing is replaced before all parts are there."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from storage.bucket.base import StoredRange
from storage.bucket.remote.attempts import Attempts
from storage.bucket.remote.content import content_of
from storage.bucket.remote.finish import to_the_end
from storage.bucket.remote.threads import PARTS_IN_FLIGHT
from storage.bucket.s3.control import Control, Refused
from storage.bucket.s3.copying import RangeCopies
from storage.bucket.s3.etag import version_of
from storage.bucket.s3.parts import Part
from storage.errors import StorageError, StorageUnavailable

LEAVE_SECONDS = 10
"""How long a broken upload waits for parts that are on their way, before it is aborted."""

Raise = Callable[[Refused], StorageError]


class MultipartUpload:
    """One upload under way. Used as a context: left without `complete`, it is aborted.

    It holds at most `PARTS_IN_FLIGHT` parts in memory, and one more that is being gathered.
    """

    def __init__(
        self, control: Control, attempts: Attempts, copies: RangeCopies, key: str, name: str, error: Raise
    ) -> None:
        self._copies = copies
        self._control = control
        self._attempts = attempts
        self._key = key
        self._name = name
        self._error = error
        self._id = ""
        self._sending: dict[int, asyncio.Task[str]] = {}
        self._e_tags: dict[int, str] = {}
        self._is_complete = False
        self.size = 0
        """Bytes of the parts so far."""

    async def __aenter__(self) -> "MultipartUpload":
        try:
            await to_the_end(self._begin())
        except asyncio.CancelledError:
            if self._id:
                await to_the_end(self._abort())
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_complete:
            await to_the_end(self._leave())

    async def send(self, part: Part) -> None:
        """Begin to send the next part, or to let it be copied; waits while `PARTS_IN_FLIGHT` are on their way."""
        while len(self._sending) >= PARTS_IN_FLIGHT:
            await self._collect()
        number = len(self._e_tags) + len(self._sending) + 1
        place: dict[str, object] = {"UploadId": self._id, "PartNumber": number}
        if isinstance(part, StoredRange):
            self.size += part.range.length
            work = self._copies.copy(part, {"Key": self._name, **place})
        else:
            self.size += len(part)
            work = self._ask("upload_part", **place, Body=part)
        self._sending[number] = asyncio.create_task(_e_tag(work))

    async def complete(self) -> str:
        """Make the parts the object. Its version. Raises as `RangeCopies.check`."""
        while self._sending:
            await self._collect()
        await self._copies.check()
        parts = [{"PartNumber": number, "ETag": self._e_tags[number]} for number in sorted(self._e_tags)]
        request = partial(self._complete, {"Parts": parts})
        version = await self._attempts.run(f"{self._key}: not known to be written", request)
        self._is_complete = True
        return version

    async def _begin(self) -> None:
        self._id = str(
            (await self._ask("create_multipart_upload", ContentType=content_of(self._key, b"").media_type))["UploadId"]
        )

    async def _leave(self) -> None:
        sending = self._sending.values()
        if sending:  # a part that arrives after the abort would stay
            await asyncio.wait(sending, timeout=LEAVE_SECONDS)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await self._abort()

    async def _collect(self) -> None:
        done, _ = await asyncio.wait(self._sending.values(), return_when=asyncio.FIRST_COMPLETED)
        for number, task in [*self._sending.items()]:
            if task in done:
                del self._sending[number]
                self._e_tags[number] = task.result()

    async def _complete(self, parts: dict[str, Any]) -> str:
        try:
            answer = await self._control.ask(
                "complete_multipart_upload", Key=self._name, UploadId=self._id, MultipartUpload=parts
            )
        except Refused as refused:
            if refused.refusal.code == "NoSuchUpload":  # an attempt before this one may have been heard
                return await self._found()
            raise self._error(refused) from refused
        if not answer.get("ETag"):  # so Ceph 16 answers the first time; it is done all the same
            return await self._found()
        return version_of(answer["ETag"])

    async def _found(self) -> str:
        """The version of the object, which must be the sum of our parts. Raises StorageUnavailable."""
        expected = _joined([self._e_tags[number] for number in sorted(self._e_tags)])
        version = version_of((await self._ask("head_object")).get("ETag"))
        if version != expected:
            raise StorageUnavailable(f"{self._key}: the store has lost the upload, or another has replaced its object")
        return version

    async def _abort(self) -> None:
        """What cannot be aborted is for the bucket's lifecycle rule."""
        try:
            await self._control.ask("abort_multipart_upload", Key=self._name, UploadId=self._id)
        except (Refused, StorageError):
            pass  # the failure that led here is the one to tell

    async def _ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        async def attempt() -> dict[str, Any]:
            try:
                return await self._control.ask(verb, Key=self._name, **arguments)
            except Refused as refused:
                raise self._error(refused) from refused

        return await self._attempts.run(f"{self._key}: uploading", attempt)


async def _e_tag(work: Awaitable[dict[str, Any]]) -> str:
    return str((await work)["ETag"])


def _joined(e_tags: list[str]) -> str:
    """The tag of an object made of parts with these tags; differs where a service encrypts (then: not known)."""
    try:
        digests = b"".join(bytes.fromhex(e_tag.strip('"')) for e_tag in e_tags)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(e_tags)}"
