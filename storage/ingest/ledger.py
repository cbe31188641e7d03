"""Which files were read before, and what was in them: so that a repeated ingest opens none of them again.

A row is a hint and nothing more: a file counts as stored only if metadata.json of its series says so today. Losing the
ledger costs time. It lies in the state folder of the datastore, as everything that is derived from one.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

from storage.ingest.sources import Place
from storage.keys import SeriesKey

FILE_NAME = "ingest.sqlite"

FORMAT = 1
"""Changes whenever an older ledger must not be believed: when other files are refused, for example."""

WRITE_ROWS = 4096
"""Rows that wait for being written together; so many files are read again after a crash."""

BUSY_SECONDS = 10.0
"""How long another ingest into the same datastore is waited for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was in a file when it was read."""

    series: SeriesKey
    instance_uid: str
    crc32c: int


@dataclass(frozen=True, slots=True)
class SeenRefused:
    """Why a file was refused when it was read."""

    reason: str


Row = Seen | SeenRefused

_Row = tuple[bytes, bytes, str, str, str, int, str | None]
"""As the table has it; without a reason none of the others is NULL."""


class Ledger:
    """Rows by place; a context. What goes wrong with it never stops an ingest: then it knows nothing."""

    def __init__(self, path: Path, *, is_believed: bool = True) -> None:
        """Open nothing yet.

        Args:
            is_believed: False: files are remembered, and none is known.
        """
        self._path = path
        self._is_believed = is_believed
        self._waiting: list[tuple[object, ...]] = []
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> "Ledger":
        try:
            self._connection = self._open()
        except sqlite3.Error:  # damaged, or of another format: made anew
            with suppress(sqlite3.Error, OSError):
                self._path.unlink(missing_ok=True)
                self._connection = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def look_up(self, places: Sequence[Place]) -> Mapping[int, Row]:
        """What is known of places, by their position in the sequence; those that changed since are unknown."""
        keys = {_place_key(place): number for number, place in enumerate(places)}
        found: dict[int, Row] = {}
        marks = ",".join("?" * len(keys))
        rows = self._read(f"SELECT * FROM seen WHERE place IN ({marks})", tuple(keys))
        for key, state, study_uid, series_uid, instance_uid, crc32c, reason in rows:
            number = keys[key]
            if state != _state_key(places[number]):
                continue
            if reason is not None:
                found[number] = SeenRefused(reason)
            else:
                with suppress(ValueError):
                    found[number] = Seen(SeriesKey(study_uid, series_uid), instance_uid, crc32c)
        return found

    def remember(self, place: Place, row: Row) -> None:
        """Note what was in a file."""
        key = (_place_key(place), _state_key(place))
        if isinstance(row, Seen):
            self._waiting.append(
                (*key, row.series.study_uid, row.series.series_uid, row.instance_uid, row.crc32c, None)
            )
        else:
            self._waiting.append((*key, None, None, None, None, row.reason))
        if len(self._waiting) >= WRITE_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if self._connection is None or not waiting:
            return
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", waiting)
        except sqlite3.Error:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != FORMAT:
                connection.execute("DROP TABLE IF EXISTS seen")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.commit()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _read(self, statement: str, values: Sequence[object]) -> Iterable[_Row]:
        if self._connection is None or not self._is_believed:
            return ()
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error:
            return ()


def _place_key(place: Place) -> bytes:
    return blake2b(place.name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _state_key(place: Place) -> bytes:
    return blake2b(f"{place.size:x} {place.stamp}".encode(), digest_size=16).digest()


_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    place         BLOB PRIMARY KEY,  -- hash of its name
    state         BLOB NOT NULL,     -- hash of size and stamp: another one is another file
    study_uid     TEXT,
    series_uid    TEXT,
    instance_uid  TEXT,
    crc32c        INTEGER,
    reason        TEXT               -- instead of the four before it: why the file was refused
) WITHOUT ROWID
"""
