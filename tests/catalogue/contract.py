"""What every catalogue must do. A test module makes one with `catalogue`, and inherits the sentences.

Sources: PS3.18 §10.6 (search), PS3.4 §C.2.2.2 (matching), reference numbers Q10–Q35 of docs/conformance.md.
"""

import json
from typing import Any

import pytest

from storage.catalogue.base import Catalogue, SeriesSummary, series_place
from storage.catalogue.query import (
    AnyOf,
    Condition,
    DateTimeInterval,
    Level,
    Number,
    Page,
    Query,
    Text,
    Universal,
)
from storage.keys import SeriesKey
from tests.catalogue.builders import CT, SEG, between, key_is, summary, uids

STUDIES = Query(Level.STUDY)
SERIES = Query(Level.SERIES)

STUDY_KEYS = {
    "00080005", "00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190", "00100010",
    "00100020", "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208",
}  # fmt: skip
SERIES_KEYS = STUDY_KEYS | {"00080060", "0020000E", "00200011", "00201209"}


def parsed(page: Page) -> list[dict[str, Any]]:
    return [json.loads(row) for row in page.rows]


def values(page: Page, tag: str) -> list[Any]:
    """The first value of an attribute in each row, None where it has none."""
    return [(row.get(tag, {}).get("Value") or [None])[0] for row in parsed(page)]


def study_uids(page: Page) -> list[str]:
    return [str(uid) for uid in values(page, "0020000D")]


def series_uids(page: Page) -> list[str]:
    return [str(uid) for uid in values(page, "0020000E")]


