"""A search as SQL: which rows match, by bound parameters over fixed fragments.

A condition becomes SQL only where that gives exactly the answer of `storage.catalogue.matching`; every other one is
tested by `matching` itself, through the functions `document_matches` and `text_matches` that a connection offers, on
the rows that the SQL leaves over. No text of a request ever becomes part of a statement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from storage import levels
from storage.catalogue.folding import storable
from storage.catalogue.matching import FOLDED_WILDCARD_VRS, Matcher, exact_values, is_universal, text_pattern
from storage.catalogue.person_name import contained_text, group_test, key_words
from storage.catalogue.query import Condition, DateTimeInterval, Interval, Level, Query, Tag, Text
from storage.catalogue.rows import tag_names
from storage.catalogue.schema import SEVERAL

Parameter = str | int | float

_STUDY_DATE, _STUDY_TIME = 0x00080020, 0x00080030
_SOP_CLASS_UID, _TIMEZONE_OFFSET = 0x00080016, 0x00080201

_UID_COLUMNS = {0x0020000D: "study_uid", 0x0020000E: "series_uid"}
_EXACT_COLUMNS = {
    0x00100020: "patient_id",
    0x00080050: "accession_number",
    0x00200010: "study_id",
    0x00080060: "modality",
}
_DATE_COLUMNS = {_STUDY_DATE: "study_date", _STUDY_TIME: "study_time", 0x00100030: "patient_birth_date"}
_TEXT_COLUMNS = {
    0x00100010: "patient_name_folded",
    0x00100020: "patient_id_folded",
    0x00080050: "accession_number_folded",
    0x00081030: "study_description_folded",
    0x00080090: "referring_physician_folded",
    0x0008103E: "series_description_folded",
}

# Not filters: the first says how the request is encoded, the second in which zone its times are; links are ours.
_NEVER_MATCHED = frozenset({levels.SPECIFIC_CHARACTER_SET, _TIMEZONE_OFFSET, levels.RETRIEVE_URL})
_COMPUTED_OF_STUDY = frozenset(
    {
        levels.INSTANCE_AVAILABILITY,
        levels.MODALITIES_IN_STUDY,
        levels.SOP_CLASSES_IN_STUDY,
        levels.NUMBER_OF_STUDY_RELATED_SERIES,
        levels.NUMBER_OF_STUDY_RELATED_INSTANCES,
    }
)
_COMPUTED_OF_SERIES = frozenset({_SOP_CLASS_UID, levels.NUMBER_OF_SERIES_RELATED_INSTANCES})

_TRIGRAM = 3
_MOST_RUNS = 8
"""So many literal runs of a pattern are looked up in the index; the test afterwards sees all of them."""
_MOST_SPELT_OUT = 16
"""Alternatives that become question marks; a longer list is one parameter, for statements have a limit of them."""

STUDY_ORDER = "study.study_date DESC, study.study_time DESC, study.study_uid"
# `modalities` changes nothing behind the unique UID, but lets the order be read off the index `study_order`.
SERIES_ORDER = f"{STUDY_ORDER}, study.modalities, series.number, series.series_uid"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows match: the parts of a statement that follow from the query."""

    where: str
    """A condition on `study`, and on `series` joined to it if the level is not STUDY."""
    parameters: tuple[Parameter, ...]
    document_tests: tuple[Matcher, ...]
    """What `document_matches(document, n)` applies."""
    text_tests: tuple[Callable[[str], bool], ...]
    """What `text_matches(column, n)` applies to each line of a folded column."""
    warnings: tuple[str, ...]
    needs_study: bool = True
    """Whether `where` speaks of `study` at all."""

    @property
    def is_everything(self) -> bool:
        return self.where == _EVERYTHING


_EVERYTHING = "1"


def select(query: Query) -> Selection:
    """Compile a query. A search for instances is compiled to the series in which they may lie."""
    return _Compiler(query).compile()


