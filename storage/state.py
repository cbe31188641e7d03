"""The state folder: everything derived from one datastore. It may be deleted at any time and comes back by itself.

<state>/<name>-<hash of the datastore's URL>/
    datastore.txt                                   which datastore this is, for people
    catalogue.sqlite                                what searches read
    series/<xx>/<study_uid>/<series_uid>.index      series indexes (and .found beside quick ones)
    uid.key                                         key of the UID hashes of de-identified stores
    sharing.paused                                  its time tells when an index could not be put into the bucket
"""

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from storage.errors import StorageUnavailable
from storage.keys import SeriesKey

_FIRST_LOCK_WAIT_SECONDS = 0.005
_LONGEST_LOCK_WAIT_SECONDS = 0.1


class StateFolder:
    """Paths of the derived state of one datastore."""

    def __init__(self, base: Path, datastore_url: str) -> None:
        """Create the folder of `datastore_url` below `base` if it is not there.

        Raises:
            StorageUnavailable: it cannot be made, or not written to.
        """
        digest = hashlib.sha256(datastore_url.encode()).hexdigest()[:16]
        name = re.sub(r"[^0-9A-Za-z]+", "-", datastore_url.rstrip("/").rsplit("/", 1)[-1]).strip("-")[:40]
        self.path = base / f"{name or 'datastore'}-{digest}"
        note = self.path / "datastore.txt"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                note.write_text(datastore_url + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageUnavailable(f"the state folder {self.path} cannot be made: {error.strerror}") from error

    @property
    def catalogue(self) -> Path:
        return self.path / "catalogue.sqlite"

    def series_index(self, key: SeriesKey) -> Path:
        """Where the index of a series lies, whether it is there or not."""
        fan = hashlib.sha256(key.study_uid.encode()).hexdigest()[:2]
        return self.path / "series" / fan / key.study_uid / f"{key.series_uid}.index"

    def uid_key(self) -> bytes:
        """The secret of this datastore's UID hashes; made once, never leaves the state folder."""
        path = self.path / "uid.key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            pass
        temporary = path.with_name(f"uid.key.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(temporary, path)  # of several processes that start at once, one key wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        return path.read_bytes()

    @asynccontextmanager
    async def building(self, key: SeriesKey) -> AsyncIterator[None]:
        """Hold the right to build the index of a series; other processes wait.

        They ask again and again instead of waiting in the system: that would take a thread each, of the few that whoever
        holds the lock needs to go on.
        """
        path = self.series_index(key).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            wait = _FIRST_LOCK_WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _LONGEST_LOCK_WAIT_SECONDS)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)
