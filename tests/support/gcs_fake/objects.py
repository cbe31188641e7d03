"""What the fake keeps: buckets of live objects. Replaced ones are gone, as in a bucket without versioning.

A generation names the bytes and only grows; a metageneration counts changes of metadata, from 1.
Source: https://cloud.google.com/storage/docs/metadata#generation-number
"""

import base64
import hashlib
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import google_crc32c


class Refused(Exception):
    """An answer that is not the wanted one."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Stored:
    """One generation of an object."""

    data: bytes
    generation: int
    metageneration: int = 1
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    content_type: str = "application/octet-stream"
    content_encoding: str = ""
    cache_control: str = ""
    storage_class: str = "STANDARD"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()

    @property
    def last_modified(self) -> str:
        return format_datetime(datetime.fromtimestamp(self.updated, UTC), usegmt=True)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """Source: https://cloud.google.com/storage/docs/request-preconditions."""

    generation_match: int | None = None
    """0: there must be no live object."""
    generation_not_match: int | None = None
    metageneration_match: int | None = None

    def check(self, live: Stored | None, *, is_read: bool) -> None:
        """Raise 412, or for a read 304 where "not match" fails."""
        generation = 0 if live is None else live.generation
        if self.generation_match is not None and self.generation_match != generation:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
        if self.generation_not_match is not None and self.generation_not_match == generation:
            raise Refused(304 if is_read else 412, "Not modified", "conditionNotMet")
        metageneration = 0 if live is None else live.metageneration
        if self.metageneration_match is not None and self.metageneration_match != metageneration:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")


ANY = Preconditions()


class FakeObjects:
    """Buckets and their objects; one lock, so that tests may reach in from another thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._buckets: dict[str, dict[str, Stored]] = {}
        self._generation = int(time.time() * 1_000_000)  # as the real ones look; nothing may rely on it

    def make_bucket(self, bucket: str) -> None:
        with self._lock:
            self._buckets.setdefault(bucket, {})

    def drop_bucket(self, bucket: str) -> None:
        with self._lock:
            self._buckets.pop(bucket, None)

    def names(self, bucket: str) -> list[str]:
        """In the order of their UTF-8 bytes, as listings are."""
        with self._lock:
            return sorted(self._bucket(bucket), key=str.encode)

    def live(self, bucket: str, name: str) -> Stored | None:
        with self._lock:
            return self._bucket(bucket).get(name)

    def get(self, bucket: str, name: str, generation: int | None, conditions: Preconditions = ANY) -> Stored:
        """The live object; a generation that is not live is not found."""
        with self._lock:
            live = self.live(bucket, name)
            if live is None or generation not in (None, live.generation):
                raise Refused(404, f"No such object: {bucket}/{name}", "notFound")
            conditions.check(live, is_read=True)
            return live

    def put(self, bucket: str, name: str, data: bytes, conditions: Preconditions = ANY, **properties: Any) -> Stored:
        with self._lock:
            objects = self._bucket(bucket)
            conditions.check(objects.get(name), is_read=False)
            self._generation = max(self._generation + 1, int(time.time() * 1_000_000))
            stored = Stored(data, self._generation, **properties)
            objects[name] = stored
            return stored

    def patch(
        self, bucket: str, name: str, conditions: Preconditions = ANY, **properties: Any
    ) -> Stored:  # Any: names and types are checked by the dataclass
        """Change metadata: same generation, next metageneration."""
        with self._lock:
            live = self.get(bucket, name, None)
            conditions.check(live, is_read=False)
            stored = replace(live, metageneration=live.metageneration + 1, updated=time.time(), **properties)
            self._bucket(bucket)[name] = stored
            return stored

    def delete(self, bucket: str, name: str, generation: int | None, conditions: Preconditions = ANY) -> None:
        with self._lock:
            live = self.get(bucket, name, generation)
            conditions.check(live, is_read=False)
            del self._bucket(bucket)[name]

    def _bucket(self, bucket: str) -> dict[str, Stored]:
        if bucket not in self._buckets:
            raise Refused(404, "The specified bucket does not exist.", "notFound")
        return self._buckets[bucket]