@dataclass(slots=True)
class _Terms:
    """What is asked of one table: terms joined by AND, the parameters of their question marks in order."""

    table: str
    terms: list[str] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    """What only the document can answer."""
    intervals: list[DateTimeInterval] = field(default_factory=list)
    is_selective: bool = False
    """Whether an index leads to few rows, so that it is better to begin with them."""

    @property
    def document(self) -> str:
        return f"(SELECT document FROM {self.table}_data WHERE {self.table}_data.id = {self.table}.id)"

    def add(self, term: str, *parameters: Parameter) -> None:
        self.terms.append(term)
        self.parameters.extend(parameters)


class _Compiler:
    def __init__(self, query: Query) -> None:
        self._query = query
        self._study = _Terms("study")
        self._series = _Terms("series")
        self._document_tests: list[Matcher] = []
        self._text_tests: list[Callable[[str], bool]] = []
        self._ignored: set[Tag] = set()

    def compile(self) -> Selection:
        query = self._query
        if query.study_uid is not None:
            self._study.add("study.study_uid = ?", storable(query.study_uid))
        if query.series_uid is not None:
            self._series.add("series.series_uid = ?", storable(query.series_uid))
        for condition in query.conditions:
            table = self._table(condition.path[0])
            if table is None or is_universal(condition.match):
                continue
            if len(condition.path) > 1 or not self._add_column(table, condition):
                table.conditions.append(condition)
        for interval in query.intervals:
            table = self._table(interval.date)
            if table is not None and not self._add_interval(interval):
                table.intervals.append(interval)
        for table in (self._study, self._series):
            if table.conditions or table.intervals:
                number = self._document_test(table.conditions, table.intervals)
                table.add(f"document_matches({table.document}, ?)", number)
        return self._selection()

    def _selection(self) -> Selection:
        terms, parameters = [*self._study.terms], [*self._study.parameters, *self._series.parameters]
        within = " AND ".join(self._series.terms)
        if within and self._query.level is Level.STUDY:
            # All of them in one series of the study (an extension: PS3.18 has no series keys at this level).
            if self._series.is_selective:
                terms.append(f"study.id IN (SELECT series.study FROM series WHERE {within})")
            else:
                terms.append(f"EXISTS (SELECT 1 FROM series WHERE series.study = study.id AND {within})")
        elif within:
            terms.append(within)
        ignored = tag_names(sorted(self._ignored))
        return Selection(
            where=" AND ".join(terms) or _EVERYTHING,
            parameters=tuple(parameters),
            document_tests=tuple(self._document_tests),
            text_tests=tuple(self._text_tests),
            warnings=(f"Not matched, because the search index does not hold them: {ignored}.",) if ignored else (),
            needs_study=bool(self._study.terms),
        )

    def _table(self, tag: Tag) -> _Terms | None:
        """Where a match key is applied; None when it is not, which is noted if the caller cannot apply it either."""
        if tag in _NEVER_MATCHED:
            return None
        if tag in _COMPUTED_OF_STUDY:
            return self._study
        if tag in _COMPUTED_OF_SERIES:
            return self._series
        if self._query.level is Level.INSTANCE and tag in levels.INSTANCE_TAGS:
            return None  # may differ within a series though the series has one too (ImageOrientationPatient)
        level = levels.level_of(tag)
        if level is Level.STUDY:
            return self._study
        if level is Level.SERIES:
            return self._series
        if self._query.level is not Level.INSTANCE:
            self._ignored.add(tag)
        return None

    def _document_test(self, conditions: Sequence[Condition], intervals: Sequence[DateTimeInterval] = ()) -> int:
        self._document_tests.append(Matcher(conditions, intervals, fuzzy=self._query.fuzzy))
        return len(self._document_tests) - 1

    def _add_column(self, table: _Terms, condition: Condition) -> bool:
        """Add what columns answer as `matching` would; False leaves the condition to the document."""
        tag, match = condition.path[0], condition.match
        values = exact_values(match)
        if values is not None and tag in _UID_COLUMNS:
            _add_list(table, f"{table.table}.{_UID_COLUMNS[tag]}", values)
            table.is_selective = True
            return True
        if values is not None and tag in _EXACT_COLUMNS:
            column = f"{table.table}.{_EXACT_COLUMNS[tag]}"
            _add_list(table, column, [*values, SEVERAL])
            number = self._document_test([condition])
            table.add(f"({column} <> ? OR document_matches({table.document}, ?))", SEVERAL, number)
            return True
        if values is not None and tag == levels.MODALITIES_IN_STUDY and len(values) <= _MOST_SPELT_OUT:
            terms = " OR ".join(["instr(study.modalities, ?) > 0"] * len(values))
            table.add(f"({terms})", *(f"\\{storable(value)}\\" for value in values))
            return all("\\" not in value for value in values)
        if isinstance(match, Interval) and tag in _DATE_COLUMNS and condition.vr in ("DA", "TM"):
            _add_range(table, f"{table.table}.{_DATE_COLUMNS[tag]}", match.low, match.high)
            return True
        if isinstance(match, Text) and tag in _TEXT_COLUMNS:
            return self._add_text(table, _TEXT_COLUMNS[tag], condition.vr, match)
        return False

    def _add_text(self, table: _Terms, column: str, vr: str, match: Text) -> bool:
        """Look the literal runs up in the trigram index, and test what is found unless that is proof already."""
        if vr == "PN" and "=" not in match.pattern:
            runs = key_words(match.pattern, is_wildcard=match.is_wildcard)
            test = group_test(match.pattern, is_wildcard=match.is_wildcard, fuzzy=self._query.fuzzy)
            proof = contained_text(match.pattern, is_wildcard=match.is_wildcard, fuzzy=self._query.fuzzy)
        elif vr in FOLDED_WILDCARD_VRS and exact_values(match) is None:
            pattern = text_pattern(vr, match.pattern, is_wildcard=True)
            runs, test, proof = [*pattern.runs], pattern.matches, pattern.infix
        else:
            return False
        if proof is not None and len(proof) < _TRIGRAM:
            table.add(f"instr({table.table}.{column}, ?) > 0", proof)
            return True
        runs = runs if proof is None else [proof]
        looked_up = sorted((run for run in runs if len(run) >= _TRIGRAM), key=len)[-_MOST_RUNS:]
        if looked_up:
            found = f"SELECT rowid FROM {table.table}_text WHERE {table.table}_text MATCH ?"
            table.add(f"{table.table}.id IN ({found})", " AND ".join(f"{column} : {_quoted(run)}" for run in looked_up))
            table.is_selective = True
        if proof is None:
            self._text_tests.append(test)
            table.add(f"text_matches({table.table}.{column}, ?)", len(self._text_tests) - 1)
        return True

    def _add_interval(self, interval: DateTimeInterval) -> bool:
        """StudyDate with StudyTime by their columns; a study of unknown time stands for its whole day."""
        if (interval.date, interval.time) != (_STUDY_DATE, _STUDY_TIME):
            return False
        low, high = interval.low, interval.high
        _add_range(self._study, "study.study_date", low and low[:8], high and high[:8])
        for bound, comparison, unknown in ((low, ">=", "235959.999999"), (high, "<=", "000000.000000")):
            if bound is not None:
                time = f"coalesce(nullif(study.study_time, ''), '{unknown}')"
                self._study.add(f"study.study_date || {time} {comparison} ?", storable(bound))
        return True


def _add_range(table: _Terms, column: str, low: str | None, high: str | None) -> None:
    """An inclusive range of a column in which nothing is the empty text."""
    # One lower bound only: of two, SQLite may take the worse one for its way into the index.
    if low is None:
        table.add(f"{column} > ''")
    else:
        table.add(f"{column} >= ?", storable(low) or " ")
    if high is not None:
        table.add(f"{column} <= ?", storable(high))


def _add_list(table: _Terms, column: str, values: Sequence[str]) -> None:
    """One of several exact values."""
    texts = [storable(value) for value in values]
    if len(texts) <= _MOST_SPELT_OUT:
        table.add(f"{column} IN ({', '.join('?' * len(texts))})", *texts)
    else:
        table.add(f"{column} IN (SELECT value FROM json_each(?))", msgspec.json.encode(texts).decode())


def _quoted(run: str) -> str:
    """A string of the full-text query language."""
    return '"' + run.replace('"', '""') + '"'
