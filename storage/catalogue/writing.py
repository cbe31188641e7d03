"""Changes of the SQLite tables: series come and go, and the rows of their studies follow.

Everything here runs inside one transaction of the caller.
"""

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from storage.attributes import json_object
from storage.catalogue import rows
from storage.catalogue.base import SeriesSummary, series_place
from storage.catalogue.folding import fold
from storage.catalogue.matching import sortable, values_of
from storage.catalogue.person_name import name_groups
from storage.catalogue.query import Tag
from storage.catalogue.rows import Document
from storage.catalogue.schema import SEVERAL
from storage.keys import SeriesKey

_PUT_SERIES = """
INSERT INTO series (place, study_uid, series_uid, study, number, modality, series_description_folded,
                    metadata_version, tar_version, depth, is_deid, instance_count, problem)
VALUES (?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (place) DO UPDATE SET
    study = excluded.study, number = excluded.number, modality = excluded.modality,
    series_description_folded = excluded.series_description_folded, metadata_version = excluded.metadata_version,
    tar_version = excluded.tar_version, depth = excluded.depth, is_deid = excluded.is_deid,
    instance_count = excluded.instance_count, problem = excluded.problem
RETURNING id
"""
_PUT_STUDY = """
INSERT INTO study (study_uid, study_date, study_time, modalities, patient_id, accession_number, study_id,
                   patient_birth_date, patient_name_folded, patient_id_folded, accession_number_folded,
                   study_description_folded, referring_physician_folded)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (study_uid) DO UPDATE SET
    study_date = excluded.study_date, study_time = excluded.study_time, modalities = excluded.modalities,
    patient_id = excluded.patient_id, accession_number = excluded.accession_number, study_id = excluded.study_id,
    patient_birth_date = excluded.patient_birth_date, patient_name_folded = excluded.patient_name_folded,
    patient_id_folded = excluded.patient_id_folded, accession_number_folded = excluded.accession_number_folded,
    study_description_folded = excluded.study_description_folded,
    referring_physician_folded = excluded.referring_physician_folded
RETURNING id
"""
_COUNT = "SELECT count(*) FILTER (WHERE problem IS NULL), count(problem) FROM series WHERE study_uid = ?"


def put(connection: sqlite3.Connection, summaries: Sequence[SeriesSummary]) -> None:
    """Add or replace series."""
    studies = list(dict.fromkeys(summary.key.study_uid for summary in summaries))
    before = _counts(connection, studies)
    changed: dict[int, Document] = {}
    for summary in summaries:
        series, document = _put_series(connection, rows.checked(summary))
        changed.pop(series, None)
        if document is not None:
            changed[series] = document
    _follow(connection, studies, before, changed)


def drop(connection: sqlite3.Connection, keys: Sequence[SeriesKey]) -> None:
    """Forget series."""
    studies = list(dict.fromkeys(key.study_uid for key in keys))
    before = _counts(connection, studies)
    for key in keys:
        place = series_place(key)
        connection.execute("DELETE FROM series_data WHERE id = (SELECT id FROM series WHERE place = ?)", (place,))
        connection.execute("DELETE FROM series WHERE place = ?", (place,))
    _follow(connection, studies, before, {})


def _put_series(connection: sqlite3.Connection, summary: SeriesSummary) -> tuple[int, Document | None]:
    document = rows.series_document(summary) if summary.problem is None else None
    number = rows.number_in(document, 0x00200011) if document is not None else None
    values = (
        series_place(summary.key),
        summary.key.study_uid,
        summary.key.series_uid,
        math.inf if number is None else number,
        _exact(document or {}, 0x00080060),
        _folded(document or {}, 0x0008103E),
        summary.metadata_version,
        summary.tar_version,
        summary.depth,
        summary.is_deid,
        summary.instance_count,
        summary.problem,
    )
    ((series,),) = connection.execute(_PUT_SERIES, values).fetchall()
    if document is None:
        connection.execute("DELETE FROM series_data WHERE id = ?", (series,))
    else:
        connection.execute(
            "INSERT INTO series_data VALUES (?, x'', ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
            (series, json_object(document)),
        )
    return series, document


