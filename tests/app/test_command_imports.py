"""What a command imports: only its own, for an ingest of a few files must not wait for the parts of a server."""

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app.cli import COMMANDS, commands
from tests.ingest.reading import CT

HTTP = {"fastapi", "starlette", "uvicorn"}
NETWORK = {"boto3", "botocore", "google.cloud", "google.auth", "obstore"}
PIXELS = {"imagecodecs", "numpy"}
DICOM = {"pydicom", "PIL", "requests"}
"""pydicom's dictionary stands alone; the rest of it brings these, and a fifth of a second."""


def loaded_by(words: Sequence[str]) -> set[str]:
    """Names of the modules that are loaded when `codweb` ends."""
    script = (
        "import sys\ntry:\n    from app.cli import main\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_who_asks_for_help_loads_no_command(words: list[str]) -> None:
    loaded = loaded_by(words)

    assert "app.cli" in loaded
    assert not {name for name in loaded if name.startswith("app.commands.")}
    assert loaded.isdisjoint(HTTP | NETWORK | PIXELS | DICOM | {"pydantic"})


def test_help_of_one_command_loads_no_other() -> None:
    loaded = loaded_by(["ingest", "--help"])

    assert {name for name in loaded if name.startswith("app.commands.")} == {"app.commands.ingest"}


def test_ingest_into_a_folder_loads_no_server_no_network_and_no_codec(tmp_path: Path) -> None:
    loaded = loaded_by(
        ["ingest", str(CT[0]), "--to", str(tmp_path / "store"), "--state", str(tmp_path / "state"), "--no-index"]
    )

    assert [*(tmp_path / "store" / "studies").rglob("*.tar")]
    assert loaded.isdisjoint(HTTP | NETWORK | PIXELS | DICOM)


def test_process_that_describes_files_loads_no_archive_no_bucket_and_no_pydicom() -> None:
    script = "import sys; import storage.ingest.describing; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(NETWORK | PIXELS | DICOM | {"asyncio", "sqlite3", "storage.bucket", "storage.writing"})


def test_serving_a_folder_needs_no_client_of_a_store_and_no_codec() -> None:
    script = "import sys; import app.commands.serve; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert set(done.stdout.split()).isdisjoint(NETWORK | {"imagecodecs"})


@pytest.mark.parametrize("name", COMMANDS)
def test_list_of_commands_shows_the_first_sentence_of_each(name: str) -> None:
    documented = getattr(import_module(f"app.commands.{name}"), name).__doc__

    assert documented.split("\n\n")[0].replace("\n", " ") == COMMANDS[name]


@pytest.mark.parametrize("words", [[], ["--help"], *([name, "--help"] for name in COMMANDS), ["ingets"], ["ingest"]])
def test_help_and_complaints_are_those_of_commands_that_were_loaded_at_once(words: list[str]) -> None:
    """The oracle is what Typer makes of the functions themselves."""
    info = commands.info
    eager = typer.Typer(
        name=info.name, help=info.help, epilog=info.epilog, no_args_is_help=True, rich_markup_mode="rich",
        context_settings=info.context_settings,
    )  # fmt: skip
    for name in COMMANDS:
        eager.command()(getattr(import_module(f"app.commands.{name}"), name))
    for rest in commands.registered_commands[len(COMMANDS) :]:
        assert rest.callback is not None
        eager.command()(rest.callback)
    assert commands.registered_callback is not None
    assert commands.registered_callback.callback is not None
    eager.callback()(commands.registered_callback.callback)
    runner, wide = CliRunner(), {"COLUMNS": "120"}

    found, expected = runner.invoke(commands, words, env=wide), runner.invoke(eager, words, env=wide)

    assert found.output == expected.output
    assert found.exit_code == expected.exit_code
