"""Files that stay open for a moment: a viewer reads the same tar again and again, and each answer asks for metadata.json.

Opening a file, finding out where it lies and closing it costs 15 to 40 µs; a look at inode, size and time, which tells that
it is still the same file, costs 2. After `OPEN_SECONDS` a file is opened again: a file server is made to look then, instead
of telling what it remembers. And files that nobody reads are closed, so that nothing keeps a deleted file on its disk.
"""

import asyncio
import time
from collections import OrderedDict

from storage.bucket.folder.file import OpenFile
from storage.bucket.folder.root import Root
from storage.bucket.object_key import check_key

OPEN_SECONDS = 1.0
MOST_FILES = 64


class HeldFiles:
    """Lends open files by key. For one event loop at a time; threads may read from what is lent."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._held: OrderedDict[str, _Held] = OrderedDict()
        """In the order in which they were opened."""
        self._timer: asyncio.TimerHandle | None = None

    def lend(self, key: str) -> OpenFile:
        """The file of a key as it is now; to be given back. Raises as `OpenFile`, and ValueError for what is no key.

        A link that was put in a file's place leads to another inode, so it is opened and checked.
        """
        held = self._held.get(key)
        if held is not None:
            if time.monotonic() - held.since <= OPEN_SECONDS and held.file.is_at(self._root.place(key)):
                held.file.users += 1
                return held.file
            self._drop(key)
        check_key(key)
        file = OpenFile(self._root, key)
        file.users = 2  # the reader, and this
        self._held[key] = _Held(file, time.monotonic())
        if len(self._held) > MOST_FILES:
            self._drop(next(iter(self._held)))
        self._watch()
        return file

    @staticmethod
    def give_back(file: OpenFile) -> None:
        """Say that a file is read no more; the last one closes it."""
        file.users -= 1
        if file.users == 0:
            file.close()

    def close(self) -> None:
        """Close what nobody reads; the rest is closed when it is given back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key in [*self._held]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self.give_back(self._held.pop(key).file)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if (
            self._timer is None or self._timer.when() < loop.time() - OPEN_SECONDS
        ):  # one of a loop that has ended never fires
            self._timer = loop.call_later(OPEN_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = time.monotonic()
        for key, held in [*self._held.items()]:
            if now - held.since >= OPEN_SECONDS:
                self._drop(key)
        if self._held:
            self._watch()


class _Held:
    __slots__ = ("file", "since")

    def __init__(self, file: OpenFile, since: float) -> None:
        self.file = file
        self.since = since
