"""docs/conformance.md: every rule once, in one of three states, with tests that exist."""

import importlib
import re
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from app.accept import MAX_CHARS, MAX_RANGES
from app.address import MAX_FRAMES
from app.match_keys import MAX_PATTERN_CHARS, MAX_UIDS
from app.query import MAX_PAIRS, SearchLimits
from storage.archive.search import MOST_SERIES
from storage.catalogue.sqlite import SEARCH_SECONDS
from storage.cod.entry import Limits
from storage.dicom.nesting import MAX_DEPTH
from storage.dicom.p10 import MAX_INFLATED_BYTES
from storage.dicom.pixels import MAX_FRAME_BITS
from storage.keys import is_path_uid

DOCUMENT = Path(__file__).parent.parent / "docs" / "conformance.md"

RULES = [
    f"{group}{number}"
    for group, numbers in {
        "G": range(1, 20),
        "Q": (*range(1, 7), *range(10, 36)),
        "W": range(1, 12),
        "F": range(1, 11),
        "B": range(1, 7),
        "J": range(1, 16),
        "T": (5, 6, 7, 8, 16, 17, 18, 22, 23, 24, 25, 30, 34),
    }.items()
    for number in numbers
]
"""Of HTTP, search, instances, frames, bulk data and JSON; and the security rules that concern what is there."""

STATE = re.compile(r"done|(?:refused|not yet): \S.*")
TEST_ID = re.compile(r"`(tests/[\w/]+)\.py((?:::\w+){1,2})`")


@dataclass(frozen=True)
class Row:
    rule: str
    says: str
    state: str
    tests: str


ROWS = [
    Row(*(cell.strip() for cell in line.strip("|").split(" | ")))
    for line in DOCUMENT.read_text("utf-8").splitlines()
    if re.match(r"\| [GQWFBJT]\d+ \|", line)
]


def test_every_rule_stands_there_once_in_its_order() -> None:
    assert [row.rule for row in ROWS] == RULES


def test_a_rule_says_something_and_is_in_one_of_three_states() -> None:
    for row in ROWS:
        assert row.says, row.rule
        assert STATE.fullmatch(row.state), (row.rule, row.state)


def test_every_test_that_a_rule_names_exists() -> None:
    for row in ROWS:
        names = [] if row.tests == "untested" else row.tests.split(", ")
        assert len(set(names)) == len(names), row.rule
        for name in names:
            match = TEST_ID.fullmatch(name)
            assert match is not None, (row.rule, name)
            module = importlib.import_module(match[1].replace("/", "."))
            *classes, test = match[2].split("::")[1:]
            assert test.startswith("test_"), (row.rule, name)
            assert callable(getattr(reduce(getattr, classes, module), test, None)), (row.rule, name)


def test_what_is_done_is_tested() -> None:
    assert [row.rule for row in ROWS if row.state == "done" and row.tests == "untested"] == []


def test_deviations_name_rules_of_the_tables() -> None:
    text = DOCUMENT.read_text("utf-8")
    deviations = text[text.index("## Deviations") : text.index("## Rules of the standard")]

    named = set(re.findall(r"\b[GQWFBJT]\d+\b", deviations))

    assert len(named) > 15
    assert named <= set(RULES)


def test_limits_are_those_of_the_program() -> None:
    text = DOCUMENT.read_text("utf-8")
    table = text[text.index("## Limits") : text.index("## Deviations")]
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ")[1] for row in table.splitlines() if row.startswith("| ")}
    limits, store = SearchLimits(), Limits()

    def numbers(beginning: str) -> list[int]:
        [cell] = [cell for name, cell in rows.items() if name.startswith(beginning)]
        return [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*\b", cell)]

    assert numbers("results") == [limits.default_limit, limits.max_limit]
    assert numbers("series that one search") == [MOST_SERIES]
    assert numbers("time of a search") == [SEARCH_SECONDS]
    assert numbers("match keys") == [limits.max_keys, limits.max_include, MAX_UIDS, MAX_PAIRS]
    assert numbers("characters of a match value") == [MAX_PATTERN_CHARS, MAX_CHARS, MAX_RANGES]
    assert is_path_uid("1" * numbers("characters of a UID")[0])
    assert not is_path_uid("1" * (numbers("characters of a UID")[0] + 1))
    assert numbers("frames") == [MAX_FRAMES]
    assert numbers("metadata.json") == [store.max_bytes >> 30, store.max_instances]
    assert numbers("sequences") == [MAX_DEPTH, MAX_INFLATED_BYTES >> 30, MAX_FRAME_BITS >> 33]
