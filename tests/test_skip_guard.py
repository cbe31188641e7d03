"""The guard against silent skips, run over a small suite of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips import ALLOWED_SKIPS, AllowedSkip, parse_allowed_skips

ROOT = Path(__file__).parent.parent

CONFTEST = """
from tests.support.skips import SkipGuard, parse_allowed_skips

def pytest_configure(config):
    config.pluginmanager.register(SkipGuard(parse_allowed_skips("test_suite.py::* | no corpus")))
"""


def run_suite(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_suite.py").write_text("import pytest\n" + source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CODWEB_NO_UNLISTED_SKIPS": "0",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_listed_skip_passes(tmp_path: Path) -> None:
    result = run_suite(tmp_path, "def test_a(): pytest.skip('no corpus here')")

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): pytest.skip('another reason')",
        "pytest.skip('the whole module', allow_module_level=True)",
        "@pytest.mark.skipif(True, reason='a marker')\ndef test_a(): ...",
        "@pytest.mark.xfail(reason='broken')\ndef test_a(): raise AssertionError",
    ],
)
def test_unlisted_skip_fails_the_run_and_is_named(tmp_path: Path, source: str) -> None:
    result = run_suite(tmp_path, source + "\ndef test_b(): pass")

    assert result.returncode == 1, result.stdout
    assert "1 skipped and not in allowed_skips.txt" in result.stdout
    assert "test_suite.py" in result.stdout.split("not in allowed_skips.txt")[1]


def test_failed_test_stays_a_failure(tmp_path: Path) -> None:
    result = run_suite(tmp_path, "def test_a(): pytest.skip('no corpus')\ndef test_b(): raise AssertionError")

    assert result.returncode == 1


def test_list_of_the_project_is_well_formed() -> None:
    assert parse_allowed_skips(ALLOWED_SKIPS.read_text())


@pytest.mark.parametrize("line", ["tests/a.py::test_b", "tests/a.py::test_b | ", " | reason"])
def test_line_without_pattern_or_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_allowed_skips(line)


def test_brackets_of_a_test_id_are_taken_literally() -> None:
    skip = AllowedSkip("tests/a.py::test_b[real]", "reason")

    assert skip.covers("tests/a.py::test_b[real]", "the reason")
    assert not skip.covers("tests/a.py::test_br", "the reason")
