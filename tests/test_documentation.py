"""What the documentation says is checked, so that it stays true."""

import re
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parent.parent


def served_resources() -> set[tuple[str, str]]:
    """Method and path of every DICOMweb resource of the app."""
    app = create_app(Settings())
    prefix = "/dicomweb"
    return {
        (method.upper(), path.removeprefix(prefix))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if path.startswith(prefix)
    }


def test_the_readme_table_ticks_exactly_the_resources_that_are_served() -> None:
    rows = re.findall(r"^\| (\w+) \| (/\S*) \|[^|]*\| (✅|❌) \|$", (REPOSITORY / "README.md").read_text("utf-8"), re.M)

    ticked = {(method, path) for method, path, mark in rows if mark == "✅"}
    crossed = {(method, path) for method, path, mark in rows if mark == "❌"}
    assert ticked == served_resources()
    assert not crossed & served_resources()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_stands_in_the_example_with_its_default(name: str) -> None:
    example = (REPOSITORY / "config" / "codweb.env.example").read_text("utf-8")

    match = re.search(rf"^#{PREFIX}{name.upper()}=(.*)$", example, re.M)

    assert match is not None
    if name != "state_dir":  # depends on the home folder
        value = {name: match[1]} if match[1] or name in ("datastore", "public_url") else {}
        assert getattr(Settings(**value), name) == getattr(Settings(), name)


def test_the_example_names_no_setting_that_is_not_there() -> None:
    example = (REPOSITORY / "config" / "codweb.env.example").read_text("utf-8")

    named = {name.lower() for name in re.findall(rf"^#{PREFIX}([A-Z0-9_]+)=", example, re.M)}

    assert named == set(Settings.model_fields)


def test_every_setting_has_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name


def test_openapi_is_valid_and_names_each_operation_once() -> None:
    paths = create_app(Settings()).openapi()["paths"]

    names = [operation["operationId"] for operations in paths.values() for operation in operations.values()]

    assert len(names) == len(set(names))
