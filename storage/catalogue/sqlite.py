"""The embedded catalogue: one SQLite file, many readers, one writer at a time (write-ahead log).

Searches run in a few threads of their own, each with its connection, and are broken off after a time limit. Rows of
answers are stored finished; an order by index, exact counts and bound parameters do the rest. Several processes may
open the same file.
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from storage.catalogue import rows, sql, writing
from storage.catalogue.base import KnownSeries, SeriesSummary, Status, series_place
from storage.catalogue.query import Level, Page, Query
from storage.catalogue.session import Deadline, Session
from storage.keys import SeriesKey

SEARCH_SECONDS = 5.0
READERS = 4
_NARROW_PAGE = 500
_MOST_ROWS = 2**62
"""SQLite's integers end at 2^63; a larger limit or offset means the same."""

_STUDY_TABLES = "study"
_SERIES_TABLES = "series JOIN study ON study.id = series.study"
# Everything behind the place (date, time, study, number, series), in the order of `sql.SERIES_ORDER`.
_BEHIND = """study.study_date <= ? AND (study.study_date < ? OR (study.study_date = ? AND (study.study_time < ? OR
(study.study_time = ? AND (study.study_uid > ? OR (study.study_uid = ?
AND (series.number, series.series_uid) > (?, ?)))))))"""

_Answer = TypeVar("_Answer")


