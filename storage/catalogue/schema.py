"""The tables of the SQLite catalogue, and how its file is opened.

The file is derived state: one that is damaged, of another version, or deleted while we run, is made anew and empty, and
the next sync fills it. Only the contents are lost, and they are in the bucket.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import StorageUnavailable

APPLICATION_ID = 0x636F6477  # "codw"
VERSION = 1
"""Raised with every change of the tables or of what their columns mean; an older file is not migrated but rebuilt."""

BUSY_SECONDS = 5.0
_CACHE_KIBIBYTES = 32 * 1024
_PAGE_BYTES = 8192
"""An answer and its document take some 2 KB together: on pages of 4 KiB nearly half would stay empty."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

SEVERAL = "\n"
"""In a column: the attribute has several values, ask the document. Sorts behind nothing and before every text."""

# `study` and `series` are narrow, so that scanning and sorting touch few pages; rows and documents lie beside them.
# Text columns end in _folded and separate values and name groups by a line feed; the others hold one exact value.
_TABLES = """
CREATE TABLE study (
    id INTEGER PRIMARY KEY,
    study_uid TEXT NOT NULL UNIQUE,
    study_date TEXT NOT NULL,
    study_time TEXT NOT NULL,
    modalities TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    study_id TEXT NOT NULL,
    patient_birth_date TEXT NOT NULL,
    patient_name_folded TEXT NOT NULL,
    patient_id_folded TEXT NOT NULL,
    accession_number_folded TEXT NOT NULL,
    study_description_folded TEXT NOT NULL,
    referring_physician_folded TEXT NOT NULL
);
CREATE UNIQUE INDEX study_order ON study (study_date DESC, study_time DESC, study_uid, modalities);
CREATE INDEX study_patient_id ON study (patient_id);
CREATE INDEX study_accession_number ON study (accession_number);
CREATE INDEX study_study_id ON study (study_id);
CREATE INDEX study_patient_birth_date ON study (patient_birth_date);
CREATE TABLE study_data (id INTEGER PRIMARY KEY, answer BLOB NOT NULL, document BLOB NOT NULL);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    place TEXT NOT NULL UNIQUE,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    study INTEGER,
    number REAL NOT NULL,
    modality TEXT NOT NULL,
    series_description_folded TEXT NOT NULL,
    metadata_version TEXT NOT NULL,
    tar_version TEXT,
    depth TEXT NOT NULL,
    is_deid INTEGER NOT NULL,
    instance_count INTEGER NOT NULL,
    problem TEXT
);
CREATE INDEX series_study ON series (study, number, series_uid, modality);
CREATE INDEX series_study_uid ON series (study_uid);
CREATE INDEX series_series_uid ON series (series_uid);
CREATE INDEX series_modality ON series (modality, study);
CREATE TABLE series_data (id INTEGER PRIMARY KEY, answer BLOB NOT NULL, document BLOB NOT NULL);

CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    studies INTEGER NOT NULL,
    series INTEGER NOT NULL,
    problems INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    cursor TEXT
);
INSERT INTO state VALUES (1, 0, 0, 0, 0, NULL);
"""

STUDY_TEXTS = (
    "patient_name_folded",
    "patient_id_folded",
    "accession_number_folded",
    "study_description_folded",
    "referring_physician_folded",
)
SERIES_TEXTS = ("series_description_folded",)


def connect(path: Path, *, query_only: bool = False) -> sqlite3.Connection:
    """Open the catalogue's file, made anew if it is absent, damaged or of another version.

    Raises: StorageUnavailable when the folder cannot be written, or another process holds the file too long.
    """
    try:
        connection = _connect_sound(path)
        if connection is None:
            with _repair_lock(path):
                connection = _connect_sound(path)  # another process may have been first
                if connection is None:
                    remove_files(path)
                    connection = _create(path)
        connection.execute(f"PRAGMA query_only = {int(query_only)}")
    except (sqlite3.Error, OSError) as error:
        raise StorageUnavailable(f"the catalogue {path} cannot be opened: {error}") from error
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is broken, rather than busy, full or interrupted."""
    # Not every sqlite3.Error has a code: those that Python raises itself do not.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def discard(path: Path, identity: tuple[int, int]) -> None:
    """Delete a damaged file, unless it has been replaced since."""
    try:
        with _repair_lock(path):
            if file_identity(path) == identity:
                remove_files(path)
    except OSError as error:
        raise StorageUnavailable(f"the damaged catalogue {path} cannot be deleted: {error}") from error


def file_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def remove_files(path: Path) -> None:
    """Delete the file, its write-ahead log and its shared memory."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect_sound(path: Path) -> sqlite3.Connection | None:
    """A connection to a file that is ours, of this version and readable at first sight; else None."""
    if not path.is_file():
        return None
    connection = _open(path)
    try:
        _tune(connection)
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application_id, version) != (APPLICATION_ID, VERSION):
            connection.close()
            return None
        for table in ("state", "study", "study_data", "series", "series_data", "study_text", "series_text"):
            connection.execute(f"SELECT rowid FROM {table} LIMIT 1").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if is_damage(error) or "no such table" in str(error):
            return None
        raise
    return connection


def _open(path: Path) -> sqlite3.Connection:
    # A connection is used by one thread, and closed by whichever thread closes the catalogue.
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _tune(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last batches, never the file
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")


def _create(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _open(path)
    try:
        _tune(connection)
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"""
            BEGIN EXCLUSIVE;
            {_TABLES}
            {_text_index("study", STUDY_TEXTS)}
            {_text_index("series", SERIES_TEXTS)}
            PRAGMA application_id = {APPLICATION_ID};
            PRAGMA user_version = {VERSION};
            COMMIT;
            """
        )
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _text_index(table: str, columns: tuple[str, ...]) -> str:
    """A trigram index over folded columns, kept by triggers as SQLite's manual says for external content."""
    names = ", ".join(columns)
    old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("old", "new"))
    changed = " OR ".join(f"old.{column} <> new.{column}" for column in columns)
    delete = f"INSERT INTO {table}_text ({table}_text, rowid, {names}) VALUES ('delete', old.id, {old});"
    insert = f"INSERT INTO {table}_text (rowid, {names}) VALUES (new.id, {new});"
    return f"""
CREATE VIRTUAL TABLE {table}_text USING fts5 (
    {names}, content = '{table}', content_rowid = 'id', tokenize = 'trigram case_sensitive 1'
);
CREATE TRIGGER {table}_text_insert AFTER INSERT ON {table} BEGIN {insert} END;
CREATE TRIGGER {table}_text_delete AFTER DELETE ON {table} BEGIN {delete} END;
CREATE TRIGGER {table}_text_update AFTER UPDATE ON {table} WHEN {changed} BEGIN {delete} {insert} END;
"""


@contextmanager
def _repair_lock(path: Path) -> Iterator[None]:
    """Only one process at a time creates or deletes the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
