"""Objects of a bucket as places, and the members of plain tars among them, read by ranges of one version."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from storage.bucket import Bucket, BucketOptions, ObjectInfo
from storage.errors import NotFound, ObjectChanged, ObjectTruncated, StorageError
from storage.ingest.sources.archives.archive import inner_complaint
from storage.ingest.sources.archives.entry import ArchiveRefused, Left
from storage.ingest.sources.archives.tar import tar_entries
from storage.ingest.sources.background import Background, background
from storage.ingest.sources.folders import is_beside_series
from storage.ingest.sources.form import HEAD_BYTES
from storage.ingest.sources.open_source import CHUNK_BYTES, FIRST_READ_BYTES, OpenSource, SourceChanged
from storage.ingest.sources.place import Notes, Place, member_path, printable
from storage.ranges import ByteRange

_OTHER_ARCHIVES = (".zip", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".tar.zst")
"""In a bucket archives are told by name: to look into every object would be a request for each."""

HELD_BYTES = 8 << 20
"""How much of the beginning of an open object is kept."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Bytes [start, start + size) of one version of an object."""

    url: str
    """Of the bucket, as `open_bucket` takes it."""
    options: BucketOptions
    key: str
    version: str
    object_size: int
    shown: str
    start: int
    size: int
    mtime: float
    member: str = ""
    """Its name inside the object, if that is a tar."""

    @property
    def name(self) -> str:
        return printable("/".join(filter(None, (self.url.removesuffix("/"), self.key, self.member))))

    @property
    def stamp(self) -> str:
        return f"{self.version}-{self.object_size:x}+{self.start:x}"

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        loop = background()
        try:
            bucket = loop.bucket(self.url, self.options)
        except ValueError as error:
            raise OSError(str(error)) from error
        with closing(_ObjectContent(loop, bucket, self)) as content:
            yield OpenSource(content, size=self.size, mtime=self.mtime)


def is_tar(key: str) -> bool:
    """Whether an object is taken for a tar, so that `object_places` asks the bucket for headers, and waits."""
    return key.lower().endswith(".tar")


def object_places(url: str, options: BucketOptions, info: ObjectInfo, shown: str, notes: Notes) -> Iterator[Place]:
    """One listed object, or if it is a tar its members."""
    place = ObjectPlace(
        url, options, info.key, info.version, info.size, printable(shown), 0, info.size, mtime=info.updated
    )
    folded = info.key.lower()
    if is_beside_series(f"/{info.key}"):
        notes.skip(place.name, "kept beside a COD series: it holds no instance")
    elif folded.rsplit("/", 1)[-1] == "dicomdir":
        notes.skip(place.name, "a DICOMDIR: it lists other files and holds no instance")
    elif folded.endswith(_OTHER_ARCHIVES):
        notes.refuse(place.name, "an archive in a bucket: copy it to a disk first (a plain tar is read where it is)")
    elif is_tar(info.key):
        yield from _tar_places(place, notes)
    else:
        yield place


def _tar_places(tar: ObjectPlace, notes: Notes) -> Iterator[Place]:
    """The members of a tar, found by one request or two for each."""
    try:
        with tar.open() as source:
            reads = _ReadAhead(source)
            for entry in tar_entries(reads.read, source.size):
                inner = member_path(entry.name)
                if isinstance(entry, Left):
                    complaint: Left | None = entry
                else:
                    head = reads.read(entry.start, min(entry.start + HEAD_BYTES, entry.stop))
                    complaint = inner_complaint(entry.name, head)
                if complaint is not None:
                    note = notes.skip if complaint.holds_nothing else notes.refuse
                    note(f"{tar.name}/{inner}", complaint.reason)
                elif not isinstance(entry, Left):
                    mtime = tar.mtime if entry.mtime is None else entry.mtime
                    yield ObjectPlace(
                        tar.url, tar.options, tar.key, tar.version, tar.object_size, f"{tar.shown}/{inner}",
                        entry.start, entry.size, mtime, inner,
                    )  # fmt: skip
    except ArchiveRefused as refusal:
        notes.refuse(tar.name, f"an archive: {refusal}")
    except SourceChanged:
        notes.refuse(tar.name, "changed while it was being read")
    except (StorageError, OSError) as error:
        notes.refuse(tar.name, f"cannot be read: {error}")


