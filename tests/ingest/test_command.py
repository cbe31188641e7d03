"""`codweb ingest` as its users meet it: what it prints, and with which exit code."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from app.commands.ingest import ingest
from storage.series_index.reader import SeriesIndex
from tests.ingest.reading import CT


def run(*arguments: object) -> Result:
    command = typer.Typer()
    command.command()(ingest)
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_help_teaches_by_examples() -> None:
    result = run("--help")

    assert result.exit_code == 0
    assert "codweb ingest ./dicom --to ./datastore --dry-run" in result.stdout


def test_ingest_prints_a_table_and_exits_with_zero(tmp_path: Path) -> None:
    result = run(*CT, "--to", tmp_path / "datastore")

    assert result.exit_code == 0
    assert "6 instances in 1 series" in result.stdout
    assert len(list((tmp_path / "datastore").rglob("*.tar"))) == 1


def test_json_report_names_everything(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in CT:
        shutil.copy(path, tmp_path / "in")
    shutil.copy(CT[0], tmp_path / "in" / "twin")
    (tmp_path / "in" / "notes\x1b[31m.txt").write_text("hello")

    result = run(tmp_path / "in", "--to", tmp_path / "datastore", "--json")

    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert set(report) == {
        "new", "same", "conflict", "refused", "skipped", "series", "bytes", "seconds", "bytes_read",
    }  # fmt: skip
    assert len(report["new"]) == 6
    assert [Path(note["path"]).name for note in report["same"]] == ["twin"]
    assert [Path(item["path"]).name for item in report["refused"]] == ["notes\N{REPLACEMENT CHARACTER}[31m.txt"]
    assert report["series"][0]["outcome"] == "stored"
    assert report["bytes"] == sum(path.stat().st_size for path in CT)


def test_finished_run_repeated_exits_with_zero_and_says_that_all_is_the_same(tmp_path: Path) -> None:
    run(*CT, "--to", tmp_path)

    result = run(*CT, "--to", tmp_path)

    assert result.exit_code == 0
    assert "unchanged" in result.stdout
    assert "Nothing new: 6 files stored already" in result.stdout


def test_conflict_exits_with_one_and_names_the_file(tmp_path: Path) -> None:
    run(*CT, "--to", tmp_path / "datastore")
    (tmp_path / "other.dcm").write_bytes(CT[0].read_bytes() + b"\0\0")

    result = run(tmp_path / "other.dcm", "--to", tmp_path / "datastore")

    assert result.exit_code == 1
    assert "other.dcm: another file of the same SOP Instance UID holds other bytes" in result.stdout


def test_control_characters_of_a_file_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "evil\x1b[31m[bold].txt").write_text("hello")

    result = run(tmp_path, CT[0], "--to", tmp_path / "datastore")

    assert "\x1b" not in result.stdout
    assert "evil\N{REPLACEMENT CHARACTER}[31m[bold].txt" in result.stdout.replace("\n", "")


@pytest.mark.parametrize("is_empty", [True, False])
def test_sources_without_dicom_are_said_to_be_so(tmp_path: Path, is_empty: bool) -> None:
    (tmp_path / "in").mkdir()
    if not is_empty:
        (tmp_path / "in" / "notes.txt").write_text("hello")

    result = run(tmp_path / "in", "--to", tmp_path / "datastore")

    assert result.exit_code == 1
    assert "no readable DICOM file under" in result.stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_dry_run_writes_nothing(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "datastore").mkdir()

    result = run(*CT, "--to", tmp_path / "datastore", "--dry-run")

    assert result.exit_code == 0
    assert "planned" in result.stdout
    assert (tmp_path / "datastore").exists() == is_there
    assert list(tmp_path.rglob("*")) == [tmp_path / "datastore"] * is_there


def test_address_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    for address in ("gs://bucket/prefix", "", str(CT[0] / "below-a-file")):
        result = run(*CT, "--to", address)

        assert result.exit_code == 1
        assert result.stderr.startswith("codweb ingest: ")


def test_what_was_stored_is_indexed_deeply_for_the_server(tmp_path: Path) -> None:
    """Design §2: our own ingest builds deep, so the first answer of a server is the faithful one."""
    datastore, state = tmp_path / "datastore", tmp_path / "state"

    result = run(CT[0], "--to", datastore, "--state", state)

    [index] = state.rglob("*.index")
    assert result.exit_code == 0, result.output
    assert SeriesIndex(index).header.depth == "deep"


def test_indexing_can_be_left_to_the_server(tmp_path: Path) -> None:
    datastore, state = tmp_path / "datastore", tmp_path / "state"

    result = run(CT[0], "--to", datastore, "--state", state, "--no-index")

    assert result.exit_code == 0, result.output
    assert list(state.rglob("*.index")) == []


def test_series_that_grew_is_indexed_anew(tmp_path: Path) -> None:
    datastore, state = tmp_path / "datastore", tmp_path / "state"
    run(CT[0], "--to", datastore, "--state", state)

    result = run(*CT, "--to", datastore, "--state", state)

    [index] = state.rglob("*.index")
    assert result.exit_code == 0, result.output
    assert "appended" in result.stdout
    assert len(SeriesIndex(index).uids) == 6