class CatalogueContract:
    @pytest.fixture
    def catalogue(self) -> Catalogue:
        raise NotImplementedError("the test module of a catalogue makes it")

    async def found(self, catalogue: Catalogue, *conditions: Condition, **query: Any) -> list[str]:
        """StudyInstanceUIDs of a search for studies."""
        return study_uids(await catalogue.search(Query(Level.STUDY, conditions=conditions, **query)))

    async def fill(self, catalogue: Catalogue, *values: dict[int, object]) -> None:
        """A study of one series for each: studies 1.1, 1.2, … in this order of dates, newest first."""
        await catalogue.upsert(
            [
                summary(f"1.{index}", f"1.{index}.1", {0x00080020: str(20240199 - index), **one})
                for index, one in enumerate(values, start=1)
            ]
        )

    # Rows

    async def test_an_empty_catalogue_answers_an_empty_page(self, catalogue: Catalogue) -> None:
        assert await catalogue.search(STUDIES) == Page([], 0, ())
        assert await catalogue.search(SERIES) == Page([], 0, ())

    async def test_study_row_holds_every_required_key_even_without_a_value(self, catalogue: Catalogue) -> None:
        """PS3.18 §10.6.3.3.1: type R attributes are present, empty if need be."""
        await catalogue.upsert([summary("1.1", "1.1.1")])

        (row,) = parsed(await catalogue.search(STUDIES))

        assert set(row) == STUDY_KEYS
        assert row["00100010"] == {"vr": "PN"}
        assert row["00080030"] == {"vr": "TM"}
        assert row["00081190"] == {"vr": "UR", "Value": ["codweb-root:/studies/1.1"]}
        assert row["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}

    async def test_series_row_holds_required_keys_and_those_of_its_study(self, catalogue: Catalogue) -> None:
        """PS3.18 §10.6.3.3.2, and Q26: `/series` adds the study's attributes."""
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00100020: "P1", 0x00080060: "CT"}, instances=7)])

        (row,) = parsed(await catalogue.search(SERIES))

        assert set(row) == SERIES_KEYS
        assert row["00100020"]["Value"] == ["P1"]
        assert row["00201209"] == {"vr": "IS", "Value": [7]}
        assert row["00200011"] == {"vr": "IS"}
        assert row["00081190"]["Value"] == ["codweb-root:/studies/1.1/series/1.1.1"]

    async def test_keys_of_a_row_ascend(self, catalogue: Catalogue) -> None:
        """PS3.18 §F.2.2."""
        everything = {0x00081030: "d", 0x00400244: "20240101", 0x0008103E: "s", 0x00101010: None} | {0x00100020: "P"}
        del everything[0x00101010]
        await catalogue.upsert([summary("1.1", "1.1.1", everything)])

        for level in (Level.STUDY, Level.SERIES):
            for include_all in (False, True):
                (row,) = parsed(await catalogue.search(Query(level, include_all=include_all)))
                assert list(row) == sorted(row)

    async def test_stored_values_pass_through_as_they_are(self, catalogue: Catalogue) -> None:
        stored = b'{"vr":"LO","Value":["caf\xc3\xa9 \\"\\u0041\\"",null,"x"]}'
        one = summary("1.1", "1.1.1")
        await catalogue.upsert([SeriesSummary(**{**fields(one), "attributes": {0x00081030: stored}})])

        page = await catalogue.search(STUDIES)

        assert b'"00081030":' + stored in page.rows[0]

    async def test_modalities_classes_and_counts_are_computed_over_the_series(self, catalogue: Catalogue) -> None:
        await catalogue.upsert(
            [
                summary("1.1", "1.1.1", {0x00080060: "PT"}, instances=3),
                summary("1.1", "1.1.2", {0x00080060: "CT"}, instances=4),
                summary("1.1", "1.1.3", {0x00080060: "SEG"}, instances=1, classes=(SEG, CT)),
                summary("1.1", "1.1.4", {0x00080060: "CT"}, instances=1),
            ]
        )

        (row,) = parsed(await catalogue.search(Query(Level.STUDY, include=((0x00080062,),))))

        assert row["00080061"]["Value"] == ["CT", "PT", "SEG"]
        assert row["00080062"]["Value"] == [CT, SEG]
        assert (row["00201206"]["Value"], row["00201208"]["Value"]) == ([4], [9])

    async def test_where_series_disagree_the_commonest_value_counts(self, catalogue: Catalogue) -> None:
        """Q34; equally common values: the smallest text, whatever came first."""
        for order in ((0, 1, 2, 3), (3, 2, 1, 0)):
            four = [
                summary("1.1", f"1.1.{index}", {0x00081030: description, 0x00080050: accession})
                for index, (description, accession) in enumerate([("b", "z"), ("a", "y"), ("b", "y"), (None, "z")])
            ]
            await catalogue.upsert([four[index] for index in order])

            page = await catalogue.search(STUDIES)

            assert values(page, "00081030") == ["b"]
            assert values(page, "00080050") == ["y"]
            await catalogue.remove([one.key for one in four])

    async def test_name_of_one_patient_never_meets_the_id_of_another(self, catalogue: Catalogue) -> None:
        await catalogue.upsert(
            [
                summary("1.1", "1.1.1", {0x00100020: "P1", 0x00100010: "Zoe"}),
                summary("1.1", "1.1.2", {0x00100020: "P2", 0x00100010: "Adam", 0x00100030: "19700101"}),
            ]
        )

        page = await catalogue.search(STUDIES)

        assert values(page, "00100020") == ["P1"]
        assert values(page, "00100010") == [{"Alphabetic": "Zoe"}]
        assert values(page, "00100030") == [None]

    async def test_includefield_adds_what_is_kept(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00080080: "Clinic", 0x00080070: "Maker"})])

        study = await catalogue.search(Query(Level.STUDY, include=((0x00080080,), (0x00080070,))))
        series = await catalogue.search(Query(Level.SERIES, include=((0x00080080,), (0x00080070,))))

        assert set(parsed(study)[0]) == STUDY_KEYS | {"00080080"}
        assert set(parsed(series)[0]) == SERIES_KEYS | {"00080080", "00080070"}
        assert study.warnings == series.warnings == ()

    async def test_includefield_of_a_lower_level_is_passed_over_in_silence(self, catalogue: Catalogue) -> None:
        """clients: OHIF asks for Modality at study level."""
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00080060: "CT"})])

        page = await catalogue.search(Query(Level.STUDY, include=((0x00080060,), (0x00080018,), (0x00083002,))))

        assert set(parsed(page)[0]) == STUDY_KEYS
        assert page.warnings == ()

    async def test_includefield_that_is_not_kept_is_one_warning(self, catalogue: Catalogue) -> None:
        page = await catalogue.search(Query(Level.STUDY, include=((0x00189087,), (0x00091001, 0x00091002))))

        (warning,) = page.warnings
        assert "00091001, 00189087" in warning

    async def test_include_all_is_everything_of_the_level_and_above(self, catalogue: Catalogue) -> None:
        kept: dict[int, object] = {0x00080080: "Clinic", 0x00080070: "Maker", 0x00100021: "Issuer"}
        await catalogue.upsert([summary("1.1", "1.1.1", kept)])

        study = await catalogue.search(Query(Level.STUDY, include_all=True))
        series = await catalogue.search(Query(Level.SERIES, include_all=True))

        assert set(parsed(study)[0]) == STUDY_KEYS | {"00080080", "00100021", "00080062"}
        assert set(parsed(series)[0]) == SERIES_KEYS | {"00080080", "00100021", "00080062", "00080070"}

    async def test_match_keys_are_returned(self, catalogue: Catalogue) -> None:
        """PS3.18 §10.6.3.3: every attribute that was a match key; a universal key too."""
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00080080: "Clinic", 0x00100021: "Issuer"})])

        page = await catalogue.search(
            Query(Level.STUDY, conditions=(key_is(0x00080080, "Clinic"), key_is(0x00100021, Universal())))
        )

        assert set(parsed(page)[0]) == STUDY_KEYS | {"00080080", "00100021"}

    async def test_an_attribute_that_is_no_json_becomes_a_problem_and_no_row(self, catalogue: Catalogue) -> None:
        bad = SeriesSummary(**{**fields(summary("1.1", "1.1.1")), "attributes": {0x00100020: b'{"vr":"LO","Value":['}})
        await catalogue.upsert([bad, summary("1.2", "1.2.1")])

        assert study_uids(await catalogue.search(STUDIES)) == ["1.2"]
        assert (await catalogue.status()).problems == 1

    async def test_an_absurdly_long_attribute_is_left_out(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00081030: "x" * 100_000, 0x00100020: "P"})])

        (row,) = parsed(await catalogue.search(STUDIES))

        assert "00081030" not in row
        assert row["00100020"]["Value"] == ["P"]

    # Order and pages

    async def test_studies_come_newest_first_then_by_uid(self, catalogue: Catalogue) -> None:
        """Q29."""
        moments = [
            ("20240101", "10"),
            ("20240101", "0900"),
            ("20231231", "235959.5"),
            (None, None),
            ("20240101", "0900"),
        ]
        await catalogue.upsert(
            [
                summary(f"1.{index}", f"1.{index}.1", {0x00080020: date, 0x00080030: time})
                for index, (date, time) in enumerate(moments)
            ]
        )

        assert study_uids(await catalogue.search(STUDIES)) == ["1.0", "1.1", "1.4", "1.2", "1.3"]

    async def test_series_come_by_study_then_by_number_as_a_number(self, catalogue: Catalogue) -> None:
        await catalogue.upsert(
            [summary("1.2", f"1.2.{n}", {0x00080020: "20240101", 0x00200011: n}) for n in (10, 9, 2)]
            + [summary("1.2", "1.2.none", {0x00080020: "20240101"}), summary("1.1", "1.1.1", {0x00080020: "20250101"})]
            + [summary("1.2", "1.2.also2", {0x00080020: "20240101", 0x00200011: 2})]
        )

        found = series_uids(await catalogue.search(SERIES))

        assert found == ["1.1.1", "1.2.2", "1.2.also2", "1.2.9", "1.2.10", "1.2.none"]
        assert [key.series_uid for key in await catalogue.series_of_study("1.2")] == found[1:]

    async def test_pages_neither_overlap_nor_leave_gaps(self, catalogue: Catalogue) -> None:
        """Q28: `remaining` is what lies behind the page."""
        await catalogue.upsert(
            [summary(f"1.{n % 5}", f"1.{n}", {0x00200011: n % 3, 0x00080020: "20240101"}) for n in range(23)]
        )
        whole = series_uids(await catalogue.search(SERIES))

        walked: list[str] = []
        for offset in range(0, 23, 4):
            page = await catalogue.search(Query(Level.SERIES, limit=4, offset=offset))
            walked += series_uids(page)
            assert page.remaining == max(0, 23 - offset - 4)

        assert walked == whole
        assert len({*walked}) == 23

    async def test_limit_zero_answers_nothing_and_says_how_much_there_is(self, catalogue: Catalogue) -> None:
        await self.fill(catalogue, {}, {}, {0x00100020: "P"})

        assert await catalogue.search(Query(Level.STUDY, limit=0)) == Page([], 3, ())
        assert (
            await catalogue.search(Query(Level.STUDY, limit=0, conditions=(key_is(0x00100020, "P"),)))
        ).remaining == 1

    async def test_offset_behind_the_end_answers_nothing(self, catalogue: Catalogue) -> None:
        """clients 8: pagers that get anything else there never stop."""
        await self.fill(catalogue, {}, {})

        for offset in (2, 3, 10**9, 2**80):
            assert await catalogue.search(Query(Level.STUDY, offset=offset, limit=10**9)) == Page([], 0, ())

    async def test_limit_of_astronomic_size_is_no_error(self, catalogue: Catalogue) -> None:
        """T22."""
        await self.fill(catalogue, {}, {})

        assert len((await catalogue.search(Query(Level.STUDY, limit=2**80, include_all=True))).rows) == 2

    async def test_paths_restrict_to_study_and_series(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1"), summary("1.1", "1.1.2"), summary("1.2", "1.2.1")])

        assert series_uids(await catalogue.search(Query(Level.SERIES, study_uid="1.1"))) == ["1.1.1", "1.1.2"]
        assert series_uids(await catalogue.search(Query(Level.SERIES, study_uid="1.1", series_uid="1.1.2"))) == [
            "1.1.2"
        ]
        assert series_uids(await catalogue.search(Query(Level.SERIES, study_uid="1.3"))) == []

    # Matching

    async def test_person_names_match_without_case_accents_and_trailing_components(self, catalogue: Catalogue) -> None:
        await self.fill(
            catalogue, {0x00100010: "Müller^Hans^^"}, {0x00100010: "MULLER^HANS=山田^太郎=やまだ^たろう"}, {}
        )

        for key in ("muller^hans", "MÜLLER^HANS^^^", "mu?ler*", "*HANS", "*üll*"):
            assert await self.found(catalogue, key_is(0x00100010, key)) == ["1.1", "1.2"], key
        assert await self.found(catalogue, key_is(0x00100010, "山田*")) == ["1.2"]
        assert await self.found(catalogue, key_is(0x00100010, "muller*=*太郎")) == ["1.2"]
        assert await self.found(catalogue, key_is(0x00100010, "=*太郎")) == ["1.2"]
        assert await self.found(catalogue, key_is(0x00100010, "muller")) == []

    async def test_a_wildcard_for_a_component_matches_its_absence(self, catalogue: Catalogue) -> None:
        await self.fill(catalogue, {0x00100010: "Doe"}, {0x00100010: "Doe^Jane"}, {0x00100010: "Doerr"})

        assert await self.found(catalogue, key_is(0x00100010, "Doe^*")) == ["1.1", "1.2"]
        assert await self.found(catalogue, key_is(0x00100010, "???????")) == []

    async def test_fuzzy_finds_beginnings_of_words(self, catalogue: Catalogue) -> None:
        """Q21."""
        await self.fill(catalogue, {0x00100010: "O'Neill^Mary Ann"}, {0x00100010: "Mary^Oneida"}, {0x00100010: "Smith"})

        assert await self.found(catalogue, key_is(0x00100010, "mar ann"), fuzzy=True) == ["1.1"]
        assert await self.found(catalogue, key_is(0x00100010, "one"), fuzzy=True) == ["1.2"]
        assert await self.found(catalogue, key_is(0x00100010, "*eill*"), fuzzy=True) == ["1.1"]
        assert await self.found(catalogue, key_is(0x00100010, "mar ann")) == []

    async def test_exact_values_are_trimmed_and_case_sensitive(self, catalogue: Catalogue) -> None:
        """Q13."""
        await self.fill(catalogue, {0x00100020: "Ab1"}, {0x00100020: "AB1"}, {0x00100020: " Ab1 "})

        assert await self.found(catalogue, key_is(0x00100020, "Ab1 ")) == ["1.1", "1.3"]
        assert await self.found(catalogue, key_is(0x00100020, AnyOf(("AB1", "", "zz")))) == ["1.2"]

    async def test_wildcards_in_text_ignore_case(self, catalogue: Catalogue) -> None:
        """OHIF wraps what the user types in asterisks."""
        await self.fill(catalogue, {0x00081030: "CT CHEST"}, {0x00081030: "Chest/Abdomen"}, {0x00081030: "Head"})

        assert await self.found(catalogue, key_is(0x00081030, "*chest*")) == ["1.1", "1.2"]
        assert await self.found(catalogue, key_is(0x00081030, "*/A*")) == ["1.2"]
        assert await self.found(catalogue, key_is(0x00081030, "h?ad")) == ["1.3"]
        assert await self.found(catalogue, key_is(0x00081030, "*t")) == ["1.1"]

    async def test_a_value_of_several_matches_if_any_does(self, catalogue: Catalogue) -> None:
        await self.fill(
            catalogue, {0x00100020: ["A", "B"], 0x00080060: ["CT", "PT"]}, {0x00100020: "B"}, {0x00100020: "AB"}
        )

        assert await self.found(catalogue, key_is(0x00100020, "B")) == ["1.1", "1.2"]
        assert await self.found(catalogue, key_is(0x00100020, "b*")) == ["1.1", "1.2"]
        assert await self.found(catalogue, key_is(0x00080060, "PT")) == ["1.1"]

    @pytest.mark.parametrize(
        "letters", ["%", "_", "[a]", "'", '"', "\\", "--", '" OR "', "a:b", "(", "{x}", "^", "*)", "\x00"]
    )
    async def test_characters_of_query_languages_are_letters(self, catalogue: Catalogue, letters: str) -> None:
        """T23: no character of SQL, LIKE, GLOB or the full-text language means anything."""
        description = f"ab{letters}cd"
        await self.fill(catalogue, {0x00081030: description, 0x00100010: description}, {0x00081030: "abXcd"}, {})
        literal = Text(description, is_wildcard=False)
        infix = Text(f"*b{letters.replace('*', '?')}c*", is_wildcard=True)

        for tag in (0x00081030, 0x00100010, 0x00100020, 0x00080050, 0x00080060, 0x00080061, 0x0020000D, 0x00080070):
            found = await self.found(catalogue, key_is(tag, literal))
            assert found == (["1.1"] if tag in (0x00081030, 0x00100010) else []), hex(tag)
        assert await self.found(catalogue, key_is(0x00081030, infix)) == ["1.1"]

    @pytest.mark.parametrize(
        "text", ["\ud800", "*\udfff*", "\x00\x00\x00", "*\x00abc*", "\U0010ffff" * 3, "*" + "a" * 1000]
    )
    async def test_odd_text_finds_nothing_and_breaks_nothing(self, catalogue: Catalogue, text: str) -> None:
        await self.fill(catalogue, {0x00081030: "x", 0x00100010: "y", 0x00100020: "z"})

        for tag in (0x00081030, 0x00100010, 0x00100020, 0x00080061, 0x0020000D, 0x00080020, 0x00080070):
            assert await self.found(catalogue, key_is(tag, text)) == []
        assert await self.found(catalogue, study_uid=text) == []

    async def test_uid_lists_are_taken_whole(self, catalogue: Catalogue) -> None:
        """Q16, T22: ten thousand UIDs and more."""
        await self.fill(catalogue, {}, {}, {})
        many = uids(*(f"9.{n}" for n in range(50_000)), "1.3", "1.1")

        assert await self.found(catalogue, key_is(0x0020000D, many)) == ["1.1", "1.3"]
        assert await self.found(catalogue, key_is(0x0020000E, uids("1.2.1"))) == ["1.2"]

    async def test_modalities_in_study_match_any_of_several(self, catalogue: Catalogue) -> None:
        """clients 6."""
        await self.fill(catalogue, {0x00080060: "CT"}, {0x00080060: "MR"}, {0x00080060: "CTX"}, {})

        assert await self.found(catalogue, key_is(0x00080061, "CT")) == ["1.1"]
        assert await self.found(catalogue, key_is(0x00080061, AnyOf(("CT", "MR", "XX")))) == ["1.1", "1.2"]
        assert await self.found(catalogue, key_is(0x00080061, "CT*")) == ["1.1", "1.3"]
        assert await self.found(catalogue, key_is(0x00080061, AnyOf((*(f"M{n}" for n in range(99)), "MR")))) == ["1.2"]

    async def test_date_ranges_are_inclusive_and_skip_what_has_no_date(self, catalogue: Catalogue) -> None:
        """Q17."""
        dates = ["20240103", "20240102", "2024.01.01", None, "unknown"]
        await self.fill(catalogue, *({0x00080020: date} for date in dates))

        assert await self.found(catalogue, key_is(0x00080020, between("20240101", "20240102"))) == ["1.2", "1.3"]
        assert await self.found(catalogue, key_is(0x00080020, between(None, "20240102"))) == ["1.2", "1.3"]
        assert await self.found(catalogue, key_is(0x00080020, between("20240102", None))) == ["1.1", "1.2"]
        assert await self.found(catalogue, key_is(0x00080020, between("20240103", "20240101"))) == []

    async def test_time_ranges_understand_partial_times(self, catalogue: Catalogue) -> None:
        await self.fill(catalogue, {0x00080030: "10"}, {0x00080030: "103000.25"}, {0x00080030: "11:00:00"}, {})

        assert await self.found(catalogue, key_is(0x00080030, between("100000.000000", "105959.999999"))) == [
            "1.1",
            "1.2",
        ]
        assert await self.found(catalogue, key_is(0x00080030, between("103000.250000", None))) == ["1.2", "1.3"]

    async def test_date_and_time_ranges_make_one_interval(self, catalogue: Catalogue) -> None:
        """PS3.18 §8.3.4.1.1: from the evening of the first day to the morning of the last."""
        moments = [
            ("20240103", "0700"),
            ("20240103", None),
            ("20240102", "1200"),
            ("20240101", "2100"),
            ("20240101", "07"),
        ]
        await self.fill(catalogue, *({0x00080020: date, 0x00080030: time} for date, time in moments))
        evening_to_morning = DateTimeInterval(0x00080020, 0x00080030, "20240101200000.000000", "20240103080000.000000")

        page = await catalogue.search(Query(Level.STUDY, intervals=(evening_to_morning,)))

        assert study_uids(page) == ["1.1", "1.2", "1.3", "1.4"]

    async def test_intervals_of_series_are_matched_in_the_series(self, catalogue: Catalogue) -> None:
        await self.fill(
            catalogue, {0x00400244: "20240101", 0x00400245: "12"}, {0x00400244: "20240101", 0x00400245: "14"}, {}
        )
        around_noon = DateTimeInterval(0x00400244, 0x00400245, "20240101110000.000000", "20240101130000.000000")

        assert series_uids(await catalogue.search(Query(Level.SERIES, intervals=(around_noon,)))) == ["1.1.1"]
        assert study_uids(await catalogue.search(Query(Level.STUDY, intervals=(around_noon,)))) == ["1.1"]

    async def test_numbers_are_compared_as_numbers(self, catalogue: Catalogue) -> None:
        """Q13: `1` equals `1.0` and `01`."""
        await self.fill(catalogue, {0x00200011: 1}, {0x00200011: 11}, {0x00200011: "1A"}, {})

        assert await self.found(catalogue, key_is(0x00200011, Number(1.0))) == ["1.1"]
        assert await self.found(catalogue, key_is(0x00201206, Number(1))) == ["1.1", "1.2", "1.3", "1.4"]

    async def test_series_keys_in_a_study_search_must_hold_in_one_series(self, catalogue: Catalogue) -> None:
        await catalogue.upsert(
            [
                summary("1.1", "1.1.1", {0x00080060: "CT", 0x0008103E: "thin"}),
                summary("1.1", "1.1.2", {0x00080060: "PT", 0x0008103E: "whole body"}),
                summary("1.2", "1.2.1", {0x00080060: "CT", 0x0008103E: "whole body"}),
            ]
        )

        both = (key_is(0x00080060, "CT"), key_is(0x0008103E, "*whole*"))
        assert await self.found(catalogue, *both) == ["1.2"]
        assert await self.found(catalogue, both[1], key_is(0x00080061, "CT")) == ["1.1", "1.2"]

    async def test_sop_class_finds_series_and_studies_that_hold_it(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1", classes=(CT, SEG)), summary("1.2", "1.2.1", classes=(CT,))])

        assert await self.found(catalogue, key_is(0x00080016, uids(SEG))) == ["1.1"]
        assert await self.found(catalogue, key_is(0x00080062, uids(CT))) == ["1.1", "1.2"]

    async def test_keys_of_one_sequence_must_hold_in_one_item(self, catalogue: Catalogue) -> None:
        """PS3.4 §C.2.2.2.6."""

        def item(step: str, procedure: str) -> dict[str, object]:
            return {"00400009": {"vr": "SH", "Value": [step]}, "00401001": {"vr": "SH", "Value": [procedure]}}

        await self.fill(
            catalogue, {0x00400275: [item("S1", "P1"), item("S2", "P2")]}, {0x00400275: [item("S1", "P2")]}, {}
        )

        def keys(step: str, procedure: str) -> tuple[Condition, ...]:
            return (
                Condition((0x00400275, 0x00400009), "SH", Text(step, is_wildcard=False)),
                Condition((0x00400275, 0x00401001), "SH", Text(procedure, is_wildcard=False)),
            )

        assert await self.found(catalogue, *keys("S1", "P2")) == ["1.2"]
        assert await self.found(catalogue, *keys("S2", "P2")) == ["1.1"]
        assert await self.found(catalogue, keys("S1", "")[0]) == ["1.1", "1.2"]

    async def test_universal_keys_match_what_is_absent(self, catalogue: Catalogue) -> None:
        """PS3.4 §C.2.2.2.3."""
        await self.fill(catalogue, {0x00100020: "P"}, {})

        for match in (Universal(), Text("", is_wildcard=False), Text("*", is_wildcard=True), AnyOf(())):
            assert await self.found(catalogue, key_is(0x00100020, match)) == ["1.1", "1.2"]

    async def test_keys_that_are_no_filter_filter_nothing(self, catalogue: Catalogue) -> None:
        """Q19: TimezoneOffsetFromUTC; SpecificCharacterSet says how the request is written."""
        await self.fill(catalogue, {})

        keys = (key_is(0x00080201, "+0100"), key_is(0x00080005, "ISO_IR 100"))
        page = await catalogue.search(Query(Level.STUDY, conditions=keys))

        assert study_uids(page) == ["1.1"]
        assert page.warnings == ()

    async def test_keys_that_cannot_be_matched_are_said_in_a_warning(self, catalogue: Catalogue) -> None:
        await self.fill(catalogue, {})

        page = await catalogue.search(Query(Level.SERIES, conditions=(key_is(0x00200013, Number(5)),)))

        assert series_uids(page) == ["1.1.1"]
        assert "00200013" in page.warnings[0]

    # Narrowing

    async def test_narrowing_applies_study_and_series_keys_in_search_order(self, catalogue: Catalogue) -> None:
        await catalogue.upsert(
            [
                summary(f"1.{n % 7}", f"1.{n}", {0x00080020: f"2024010{n % 3}", 0x00080060: "CT" if n % 2 else "MR"})
                for n in range(1200)
            ]
        )
        conditions = (key_is(0x00080060, "CT"), key_is(0x00200013, Number(3)))
        expected = (await catalogue.search(Query(Level.SERIES, conditions=conditions[:1], limit=5000))).rows

        pages = [
            page async for page in catalogue.narrow(Query(Level.INSTANCE, conditions=conditions, limit=1, offset=9))
        ]

        assert len(pages) > 1
        assert [key.series_uid for page in pages for key in page] == [
            json.loads(row)["0020000E"]["Value"][0] for row in expected
        ]

    async def test_narrowing_uses_the_sop_class_and_the_path(self, catalogue: Catalogue) -> None:
        await catalogue.upsert(
            [summary("1.1", "1.1.1", classes=(SEG,)), summary("1.1", "1.1.2"), summary("1.2", "1.2.1", classes=(SEG,))]
        )
        query = Query(Level.INSTANCE, study_uid="1.1", conditions=(key_is(0x00080016, uids(SEG)),))

        assert [page async for page in catalogue.narrow(query)] == [[SeriesKey("1.1", "1.1.1")]]

    async def test_a_search_for_instances_is_refused(self, catalogue: Catalogue) -> None:
        with pytest.raises(ValueError, match="narrow"):
            await catalogue.search(Query(Level.INSTANCE))

    # Changes

    async def test_a_series_that_is_told_again_replaces_what_was_known(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00100010: "Old", 0x0008103E: "early"}, version="v1")])

        await catalogue.upsert([summary("1.1", "1.1.1", {0x00100010: "New", 0x0008103E: "late"}, version="v2")])

        assert await self.found(catalogue, key_is(0x00100010, "*old*")) == []
        assert await self.found(catalogue, key_is(0x00100010, "*new*")) == ["1.1"]
        assert await self.found(catalogue, key_is(0x0008103E, "*early*")) == []
        assert await self.found(catalogue, key_is(0x0008103E, "*late*")) == ["1.1"]
        (known,) = await catalogue.known()
        assert (known.metadata_version, known.depth) == ("v2", "deep")
        assert (await catalogue.status()).series == 1

    async def test_rows_of_other_series_follow_their_study(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1")])

        await catalogue.upsert([summary("1.1", "1.1.2", {0x00100020: "P1", 0x00080060: "MR"}, instances=5)])

        page = await catalogue.search(Query(Level.SERIES, series_uid="1.1.1"))
        assert values(page, "00100020") == ["P1"]
        assert values(page, "00201208") == [6]
        assert values(page, "00080061") == ["MR"]

    async def test_removing_the_last_series_removes_the_study(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1"), summary("1.1", "1.1.2", instances=4), summary("1.2", "1.2.1")])

        await catalogue.remove([SeriesKey("1.1", "1.1.1"), SeriesKey("9", "9")])
        assert values(await catalogue.search(Query(Level.STUDY, study_uid="1.1")), "00201208") == [4]

        await catalogue.remove([SeriesKey("1.1", "1.1.2")])
        assert study_uids(await catalogue.search(STUDIES)) == ["1.2"]
        assert not await catalogue.contains_study("1.1")
        status = await catalogue.status()
        assert (status.studies, status.series, status.problems) == (1, 1, 0)

    async def test_a_series_with_a_problem_is_known_counted_and_not_found(self, catalogue: Catalogue) -> None:
        """A study answer without it would be a failure dressed as an absence: `series_of_study` names it, last."""
        await catalogue.upsert(
            [
                summary("1.1", "1.1.1", {0x00200011: 1}, problem="metadata.json ends early"),
                summary("1.1", "1.1.2", {0x00200011: 2}),
                summary("1.2", "1.2.1", problem="metadata.json ends early"),
            ]
        )

        assert study_uids(await catalogue.search(STUDIES)) == ["1.1"]
        assert series_uids(await catalogue.search(SERIES)) == ["1.1.2"]
        assert values(await catalogue.search(STUDIES), "00201206") == [1]
        assert [key.series_uid for key in await catalogue.series_of_study("1.1")] == ["1.1.2", "1.1.1"]
        assert await catalogue.contains_study("1.2")
        assert await catalogue.contains_series(SeriesKey("1.2", "1.2.1"))
        status = await catalogue.status()
        assert (status.studies, status.series, status.problems) == (1, 1, 2)

        await catalogue.upsert([summary("1.2", "1.2.1")])
        status = await catalogue.status()
        assert (status.studies, status.series, status.problems) == (2, 2, 1)

        await catalogue.upsert([summary("1.2", "1.2.1", problem="broken again")])
        assert study_uids(await catalogue.search(STUDIES)) == ["1.1"]

    async def test_one_batch_may_name_a_series_twice(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1", {0x00100020: "A"}), summary("1.1", "1.1.1", {0x00100020: "B"})])
        assert values(await catalogue.search(STUDIES), "00100020") == ["B"]

        await catalogue.upsert(
            [summary("1.1", "1.1.1", {0x00100020: "C"}), summary("1.1", "1.1.1", problem="gone bad")]
        )
        assert await catalogue.search(STUDIES) == Page([], 0, ())

    async def test_unknown_uids_are_not_contained(self, catalogue: Catalogue) -> None:
        await catalogue.upsert([summary("1.1", "1.1.1")])

        assert await catalogue.contains_study("1.1")
        assert not await catalogue.contains_study("1")
        assert await catalogue.contains_series(SeriesKey("1.1", "1.1.1"))
        assert not await catalogue.contains_series(SeriesKey("1.2", "1.1.1"))
        assert await catalogue.series_of_study("1.2") == []

    async def test_the_walk_is_in_the_order_of_a_listing(self, catalogue: Catalogue) -> None:
        """`1.2/` sorts behind `1.2.3/` and `1.2-3/`."""
        keys = [
            SeriesKey(study, series) for study in ("1.2", "1.2.3", "1.2-3", "1.10", "1.2a") for series in ("1", "1.5")
        ]
        await catalogue.upsert([summary(key.study_uid, key.series_uid) for key in keys])

        walked: list[SeriesKey] = []
        while page := await catalogue.known(after=series_place(walked[-1]) if walked else "", limit=3):
            walked += [one.key for one in page]

        assert walked == sorted(keys, key=lambda key: f"{key.study_uid}/{key.series_uid}")

    async def test_completeness_is_remembered_and_the_cursor_shows_the_way(self, catalogue: Catalogue) -> None:
        assert not (await catalogue.status()).complete

        await catalogue.begin_sync()
        await catalogue.advance_sync("1.2/3")
        assert ((await catalogue.status()).complete, (await catalogue.status()).cursor) == (False, "1.2/3")

        await catalogue.finish_sync()
        await catalogue.begin_sync()
        assert (await catalogue.status()).complete
        assert (await catalogue.status()).cursor == ""

    async def test_many_patterns_of_wildcards_are_answered_at_once(self, catalogue: Catalogue) -> None:
        """T22: `*?*?*…` takes time linear in the text."""
        await self.fill(catalogue, {0x00081030: "a" * 2000, 0x00100010: "a" * 2000})
        storm = Text("*?" * 300 + "b", is_wildcard=True)

        assert await self.found(catalogue, key_is(0x00081030, storm)) == []
        assert await self.found(catalogue, key_is(0x00100010, storm), fuzzy=True) == []


def fields(one: SeriesSummary) -> dict[str, Any]:
    return {field: getattr(one, field) for field in SeriesSummary.__dataclass_fields__}