class SqliteCatalogue:
    """A `Catalogue` in one file of a local disk (no network file system: the write-ahead log shares memory)."""

    def __init__(self, path: Path, *, search_seconds: float = SEARCH_SECONDS, readers: int = READERS) -> None:
        """Nothing is opened yet; the file is made at first use.

        Args:
            search_seconds: a search that takes longer is broken off with `StorageUnavailable`.
            readers: how many searches run at the same time; others wait.
        """
        self._path = path
        self._search_seconds = search_seconds
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="catalogue-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalogue-write")
        self._threads = threading.local()
        self._sessions: list[Session] = []

    async def search(self, query: Query) -> Page:
        if query.level is Level.INSTANCE:
            raise ValueError("a catalogue holds no instances: narrow the search to series")
        selection, wanted = sql.select(query), rows.wanted(query)

        def run(connection: sqlite3.Connection) -> Page:
            found, remaining = _find(connection, query, selection)
            answers = _answers(connection, query.level, found, wanted)
            return Page(answers, remaining, selection.warnings + wanted.warnings)

        return await self._read(run, selection)

    async def narrow(self, query: Query) -> AsyncIterator[list[SeriesKey]]:
        selection = sql.select(query)
        statement = (
            "SELECT study.study_date, study.study_time, study.study_uid, series.number, series.series_uid "
            f"FROM {_SERIES_TABLES} WHERE {selection.where} AND {{behind}} ORDER BY {sql.SERIES_ORDER} LIMIT ?"
        )
        last: tuple[str, str, str, float, str] | None = None
        while True:
            behind: tuple[sql.Parameter, ...] = ()
            if last is not None:
                date, time, study_uid, number, series_uid = last
                behind = (date, date, date, time, time, study_uid, study_uid, number, series_uid)
            text = statement.format(behind=_BEHIND if behind else "1")
            parameters = (*selection.parameters, *behind, _NARROW_PAGE)
            found = await self._read(_fetch_all(text, parameters), selection)
            if found:
                yield [SeriesKey(study_uid, series_uid) for _, _, study_uid, _, series_uid in found]
            if len(found) < _NARROW_PAGE:
                return
            last = found[-1]

    async def series_of_study(self, study_uid: str) -> list[SeriesKey]:
        statement = (
            "SELECT study_uid, series_uid FROM series WHERE study_uid = ? ORDER BY study IS NULL, number, series_uid"
        )
        return [SeriesKey(*uids) for uids in await self._read(_fetch_all(statement, (study_uid,)))]

    async def contains_study(self, study_uid: str) -> bool:
        return bool(await self._read(_fetch_all("SELECT 1 FROM series WHERE study_uid = ? LIMIT 1", (study_uid,))))

    async def contains_series(self, key: SeriesKey) -> bool:
        return bool(await self._read(_fetch_all("SELECT 1 FROM series WHERE place = ?", (series_place(key),))))

    async def upsert(self, summaries: Sequence[SeriesSummary]) -> None:
        await self._write(lambda connection: writing.put(connection, summaries))

    async def remove(self, keys: Sequence[SeriesKey]) -> None:
        await self._write(lambda connection: writing.drop(connection, keys))

    async def known(self, *, after: str = "", limit: int = 1000) -> list[KnownSeries]:
        statement = """
            SELECT study_uid, series_uid, metadata_version, tar_version, depth, is_deid, instance_count, problem
            FROM series WHERE place > ? ORDER BY place LIMIT ?"""
        return [
            KnownSeries(
                key=SeriesKey(study_uid, series_uid),
                metadata_version=metadata_version,
                tar_version=tar_version,
                depth=depth,
                is_deid=bool(is_deid),
                instance_count=instance_count,
                problem=problem,
            )
            for (
                study_uid, series_uid, metadata_version, tar_version, depth, is_deid, instance_count, problem
            ) in await self._read(_fetch_all(statement, (after, limit)))
        ]  # fmt: skip

    async def status(self) -> Status:
        statement = "SELECT studies, series, problems, complete, cursor FROM state"
        ((studies, series, problems, complete, cursor),) = await self._read(_fetch_all(statement, ()))
        return Status(studies, series, problems, bool(complete), cursor)

    async def begin_sync(self) -> None:
        await self._set_state("cursor = ?", "")

    async def advance_sync(self, cursor: str) -> None:
        await self._set_state("cursor = ?", cursor)

    async def finish_sync(self) -> None:
        await self._set_state("complete = 1, cursor = ?", None)

    async def close(self) -> None:
        def shut() -> None:
            self._readers.shutdown()
            self._writer.shutdown()
            for session in self._sessions:
                session.close()

        await asyncio.to_thread(shut)

    async def _set_state(self, assignments: str, cursor: str | None) -> None:
        await self._write(lambda connection: connection.execute(f"UPDATE state SET {assignments}", (cursor,)))

    async def _read(
        self, run: Callable[[sqlite3.Connection], _Answer], selection: sql.Selection | None = None
    ) -> _Answer:
        """Run in a reader's thread, on one snapshot; the search is given up when its caller is cancelled."""
        deadline = Deadline(self._search_seconds)

        def work() -> _Answer:
            with self._session(query_only=True).transaction(selection=selection, deadline=deadline) as connection:
                return run(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except asyncio.CancelledError:
            deadline.give_up()
            raise

    async def _write(self, run: Callable[[sqlite3.Connection], object]) -> None:
        """Run in the writer's thread, as one transaction."""

        def work() -> None:
            with self._session(query_only=False).transaction() as connection:
                run(connection)

        await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def _session(self, *, query_only: bool) -> Session:
        """The session of this thread; a thread belongs to the readers or to the writer."""
        session: Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = Session(self._path, query_only=query_only)
            self._sessions.append(session)
        return session


def _fetch_all(
    statement: str, parameters: Sequence[sql.Parameter]
) -> Callable[[sqlite3.Connection], list[tuple[Any, ...]]]:  # Any: the columns' types are the statement's
    return lambda connection: connection.execute(statement, parameters).fetchall()


def _find(connection: sqlite3.Connection, query: Query, selection: sql.Selection) -> tuple[list[int], int]:
    """The ids of the page, and how many matches lie behind it."""
    table, tables, order = (
        ("study", _STUDY_TABLES, sql.STUDY_ORDER)
        if query.level is Level.STUDY
        else ("series", _SERIES_TABLES, sql.SERIES_ORDER)
    )
    limit, offset = min(query.limit, _MOST_ROWS), min(query.offset, _MOST_ROWS)
    page = f"SELECT {table}.id FROM {tables} WHERE {selection.where} ORDER BY {order} LIMIT ? OFFSET ?"
    found = [one for (one,) in connection.execute(page, (*selection.parameters, limit + 1, offset))]
    if len(found) <= limit:
        return found, 0
    return found[:limit], max(0, _total(connection, query.level, selection) - offset - limit)


def _total(connection: sqlite3.Connection, level: Level, selection: sql.Selection) -> int:
    """How many rows match altogether."""
    if selection.is_everything:
        statement = f"SELECT {'studies' if level is Level.STUDY else 'series'} FROM state"
    elif level is Level.STUDY:
        statement = f"SELECT count(*) FROM {_STUDY_TABLES} WHERE {selection.where}"
    elif selection.needs_study:
        statement = f"SELECT count(*) FROM {_SERIES_TABLES} WHERE {selection.where}"
    else:
        statement = f"SELECT count(*) FROM series WHERE series.study IS NOT NULL AND {selection.where}"
    ((total,),) = connection.execute(statement, selection.parameters).fetchall()
    return int(total)


def _answers(connection: sqlite3.Connection, level: Level, found: Sequence[int], wanted: rows.Wanted) -> list[bytes]:
    """The finished rows, or ones made from the documents if more was asked than they hold."""
    table = "study" if level is Level.STUDY else "series"
    column = "answer" if wanted.is_default else "document"
    stored = _stored(connection, f"SELECT id, {column} FROM {table}_data", found)
    if wanted.is_default:
        return [stored[one] for one in found]
    if level is Level.STUDY:
        return [rows.study_row(rows.decode(stored[one]), wanted.tags) for one in found]
    statement = "SELECT series.id, document FROM series JOIN study_data ON study_data.id = series.study"
    studies = _stored(connection, statement, found, "series.id")
    return [rows.series_row(rows.decode(stored[one]), rows.decode(studies[one]), wanted.tags) for one in found]


def _stored(
    connection: sqlite3.Connection, statement: str, found: Sequence[int], column: str = "id"
) -> dict[int, bytes]:
    ids = msgspec.json.encode(found).decode()
    return dict(connection.execute(f"{statement} WHERE {column} IN (SELECT value FROM json_each(?))", (ids,)))
