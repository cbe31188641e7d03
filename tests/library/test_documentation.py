"""docs/library.md is run as it stands, from top to bottom."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.ingest.reading import CT
from tests.library.reading import SERIES, STUDY


def test_every_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for path in CT:
        shutil.copy(path, tmp_path / "scans")
    page = (REPOSITORY / "docs" / "library.md").read_text("utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names: dict[str, object] = {"study_uid": STUDY, "series_uid": SERIES}

    for example in examples:
        exec(compile(example, "docs/library.md", "exec"), names)

    assert len(examples) == 7
