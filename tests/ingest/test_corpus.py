"""All files of the corpus through an ingest: stored and read back bit for bit, or refused with a reason."""

from collections import Counter
from pathlib import Path

import pytest

from tests.ingest.corpus_table import ingest_corpus, markdown
from tests.ingest.reading import NAMES, P10, REFUSED

pytestmark = pytest.mark.long


def test_every_made_file_is_read_back_or_refused_with_its_reason(tmp_path: Path) -> None:
    rows = ingest_corpus(P10, tmp_path)

    print(markdown(rows))
    assert [row.file for row in rows] == NAMES
    assert {row.file for row in rows if row.outcome != "stored"} == set(REFUSED)
    assert all(row.reason for row in rows if row.outcome != "stored")


def test_every_real_file_is_read_back_or_refused_with_its_reason(
    real_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ingest_corpus(real_folder, tmp_path)

    print(markdown(rows))
    files = {path.relative_to(real_folder).as_posix() for path in real_folder.rglob("*") if path.is_file()}
    assert files <= {row.file for row in rows}
    assert all(row.reason for row in rows if row.outcome in ("refused", "skipped"))
    assert Counter(row.outcome for row in rows)["stored"] > 380
