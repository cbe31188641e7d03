"""A reader of one series while it is written: each answer is of the state before, of the one after, or a 503."""

import json
import struct
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Any

from storage.archive import Archive
from storage.bucket import Bucket
from storage.errors import InstanceNotFound, NotFound, SeriesNotFound, StorageError, StorageUnavailable
from storage.keys import SeriesKey
from storage.metadata_modes import Extrapolation
from tests.writing.builders import SIDE, uid_of
from tests.writing.commands import Command, Values, files_of

ROOT = "http://codweb.test/dicomweb"


class Seen(StrEnum):
    """What an answer tells of."""

    BEFORE = "before"
    AFTER = "after"
    BOTH = "both"
    """The two states do not differ in it."""
    BUSY = "503"


class Watcher:
    """One archive of its own over one bucket; looks at everything that the series holds, before or after a command."""

    def __init__(
        self, bucket: Bucket, state: Path, key: SeriesKey, command: Command, *, most_instances: int = 100
    ) -> None:
        """`most_instances`: so many are asked for in one look, the last ones: those differ most."""
        self.seen: Counter[Seen] = Counter()
        self.wrong: list[str] = []
        """Answers that none of the two states gives, and answers of the old state behind one of the new."""
        self._archive = Archive(
            bucket, state, root=ROOT, rules=Extrapolation((), ()), revalidate_seconds=0, deepen="off", own_process=False
        )
        self._key = key
        self._states = command.before, command.after
        self._files = files_of(command.before, key), files_of(command.after, key)
        self._numbers = sorted(command.before.keys() | command.after.keys())[-most_instances:]
        self._is_past = False

    async def deepen(self) -> None:
        """Let the state folder hold a deep index of what is there now; a quick one comes by itself."""
        await self._archive.shelf.get(self._key, depth="deep")

    async def close(self) -> None:
        """The bucket stays open: it is not this reader's."""
        await self._archive.deepening.close()
        await self._archive.shelf.close()
        await self._archive.catalogue.close()

    async def look(self) -> Counter[Seen]:
        """Ask for metadata, and for the file and the frame of every instance; what was seen this time."""
        seen: Counter[Seen] = Counter()
        seen[await self._metadata()] += 1
        for number in self._numbers:
            seen[await self._file(uid_of(number))] += 1
            seen[await self._frame(number)] += 1
        self.seen += seen
        return seen

    async def _metadata(self) -> Seen:
        def told(state: Values) -> object:
            return {uid_of(number): value for number, value in state.items()} or SeriesNotFound

        wanted = told(self._states[0]), told(self._states[1])
        try:
            body = await self._archive.metadata.of_series([self._key], mode="full", coding="identity", root=ROOT)
            found: object = _numbers(json.loads(b"".join(body.parts)))
        except StorageError as error:
            return self._failed("metadata", error, *wanted)
        return self._judged("metadata", found, *wanted)

    async def _file(self, uid: str) -> Seen:
        before, after = (files.get(uid, self._absence(files)) for files in self._files)
        try:
            file = await self._archive.instances.file(self._key, uid)
            found = b"".join([bytes(chunk) async for chunk in file.chunks])
        except StorageError as error:
            return self._failed(f"file of {uid}", error, before, after)
        return self._judged(f"file of {uid}", found, before, after)

    async def _frame(self, number: int) -> Seen:
        before, after = (
            struct.pack("<H", state[number]) * (SIDE * SIDE) if number in state else self._absence(state)
            for state in self._states
        )
        try:
            frames = await self._archive.frames.open(self._key, uid_of(number))
            found = bytes((await frames.read([0]))[0])
        except StorageError as error:
            return self._failed(f"frame of {number}", error, before, after)
        return self._judged(f"frame of {number}", found, before, after)

    @staticmethod
    def _absence(state: Any) -> type[NotFound]:
        return InstanceNotFound if state else SeriesNotFound

    def _failed(self, what: str, error: StorageError, before: object, after: object) -> Seen:
        if isinstance(error, StorageUnavailable):
            return Seen.BUSY
        return self._judged(what, type(error), before, after, str(error))

    def _judged(self, what: str, found: object, before: object, after: object, words: str = "") -> Seen:
        if found == before == after:
            return Seen.BOTH
        if found == after:
            self._is_past = True
            return Seen.AFTER
        if found == before:
            if self._is_past:
                self.wrong.append(f"{what}: the state before, after the one after had been seen")
            return Seen.BEFORE
        self.wrong.append(f"{what}: {words or found}")
        return Seen.BUSY


def _numbers(attributes: list[dict[str, Any]]) -> dict[str, int]:
    return {each["00080018"]["Value"][0]: each["00200013"]["Value"][0] for each in attributes}