class _ReadAhead:
    """Small reads of neighbouring bytes as one request."""

    def __init__(self, source: OpenSource) -> None:
        self._source = source
        self._start = 0
        self._data = b""

    def read(self, start: int, stop: int) -> bytes:
        if not self._start <= start <= stop <= self._start + len(self._data):
            self._data = self._source.read(start, min(max(stop, start + FIRST_READ_BYTES), self._source.size))
            self._start = start
        return self._data[start - self._start : stop - self._start]


class _ObjectContent:
    """The first read brings 64 KiB, which most headers fit; the whole is one stream. Every read names the version.

    The beginning is kept as far as it was read, so that no byte of it is asked for twice.
    """

    def __init__(self, loop: Background, bucket: Bucket, place: ObjectPlace) -> None:
        self._loop = loop
        self._bucket = bucket
        self._place = place
        self._head = b""
        self._pumps: set[asyncio.Task[None]] = set()
        """Of streams that have not ended."""

    def read(self, start: int, stop: int) -> bytes:
        if start > max(len(self._head), FIRST_READ_BYTES) or stop > HELD_BYTES:
            return self._wait(self._read(start, stop))
        if stop > len(self._head):
            self._grow_head(stop)
        return self._head[start:stop]

    def chunks(self) -> Iterator[bytes]:
        """The head, if it was read already, is not asked for again."""
        place = self._place
        if place.size <= FIRST_READ_BYTES and not self._head:
            self._grow_head(place.size)
        for start in range(0, len(self._head), CHUNK_BYTES):
            yield self._head[start : start + CHUNK_BYTES]
        if len(self._head) == place.size:
            return
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=2)
        pump = self._loop.run(self._start_pump(len(self._head), queue))
        self._pumps.add(pump)
        try:
            while chunk := self._wait(queue.get()):
                yield chunk
            self._wait(_result(pump))
        finally:
            self._end(pump)

    def check(self) -> None:
        """Nothing: every byte came from the version that was listed."""

    def close(self) -> None:
        """End the streams that were left in the middle."""
        for pump in tuple(self._pumps):
            self._end(pump)

    def _end(self, pump: "asyncio.Task[None]") -> None:
        if pump in self._pumps:
            self._pumps.remove(pump)
            if self._loop.is_alive:
                self._loop.run(_stop(pump))

    def _grow_head(self, stop: int) -> None:
        known = len(self._head)
        upto = min(max(stop, FIRST_READ_BYTES), self._place.size)
        self._head += self._wait(self._read(known, upto))

    async def _read(self, start: int, stop: int) -> bytes:
        wanted = ByteRange(start, stop).shifted(self._place.start)
        return bytes((await self._bucket.read(self._place.key, wanted, version=self._place.version)).data)

    async def _start_pump(self, start: int, queue: "asyncio.Queue[bytes | None]") -> "asyncio.Task[None]":
        return asyncio.create_task(self._pump(start, queue))

    async def _pump(self, start: int, queue: "asyncio.Queue[bytes | None]") -> None:
        """In one task from its beginning to its end, as streams of buckets ask for; None ends the queue."""
        place = self._place
        wanted = ByteRange(start, place.size).shifted(place.start)
        try:
            stream = self._bucket.stream(place.key, wanted, version=place.version, chunk_bytes=CHUNK_BYTES)
            async for chunk in stream:
                await queue.put(bytes(chunk))
        except Exception:  # not when it is cancelled: then nobody takes from the queue any more
            await queue.put(None)
            raise
        await queue.put(None)

    def _wait(self, work: Coroutine[None, None, Result]) -> Result:
        """Raises SourceChanged: the object is another one, or gone; StorageUnavailable: the bucket does not answer."""
        try:
            return self._loop.run(work)
        except (ObjectChanged, ObjectTruncated, NotFound) as error:
            raise SourceChanged(f"{self._place.name} changed while it was being ingested") from error


async def _result(task: "asyncio.Task[None]") -> None:
    await task


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def listed(bucket: Bucket, name: str, *, is_folder: bool) -> AsyncIterator[tuple[ObjectInfo, str]]:
    """The objects that a source means, each with the name it is shown by.

    Args:
        name: the last part of the source's address, empty for a whole bucket: an object, else a folder, else what
            some names begin with.
        is_folder: the address ended with a slash, so that it is a folder and nothing else.
    """
    folder = f"{name}/" if name else ""
    is_found = False
    if name and not is_folder:
        try:
            info = await bucket.head(name)
        except NotFound:
            pass
        else:
            is_found = True
            yield info, name
    async for info in bucket.list(folder):
        is_found = True
        yield info, info.key.removeprefix(folder)
    if not is_found and not is_folder:
        async for info in bucket.list(name):
            yield info, info.key
