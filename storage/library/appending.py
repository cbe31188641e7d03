"""Files offered to a series: each is new, the same as what is there, in conflict with it, or refused with its reason.

What is there always wins. Files are read a few at a time and judged in their order, so the first of two that claim one
instance is the one that is taken.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from storage.bucket import BucketOptions
from storage.errors import InstanceUnreadable, StorageError
from storage.ingest.report import RefusedFile
from storage.ingest.sources import Place, Scratch, SkippedFile, find_places
from storage.ingest.sources.objects import is_tar
from storage.library.addresses import is_nested, is_remote, local_path, object_place
from storage.library.append_result import Appended, AppendError, AppendResult
from storage.library.describing import Addition, Naming, Refused, describe_instance
from storage.library.hints import Hints
from storage.library.new_file import BytesPlace, NewFile, Source
from storage.library.pending import Pending
from storage.library.pixels import shows_the_same
from storage.together import together

MAX_INSTANCE_BYTES = 10 * 10**9
MAX_SERIES_BYTES = 100 * 10**9
"""Both as the published library has them."""

FILES_AT_ONCE = 8
"""Files that are read at the same time: enough to hide the way to a bucket."""

ReadHeld = Callable[[str], Awaitable[bytes]]
"""Reads an instance of the series, stored or pending, by its UID."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one call of `append` asks for."""

    treat_same_pixels_as_same: bool = False
    max_instance_bytes: int = MAX_INSTANCE_BYTES
    max_series_bytes: int = MAX_SERIES_BYTES


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One file to be read."""

    name: str
    file: NewFile
    place: Place | None = None
    """None: the object at `file.source`, which is looked at when its turn comes."""
    is_remote: bool = False


class Appender:
    """Judges the files of one call; `pending` grows by what is taken."""

    def __init__(
        self,
        pending: Pending,
        naming: Naming,
        rules: Rules,
        *,
        scratch: Scratch,
        options: BucketOptions,
        read_held: ReadHeld,
    ) -> None:
        self._pending = pending
        self._naming = naming
        self._rules = rules
        self._scratch = scratch
        self._options = options
        self._read_held = read_held
        self._new: list[Appended] = []
        self._same: list[Appended] = []
        self._conflict: list[Appended] = []
        self._errors: list[AppendError] = []

    async def append(self, files: Iterable[NewFile | Source]) -> AppendResult:
        """Judge every file.

        Raises:
            ValueError: the series would become larger than allowed.
            StorageUnavailable: what is stored cannot be read, where bytes or pixels are to be compared.
        """
        batch: list[_Wanted] = []
        async for wanted in self._wanted(_once(files)):
            batch.append(wanted)
            if len(batch) == FILES_AT_ONCE:
                await self._judge_all(batch)
                batch = []
        await self._judge_all(batch)
        size = self._pending.size
        if self._new and size > self._rules.max_series_bytes:
            raise ValueError(
                f"{self._naming.key} would have {size} bytes, more than max_series_bytes={self._rules.max_series_bytes}; "
                "nothing of this append was taken"
            )
        return AppendResult(tuple(self._new), tuple(self._same), tuple(self._conflict), tuple(self._errors))

    async def _wanted(self, files: Iterable[NewFile]) -> AsyncIterator[_Wanted]:
        """Every file, those of folders and archives one by one; what the hints decide is decided here."""
        for file in files:
            try:
                if isinstance(file.source, bytes):
                    if not self._is_settled(file):
                        held = BytesPlace(file.name, file.original_path or "", file.source, time.time())
                        yield _Wanted(file.name, file, held)
                    continue
                source = os.fspath(file.source)
                if is_nested(source):
                    raise Refused("names something inside an archive: name the archive itself")
                if self._is_settled(file):
                    continue
                if is_remote(source) and not source.endswith("/") and not is_tar(source):
                    yield _Wanted(source, file, is_remote=True)
                    continue
                async for place in self._found(source, file):
                    yield _Wanted(place.name, file, place, is_remote=is_remote(source))
            except (Refused, ValueError) as error:
                self._errors.append(AppendError(file.name, str(error)))

    def _is_settled(self, file: NewFile) -> bool:
        """Whether the hints tell what becomes of a file, so that it need not be fetched. Raises Refused."""
        hints = file.hints
        if hints.size is not None and hints.size > self._rules.max_instance_bytes:
            raise Refused(self._too_large(hints.size))
        if hints == Hints():
            return False
        self._naming.check_series(hints.study_uid, hints.series_uid)
        if hints.instance_uid is None or hints.checksum is None:
            return False
        uid = self._naming.instance_key(hints.instance_uid)
        if not self._pending.holds(uid):
            return False
        is_same = self._pending.is_same(uid, hints.size, hints.checksum)
        if not is_same and (self._rules.treat_same_pixels_as_same or self._pending.has_to_be_read(uid, hints.size)):
            return False
        path = (file.original_path or file.name) if is_remote(file.source) else None
        self._note_twin(Appended(file.name, uid), is_same, path)
        return True

    async def _found(self, source: str, file: NewFile) -> AsyncIterator[Place]:
        """The files of a folder, an archive or a prefix; or the one file that a path names."""
        refused: list[RefusedFile] = []
        skipped: list[SkippedFile] = []
        path = source if is_remote(source) else local_path(source)
        count = 0
        first: Place | None = None
        async for place in find_places([path], refused, skipped, scratch=self._scratch, options=self._options):
            count += 1
            if file.hints != Hints() or file.original_path is not None:
                first = first or place
                if count > 1:
                    raise Refused("holds more than one file: hints and original_path are of one")
            else:
                yield place
        if first is not None:
            yield first
        self._errors += [AppendError(note.path, note.reason) for note in refused]
        self._errors += [AppendError(note.path, note.reason) for note in skipped]
        if not (count or refused or skipped):
            raise Refused("holds no file")

    async def _judge_all(self, batch: list[_Wanted]) -> None:
        """Files of a disk are work for one thread; the ways to a bucket are gone side by side."""
        if any(wanted.is_remote for wanted in batch):
            found = await together([asyncio.to_thread(self._described, wanted) for wanted in batch])
        else:
            found = await asyncio.to_thread(lambda: [self._described(wanted) for wanted in batch])
        for wanted, described in zip(batch, found, strict=True):
            if isinstance(described, Refused):
                self._errors.append(AppendError(wanted.name, str(described)))
            else:
                await self._judge(wanted, described)

    def _described(self, wanted: _Wanted) -> Addition | Refused:
        """Find and read one file; called in a thread."""
        file = wanted.file
        try:
            place = wanted.place
            if place is None:
                place = object_place(wanted.name, self._options)
            if place.size > self._rules.max_instance_bytes:
                return Refused(self._too_large(place.size))
            return describe_instance(
                place,
                self._naming,
                hints=file.hints,
                original_path=file.original_path or (place.name if wanted.is_remote else place.shown),
                dependencies=tuple(file.dependencies),
            )
        except Refused as refused:
            return refused
        except (StorageError, ValueError, OSError) as error:
            return Refused(str(error))

    async def _judge(self, wanted: _Wanted, addition: Addition) -> None:
        described = addition.new
        uid = described.instance_uid
        noted = Appended(wanted.name, uid)
        if not self._pending.holds(uid):
            self._pending.additions[uid] = addition
            self._new.append(noted)
            return
        is_same = self._pending.is_same(uid, described.size, described.crc32c)
        has_to_be_read = self._pending.has_to_be_read(uid, described.size)
        if not is_same and (has_to_be_read or self._rules.treat_same_pixels_as_same):
            try:
                held = await self._read_held(uid)
                offered = b"".join([chunk async for chunk in described.read()])
            except InstanceUnreadable as error:
                self._errors.append(AppendError(wanted.name, f"cannot be compared with what is stored: {error}"))
                return
            is_same = held == offered
            if not is_same and self._rules.treat_same_pixels_as_same:
                is_same = await asyncio.to_thread(shows_the_same, held, offered)
        self._note_twin(noted, is_same, described.original_path if wanted.is_remote else None)

    def _note_twin(self, noted: Appended, is_same: bool, path: str | None) -> None:
        """Only addresses that others can reach are kept at the entry, as the published library does."""
        if is_same:
            self._same.append(noted)
            return
        self._conflict.append(noted)
        if path is not None:
            self._pending.note_conflict(noted.instance_uid, path)

    def _too_large(self, size: int) -> str:
        return f"has {size} bytes, more than max_instance_bytes={self._rules.max_instance_bytes}"


def _once(files: Iterable[NewFile | Source]) -> list[NewFile]:
    """Every source once, by the first of its files; where their hints differ, none is believed."""
    if isinstance(files, (str, bytes, os.PathLike)):
        raise TypeError("append takes a list of files: [path], not path")
    kept: dict[object, NewFile] = {}
    for number, each in enumerate(files):
        file = each if isinstance(each, NewFile) else NewFile(each)
        name: object = number if isinstance(file.source, bytes) else os.fspath(file.source)
        first = kept.setdefault(name, file)
        if first.hints != file.hints:
            kept[name] = NewFile(first.source, Hints(), first.dependencies, first.original_path)
    return list(kept.values())
