"""The SQLite catalogue: the contract, a plain model, and what is particular to a file."""

import asyncio
import json
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.catalogue import schema, sql
from storage.catalogue.base import SeriesSummary
from storage.catalogue.query import (
    AnyOf,
    Condition,
    DateTimeInterval,
    Interval,
    Level,
    Match,
    Number,
    Query,
    Text,
    Universal,
)
from storage.catalogue.sqlite import SqliteCatalogue
from storage.errors import StorageUnavailable
from storage.keys import SeriesKey
from tests.catalogue.builders import VRS, key_is, summary
from tests.catalogue.contract import CatalogueContract, study_uids
from tests.catalogue.model import Model

STUDIES = Query(Level.STUDY)


class TestSqliteCatalogue(CatalogueContract):
    @pytest.fixture
    async def catalogue(self, tmp_path: Path) -> AsyncIterator[SqliteCatalogue]:
        catalogue = SqliteCatalogue(tmp_path / "catalogue.sqlite")
        yield catalogue
        await catalogue.close()


# Against the model

LETTERS = "aAbBéÉ%_'\"^ "
texts = st.text(LETTERS, max_size=5).map(str.strip).filter(bool)
names = st.text(LETTERS, max_size=6).map(lambda text: "^".join(part.strip() for part in text.split("^")).rstrip("^"))
names = names.filter(bool)
dates = st.sampled_from(["20231231", "20240101", "20240102", "20240103"])
times = st.sampled_from(["07", "0730", "120000", "120000.5", "235959.999999"])
VALUES: dict[int, st.SearchStrategy[Any]] = {
    0x00080020: dates,
    0x00080030: times,
    0x00080050: texts,
    0x00081030: texts,
    0x00080090: names,
    0x00100010: names,
    0x00100020: st.sampled_from(["P1", "p1", "P2"]),
    0x00100030: dates,
    0x00200010: texts,
    0x00080060: st.sampled_from(["CT", "MR", "SEG"]),
    0x00080070: texts,
    0x0008103E: texts,
    0x00200011: st.integers(-1, 3),
    0x00400244: dates,
    0x00400245: times,
}
wildcard_letters = st.text(LETTERS + "**??", min_size=1, max_size=5)


@st.composite
def summaries(draw: st.DrawFn) -> list[SeriesSummary]:
    places = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=12, unique=True))
    return [
        summary(
            f"1.{study}",
            f"1.{study}.{series}",
            draw(st.fixed_dictionaries({}, optional=VALUES)),
            instances=draw(st.integers(1, 5)),
            classes=draw(st.sampled_from([("1.2.3",), ("1.2.4",), ("1.2.3", "1.2.4")])),
            problem=draw(st.sampled_from([None, None, None, None, "unreadable"])),
        )
        for study, series in places
    ]


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    tag = draw(st.sampled_from([*VALUES, 0x0020000D, 0x0020000E, 0x00080061, 0x00080016, 0x00201206, 0x00201209]))
    vr = VRS[tag]
    choices: list[st.SearchStrategy[Match]] = [st.just(Universal())]
    if vr in ("DA", "TM"):
        ends = st.none() | (dates if vr == "DA" else st.sampled_from(["070000.000000", "120000.000000"]))
        choices = [st.builds(Interval, ends, ends)]
    elif vr == "IS":
        choices = [st.builds(Number, st.integers(-1, 4).map(float))]
    elif vr == "UI":
        known = st.sampled_from(["1.1", "1.2", "1.1.1", "1.2.0", "1.2.3", "1.2.4", "9"])
        choices = [st.builds(AnyOf, st.lists(known, min_size=1, max_size=3).map(tuple)), known.map(exact)]
    elif tag in (0x00080060, 0x00080061):
        some = st.sampled_from(["CT", "MR", "XX", "ct"])
        choices += [some.map(exact), st.builds(AnyOf, st.lists(some, min_size=1, max_size=2).map(tuple)), wildcards()]
    else:
        choices += [VALUES[tag].map(exact), VALUES[tag].map(around), wildcards()]
    return key_is(tag, draw(st.one_of(choices)))


def exact(text: str) -> Match:
    return Text(text, is_wildcard=False)


def around(text: str) -> Match:
    return Text(f"*{text}*", is_wildcard=True)


def wildcards() -> st.SearchStrategy[Match]:
    trimmed = wildcard_letters.map(lambda text: "^".join(part.strip() for part in text.split("^")).rstrip("^").strip())
    return trimmed.filter(lambda text: text.strip("*") != "").map(lambda text: Text(text, is_wildcard=True))


@st.composite
def queries(draw: st.DrawFn) -> Query:
    ends = st.none() | st.sampled_from(["20231231120000.000000", "20240101073000.000000", "20240102120000.500000"])
    intervals = st.builds(
        lambda pair, low, high: DateTimeInterval(*pair, low, high),
        st.sampled_from([(0x00080020, 0x00080030), (0x00400244, 0x00400245)]),
        ends,
        ends,
    )
    return Query(
        level=draw(st.sampled_from([Level.STUDY, Level.SERIES])),
        study_uid=draw(st.sampled_from([None, None, None, "1.1"])),
        conditions=tuple(draw(st.lists(conditions(), max_size=3))),
        intervals=tuple(draw(st.lists(intervals, max_size=1))),
        include_all=draw(st.booleans()),
        fuzzy=draw(st.booleans()),
        limit=draw(st.integers(0, 12)),
        offset=draw(st.integers(0, 4)),
    )


