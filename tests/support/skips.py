"""No test skips in silence: every skip of a full run must be on the list `tests/allowed_skips.txt`.

Active when the environment says `CODWEB_NO_UNLISTED_SKIPS=1`, as `.ci/run` does; on a laptop a skip is only reported.
"""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

SWITCH = "CODWEB_NO_UNLISTED_SKIPS"
ALLOWED_SKIPS = Path(__file__).parent.parent / "allowed_skips.txt"


@dataclass(frozen=True, slots=True)
class AllowedSkip:
    """One line of the list: which tests may skip, and for which reason only."""

    pattern: str
    """Matches test ids as a shell pattern; `[` is taken literally, ids of parametrized tests are full of it."""
    reason: str
    """Must occur in the message of the skip."""

    def covers(self, test_id: str, message: str) -> bool:
        return fnmatchcase(test_id, self.pattern.replace("[", "[[]")) and self.reason in message


def parse_allowed_skips(text: str) -> list[AllowedSkip]:
    """Read lines `test id pattern | words of the skip message`; `#` begins a comment line.

    Raises:
        ValueError: a line without pattern or reason.
    """
    allowed = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, _, reason = (part.strip() for part in line.partition(" | "))
        if not pattern or not reason:
            raise ValueError(f"line {number}: wanted 'test id pattern | words of the skip message'")
        allowed.append(AllowedSkip(pattern, reason))
    return allowed


class SkipGuard:
    """A pytest plugin that fails the run when a test skipped, or was expected to fail, without being listed."""

    def __init__(self, allowed: list[AllowedSkip]) -> None:
        self.allowed = allowed
        self.unlisted: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.unlisted and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.unlisted:
            return
        terminalreporter.section(f"{len(self.unlisted)} skipped and not in {ALLOWED_SKIPS.name}", red=True)
        for test_id, message in self.unlisted:
            terminalreporter.line(f"{test_id}: {message}")

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped:
            return
        message = _message_of(report)
        if not any(skip.covers(report.nodeid, message) for skip in self.allowed):
            self.unlisted.append((report.nodeid, message))


def _message_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a report is a skip: pytest keeps (path, line, message) for a skip, and `wasxfail` for an expected failure."""
    if hasattr(report, "wasxfail"):
        return f"expected failure: {report.wasxfail}"
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def install_skip_guard(config: pytest.Config) -> None:
    """Register the guard if the environment asks for it."""
    if os.environ.get(SWITCH) == "1":
        config.pluginmanager.register(SkipGuard(parse_allowed_skips(ALLOWED_SKIPS.read_text())), "codweb-skip-guard")