def _follow(
    connection: sqlite3.Connection,
    studies: Iterable[str],
    before: tuple[int, int, int],
    changed: Mapping[int, Document],
) -> None:
    """Bring the rows of studies, and the counters, up to what their series say."""
    studies = list(studies)
    for study_uid in studies:
        _follow_study(connection, study_uid, changed)
    now = _counts(connection, studies)
    connection.execute(
        "UPDATE state SET studies = studies + ?, series = series + ?, problems = problems + ?",
        tuple(after - then for after, then in zip(now, before, strict=True)),
    )


def _counts(connection: sqlite3.Connection, studies: Iterable[str]) -> tuple[int, int, int]:
    """Studies and series that can be found, and series with a problem, of some studies."""
    counts = [connection.execute(_COUNT, (study_uid,)).fetchone() for study_uid in studies]
    found = [readable for readable, _ in counts]
    return sum(readable > 0 for readable in found), sum(found), sum(problems for _, problems in counts)


def _follow_study(connection: sqlite3.Connection, study_uid: str, changed: Mapping[int, Document]) -> None:
    documents = {
        series: changed.get(series) or rows.decode(document)
        for series, document in connection.execute(
            "SELECT id, document FROM series JOIN series_data USING (id) WHERE study_uid = ?", (study_uid,)
        )
    }
    if not documents:
        connection.execute("DELETE FROM study_data WHERE id = (SELECT id FROM study WHERE study_uid = ?)", (study_uid,))
        connection.execute("DELETE FROM study WHERE study_uid = ?", (study_uid,))
        return
    document = rows.study_document(study_uid, [*documents.values()])
    encoded = json_object(document)
    stored = connection.execute(
        "SELECT id, document FROM study JOIN study_data USING (id) WHERE study_uid = ?", (study_uid,)
    ).fetchone()
    if stored is not None and stored[1] == encoded:
        study, stale = stored[0], [series for series in documents if series in changed]
    else:
        ((study,),) = connection.execute(_PUT_STUDY, _study_values(study_uid, document)).fetchall()
        connection.execute(
            "INSERT OR REPLACE INTO study_data VALUES (?, ?, ?)", (study, rows.study_row(document), encoded)
        )
        stale = [*documents]
    connection.executemany("UPDATE series SET study = ? WHERE id = ?", ((study, series) for series in stale))
    connection.executemany(
        "UPDATE series_data SET answer = ? WHERE id = ?",
        ((rows.series_row(documents[series], document), series) for series in stale),
    )


def _study_values(study_uid: str, document: Document) -> tuple[str, ...]:
    date, time = rows.moment_of(document)
    modalities = rows.texts_of(document.get(0x00080061))
    birth_date = next(iter(rows.texts_of(document.get(0x00100030))), None)
    return (
        study_uid,
        date,
        time,
        "".join(f"\\{modality}" for modality in modalities) + ("\\" if modalities else ""),
        _exact(document, 0x00100020),
        _exact(document, 0x00080050),
        _exact(document, 0x00200010),
        sortable("DA", birth_date),
        _names(document, 0x00100010),
        _folded(document, 0x00100020),
        _folded(document, 0x00080050),
        _folded(document, 0x00081030),
        _names(document, 0x00080090),
    )


def _exact(document: Document, tag: Tag) -> str:
    """The one value of an attribute; empty if there is none."""
    texts = rows.texts_of(document.get(tag))
    return SEVERAL if len(texts) > 1 else "".join(texts)


def _folded(document: Document, tag: Tag) -> str:
    """All values of a text attribute, folded, a line each."""
    return "\n".join(fold(text) for text in rows.texts_of(document.get(tag)))


def _names(document: Document, tag: Tag) -> str:
    """All component groups of a name, folded, a line each."""
    return "\n".join(group for value in values_of(document.get(tag)) for group in name_groups(value) if group)