@pytest.mark.long
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(summaries(), st.lists(queries(), min_size=3, max_size=8), st.data())
def test_searches_answer_what_a_plain_list_answers(
    held: list[SeriesSummary], asked: list[Query], data: st.DataObject
) -> None:
    """Random studies, random queries, random changes: rows, order, pages and counts."""
    again = data.draw(st.lists(st.sampled_from(held), max_size=3))
    gone = data.draw(st.lists(st.sampled_from(held), max_size=2))

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            catalogue = SqliteCatalogue(Path(folder) / "catalogue.sqlite", readers=1)
            try:
                await catalogue.upsert(gone)
                await catalogue.upsert(held)
                await catalogue.upsert(again)
                await catalogue.remove([one.key for one in gone])
                model = Model([one for one in held if one not in gone])
                for query in asked:
                    await compare(catalogue, model, query)
            finally:
                await catalogue.close()

    asyncio.run(run())


async def compare(catalogue: SqliteCatalogue, model: Model, query: Query) -> None:
    expected = model.search(query)
    page = await catalogue.search(query)

    assert uids_of(page.rows, query.level) == expected[query.offset :][: query.limit]
    assert page.remaining == max(0, len(expected) - query.offset - query.limit)
    for row in page.rows:
        check_values(json.loads(row), model)
    narrowed = [key async for keys in catalogue.narrow(as_instance_search(query)) for key in keys]
    if query.level is Level.SERIES:
        assert [(key.study_uid, key.series_uid) for key in narrowed] == expected


def as_instance_search(query: Query) -> Query:
    return Query(Level.INSTANCE, query.study_uid, None, query.conditions, query.intervals, fuzzy=query.fuzzy)


def uids_of(rows: Sequence[bytes], level: Level) -> list[tuple[str, ...]]:
    found = [json.loads(row) for row in rows]
    tags = ("0020000D",) if level is Level.STUDY else ("0020000D", "0020000E")
    return [tuple(row[tag]["Value"][0] for tag in tags) for row in found]


def check_values(row: dict[str, Any], model: Model) -> None:
    expected = model.study_values(row["0020000D"]["Value"][0])
    if "0020000E" in row:
        key = SeriesKey(row["0020000D"]["Value"][0], row["0020000E"]["Value"][0])
        expected |= model.series_values(next(one for one in model.series if one.key == key))
    for name, attribute in row.items():
        assert list(row) == sorted(row)
        if name not in ("00080005", "00081190"):
            assert attribute.get("Value", []) == expected[int(name, 16)], name


# The file


