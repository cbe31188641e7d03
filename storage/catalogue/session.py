"""One thread's connection to the catalogue's file: transactions, matching functions, a time limit, honest errors."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.catalogue import schema
from storage.catalogue.rows import DocumentReader
from storage.catalogue.sql import Selection
from storage.errors import StorageUnavailable

_OPERATIONS_BETWEEN_CHECKS = 2000
"""Of SQLite's virtual machine: some 0.1 ms of scanning, or a few ms when every row is matched in Python."""


class Deadline:
    """When a search has to be done; it may be given up earlier, from another thread."""

    __slots__ = ("_seconds", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    @property
    def seconds(self) -> float:
        return self._seconds

    def give_up(self) -> None:
        self._until = 0.0

    def is_over(self) -> bool:
        return time.monotonic() >= self._until


class Session:
    """A connection that one thread uses and any thread may close."""

    def __init__(self, path: Path, *, query_only: bool) -> None:
        self._path = path
        self._query_only = query_only
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._selection: Selection | None = None
        self._readers: list[DocumentReader] = []
        self._deadline: Deadline | None = None
        self._failure: Exception | None = None

    @contextmanager
    def transaction(
        self, *, selection: Selection | None = None, deadline: Deadline | None = None
    ) -> Iterator[sqlite3.Connection]:
        """One snapshot for reading, or one change that happens wholly or not at all.

        Raises: StorageUnavailable when the deadline passes or the database fails; a damaged file is deleted.
        """
        try:
            connection = self._current()
            self._selection, self._deadline, self._failure = selection, deadline, None
            self._readers = [DocumentReader(test.tags) for test in selection.document_tests] if selection else []
            connection.execute("BEGIN" if self._query_only else "BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                self._selection = self._deadline = None
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._translated(error, deadline) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _current(self) -> sqlite3.Connection:
        """The connection, opened anew if the file is no longer the one that was opened."""
        if self._connection is not None and schema.file_identity(self._path) == self._identity:
            return self._connection
        self.close()
        connection = schema.connect(self._path, query_only=self._query_only)
        connection.create_function("document_matches", 2, self._document_matches)
        connection.create_function("text_matches", 2, self._text_matches)
        connection.set_progress_handler(self._is_over, _OPERATIONS_BETWEEN_CHECKS)
        self._connection, self._identity = connection, schema.file_identity(self._path)
        return connection

    def _is_over(self) -> bool:
        return self._deadline is not None and self._deadline.is_over()

    def _document_matches(self, document: bytes, number: int) -> bool:
        assert self._selection is not None
        try:
            return self._selection.document_tests[number].matches(self._readers[number].read(document))
        except Exception as error:
            self._failure = error
            raise

    def _text_matches(self, column: str, number: int) -> bool:
        assert self._selection is not None
        test = self._selection.text_tests[number]
        return any(test(line) for line in column.split("\n") if line)

    def _translated(self, error: sqlite3.Error, deadline: Deadline | None) -> Exception:
        if self._failure is not None:
            return self._failure
        if deadline is not None and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            return StorageUnavailable(f"search too broad: not answered within {deadline.seconds:g} s")
        if schema.is_damage(error):
            self.close()
            if self._identity is not None:
                schema.discard(self._path, self._identity)
            return StorageUnavailable("the catalogue was damaged and is being rebuilt")
        return StorageUnavailable(f"the catalogue does not answer: {error}")
