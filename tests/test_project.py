"""What the repository promises about itself: locks, container, commands and links agree with each other."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with uvicorn, without stubs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")


def project() -> dict[str, Any]:  # plain TOML
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # as above
    return table


def pins(lock: str) -> dict[str, str]:
    """Name → version of every line of a lock file."""
    pinned: dict[str, str] = {}
    for line in (ROOT / lock).read_text().splitlines():
        requirement = Requirement(line)
        [specifier] = requirement.specifier
        assert specifier.operator == "==", line
        pinned[canonicalize_name(requirement.name)] = specifier.version
    return pinned


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_host_and_no_option(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert not re.search(r"://|^\s*-|@", text, re.MULTILINE)


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev",))])
def test_lock_satisfies_what_the_project_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    pinned = pins(lock)
    asked = project()["dependencies"] + [line for name in extras for line in project()["optional-dependencies"][name]]

    for requirement in map(Requirement, asked):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_tests_run_with_the_versions_that_the_server_runs_with() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_every_dependency_has_its_line_in_the_decision() -> None:
    decision = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text()
    asked = project()["dependencies"] + project()["optional-dependencies"]["dev"]

    for requirement in map(Requirement, asked):
        assert re.search(rf"\b{re.escape(requirement.name)}\b", decision), requirement.name


def test_compose_publishes_on_this_machine_only_and_mounts_the_datastore_read_only() -> None:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["codweb"]

    assert service["ports"] == ["127.0.0.1:8042:8042"]
    assert any(volume.endswith(":/data:ro") for volume in service["volumes"])
    assert service["image"] == f"codweb:{project()['version']}"


def test_container_runs_without_root_and_installs_the_lock() -> None:
    last_stage = (ROOT / "docker" / "Dockerfile").read_text().split("\nFROM ")[-1]

    user = re.search(r"^USER (\d+):(\d+)$", last_stage, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0
    assert "HEALTHCHECK" in last_stage
    assert "--requirement requirements.lock" in (ROOT / "docker" / "Dockerfile").read_text()


def test_image_is_built_from_everything_that_the_dockerfile_copies() -> None:
    admitted = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)

    for source in " ".join(copies).split():
        assert source in admitted
        assert (ROOT / source).exists()


def test_commands_of_the_readme_are_targets_and_ci_calls_the_test_command() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))

    assert {"run", "test"} <= commands <= targets
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text())

    assert links
    for link in links:
        assert re.match(r"https://", link) or (ROOT / link).exists(), link


def test_decisions_are_numbered_without_gaps_and_dated() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        assert re.search(r"^\d{4}-\d\d-\d\d · (accepted|superseded by \d+)$", path.read_text(), re.MULTILINE), path.name