async def test_a_catalogue_is_still_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "catalogue.sqlite"
    await filled(path)

    assert await studies_in(path) == ["1.1"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, and never was one" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: change(path, "PRAGMA user_version = 999"),
        lambda path: change(path, "PRAGMA application_id = 1"),
        lambda path: change(path, "DROP TABLE study_data"),
    ],
    ids=["not a database", "cut off", "empty", "other version", "other application", "a table is missing"],
)
async def test_a_damaged_or_foreign_file_is_made_anew(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "catalogue.sqlite"
    await filled(path)
    damage(path)

    assert await studies_in(path) == []

    await filled(path)
    assert await studies_in(path) == ["1.1"]


async def test_damage_that_a_search_meets_is_unavailable_once_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    await filled(path, count=300)
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xff" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    catalogue = SqliteCatalogue(path)

    answers: list[object] = []
    for _ in range(4):
        try:
            answers.append((await catalogue.search(Query(Level.STUDY, include_all=True))).rows)
        except StorageUnavailable:
            answers.append("unavailable")
    await catalogue.close()

    assert answers[-1] == []
    assert all(answer in ([], "unavailable") for answer in answers)


async def test_a_file_that_is_deleted_while_it_is_open_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    catalogue = SqliteCatalogue(path)
    await catalogue.upsert([summary("1.1", "1.1.1")])
    await catalogue.finish_sync()

    schema.remove_files(path)

    assert (await catalogue.search(STUDIES)).rows == []
    assert not (await catalogue.status()).complete
    await catalogue.upsert([summary("1.2", "1.2.1")])
    assert study_uids(await catalogue.search(STUDIES)) == ["1.2"]
    await catalogue.close()


async def test_a_folder_that_cannot_hold_the_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    catalogue = SqliteCatalogue(tmp_path / "file" / "catalogue.sqlite")

    with pytest.raises(StorageUnavailable):
        await catalogue.search(STUDIES)
    await catalogue.close()


async def test_another_process_may_write_while_this_one_reads(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    reader, writer = SqliteCatalogue(path), SqliteCatalogue(path)

    assert (await reader.search(STUDIES)).rows == []
    await writer.upsert([summary("1.1", "1.1.1")])
    assert study_uids(await reader.search(STUDIES)) == ["1.1"]

    await asyncio.gather(*(one.upsert([summary(f"2.{n}", "1")]) for n in range(10) for one in (reader, writer)))
    assert (await reader.status()).studies == 11
    await reader.close()
    await writer.close()


async def test_many_processes_may_create_the_file_at_once(tmp_path: Path) -> None:
    catalogues = [SqliteCatalogue(tmp_path / "catalogue.sqlite", readers=1) for _ in range(8)]

    await asyncio.gather(*(one.upsert([summary(f"1.{n}", "1")]) for n, one in enumerate(catalogues)))

    assert (await catalogues[0].status()).studies == 8
    for one in catalogues:
        await one.close()


async def test_a_batch_is_written_wholly_or_not_at_all(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "catalogue.sqlite")
    unwritable = summary("1.2", "1.2.1", version="\ud800")

    with pytest.raises(UnicodeEncodeError):
        await catalogue.upsert([summary("1.1", "1.1.1"), unwritable])

    assert (await catalogue.search(STUDIES)).rows == []
    assert (await catalogue.status()).series == 0
    await catalogue.upsert([summary("1.1", "1.1.1")])
    assert (await catalogue.status()).series == 1
    await catalogue.close()


async def test_a_search_that_takes_too_long_is_broken_off(tmp_path: Path) -> None:
    """T22: a statement timeout."""
    path = tmp_path / "catalogue.sqlite"
    await filled(path, count=3000)
    catalogue = SqliteCatalogue(path, search_seconds=0.0)

    with pytest.raises(StorageUnavailable, match="too broad"):
        await catalogue.search(Query(Level.SERIES, conditions=(key_is(0x00080070, "nobody"),)))
    await catalogue.close()


async def test_a_cancelled_search_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalogue.sqlite"
    await filled(path, count=3000)
    catalogue = SqliteCatalogue(path, readers=1, search_seconds=60)
    begun, may_go_on = threading.Event(), threading.Event()

    class Waiting:
        tags: frozenset[int] = frozenset()

        def matches(self, attributes: object) -> bool:
            begun.set()
            may_go_on.wait(10)
            return False

    selection = sql.Selection("document_matches(x'7b7d', 0)", (), (Waiting(),), (), ())  # type: ignore[arg-type]  # a stand-in
    monkeypatch.setattr(sql, "select", lambda query: selection)

    search = asyncio.create_task(catalogue.search(STUDIES))
    await asyncio.to_thread(begun.wait, 10)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    may_go_on.set()
    monkeypatch.undo()

    # The only reader is free again, though the broken-off search had thousands of rows before it.
    assert len((await catalogue.search(Query(Level.STUDY, limit=1))).rows) == 1
    await catalogue.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(Level.STUDY), "study_order"),
        (Query(Level.STUDY, conditions=(key_is(0x00080020, Interval("20240101", "20240102")),)), "study_order"),
        (Query(Level.STUDY, conditions=(key_is(0x00100020, "P1"),)), "study_patient_id"),
        (Query(Level.STUDY, conditions=(key_is(0x00080050, "A1"),)), "study_accession_number"),
        (Query(Level.STUDY, conditions=(key_is(0x0020000D, "1.1"),)), "study_uid=?"),
        (Query(Level.STUDY, conditions=(key_is(0x00100010, "*smith*"),)), "study_text"),
        (Query(Level.STUDY, conditions=(key_is(0x0020000E, "1.1.1"),)), "series_series_uid"),
        (Query(Level.SERIES, study_uid="1.1"), "series_study"),
        (Query(Level.SERIES, conditions=(key_is(0x0020000E, "1.1.1"),)), "series_series_uid"),
        (Query(Level.SERIES), "study_order"),
    ],
)
async def test_common_searches_use_their_index(tmp_path: Path, query: Query, expected: str) -> None:
    path = tmp_path / "catalogue.sqlite"
    await filled(path, count=50)
    selection = sql.select(query)
    tables, order = (
        ("study", sql.STUDY_ORDER)
        if query.level is Level.STUDY
        else ("series JOIN study ON study.id = series.study", sql.SERIES_ORDER)
    )
    connection = schema.connect(path)

    for function in ("document_matches", "text_matches"):
        connection.create_function(function, 2, lambda text, number: True)
    statement = f"SELECT study.id FROM {tables} WHERE {selection.where} ORDER BY {order} LIMIT 100"
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", selection.parameters).fetchall()
    connection.close()

    steps = "\n".join(step for *_, step in plan)
    assert expected in steps
    assert "SCAN study\n" not in steps + "\n"
    if expected == "study_order":
        assert "TEMP B-TREE" not in steps


async def filled(path: Path, count: int = 1) -> None:
    catalogue = SqliteCatalogue(path)
    await catalogue.upsert([summary(f"1.{n}", f"1.{n}.1", {0x00080070: f"Maker {n}"}) for n in range(1, count + 1)])
    await catalogue.close()


async def studies_in(path: Path) -> list[str]:
    catalogue = SqliteCatalogue(path)
    try:
        return study_uids(await catalogue.search(STUDIES))
    finally:
        await catalogue.close()


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
