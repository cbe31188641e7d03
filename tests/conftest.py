"""What every test may ask for: the fixture stores, their oracle, and the corpus of real files where it is present."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.skips import install_skip_guard

REPOSITORY = Path(__file__).parent.parent
DATA = REPOSITORY / "tests" / "data"
STORE_NAMES = sorted(path.name for path in (DATA / "cod").iterdir() if path.is_dir())
"""Names of the COD stores under tests/data/cod, for `pytest.mark.parametrize`."""


def pytest_configure(config: pytest.Config) -> None:
    install_skip_guard(config)
    # Commands that a test runs must not write into the state folder of whoever runs the tests.
    os.environ["CODWEB_STATE_DIR"] = tempfile.mkdtemp(prefix="codweb-tests-")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """tests/data: `cod/` (stores made by the public COD library), `p10/` (the files in them), `manifest.json`."""
    return DATA


@pytest.fixture(scope="session")
def manifest() -> dict[str, Any]:  # plain JSON
    """The oracle: what pydicom reads in every file of `p10/`, and what each store of `cod/` holds. Never modify it."""
    loaded: dict[str, Any] = json.loads((DATA / "manifest.json").read_bytes())
    return loaded


@pytest.fixture(scope="session")
def store_names() -> list[str]:
    return STORE_NAMES


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The corpus of real files, which is not part of the repository: CODWEB_REAL_FIXTURES names its folder."""
    folder = Path(os.environ.get("CODWEB_REAL_FIXTURES") or REPOSITORY.parent / "shared" / "fixtures" / "real")
    if not (folder / "manifest.json").is_file():
        pytest.skip("the corpus of real files is not here: set CODWEB_REAL_FIXTURES to its folder")
    return folder
