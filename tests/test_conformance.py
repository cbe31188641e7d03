"""docs/conformance.md: every rule once, in one of three states, with tests that exist."""

import importlib
import re
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

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
