"""What becomes of every file of the corpus in an ingest, and whether what was stored can be read back bit for bit.

`python -m tests.ingest.corpus_table` prints the table as Markdown.
"""

import asyncio
import gzip
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.bucket import open_bucket
from storage.ingest import Report, ingest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, order=True)
class Row:
    """One file, or one that a file lists or holds."""

    file: str
    outcome: str
    """`stored`, `same`, `conflict`, `refused` or `skipped`."""
    reason: str = ""


class NotReadBack(Exception):
    """A stored instance is not the file that it came from."""


def corpus() -> dict[str, Path]:
    """The folders by name, as far as they are here."""
    real = Path(os.environ.get("CODWEB_REAL_FIXTURES") or REPOSITORY.parent / "shared" / "fixtures" / "real")
    folders = {"p10": REPOSITORY / "tests" / "data" / "p10", "real": real}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}


def ingest_corpus(source: Path, folder: Path) -> list[Row]:
    """Ingest a folder as its users would; what is in conflict goes into a further datastore, until nothing is.

    Raises:
        NotReadBack: a stored instance, or the listing of a tar, is wrong.
    """
    rows: dict[str, Row] = {}
    waiting: Sequence[str | Path] = [source]
    number = 0
    while waiting:
        target = folder / f"store{number}"
        report = asyncio.run(_ingest(waiting, target))
        if not report.new:
            raise NotReadBack(f"{len(waiting)} files are in conflict with nothing")
        stored = read_back(target)
        for note in report.new:
            if stored.pop(note.instance_uid, None) != Path(note.path).read_bytes():
                raise NotReadBack(note.path)
            rows[note.path] = Row(note.path, "stored", f"after {number} conflicts" if number else "")
        if stored:
            raise NotReadBack(f"{len(stored)} instances came from nowhere")
        for outcome, items in (("refused", report.refused), ("skipped", report.skipped)):
            rows |= {item.path: Row(item.path, outcome, item.reason) for item in items}
        rows |= {note.path: Row(note.path, "same") for note in report.same}
        waiting = [note.path for note in report.conflict]
        number += 1
    prefix = f"{source}/"
    return sorted(Row(row.file.removeprefix(prefix), row.outcome, row.reason) for row in rows.values())


async def _ingest(sources: Sequence[str | Path], target: Path) -> Report:
    bucket = open_bucket(str(target), create=True)
    try:
        return await ingest(sources, bucket)
    finally:
        await bucket.close()


def read_back(datastore: Path) -> dict[str, bytes]:
    """Every instance by UID, through the tar and through metadata.json, which must agree."""
    found: dict[str, bytes] = {}
    for path in datastore.rglob("*.tar"):
        data = path.read_bytes()
        document = json.loads(gzip.decompress(path.with_suffix("").joinpath("metadata.json").read_bytes()))
        entries = document["cod"]["instances"]
        listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        if listed.stderr or listed.stdout.splitlines() != [f"instances/{uid}.dcm" for uid in entries]:
            raise NotReadBack(f"tar lists {path} otherwise")
        with tarfile.open(path) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        for uid, entry in entries.items():
            start = entry["headers"]["start_byte"]
            content = data[start : start + entry["size"]]
            if members[f"instances/{uid}.dcm"] != content:
                raise NotReadBack(f"instance {uid} lies elsewhere than its entry says")
            found[uid] = content
    return found


def markdown(rows: Iterable[Row]) -> str:
    """Counts, and every file that was not stored with its reason."""
    listed = list(rows)
    counts = Counter(row.outcome for row in listed)
    lines = ["; ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())), ""]
    lines += ["| file | outcome | reason |", "| --- | --- | --- |"]
    lines += [f"| `{row.file}` | {row.outcome} | {row.reason} |" for row in listed if row.outcome != "stored"]
    return "\n".join(lines) + "\n"


def main() -> None:
    for name, source in corpus().items():
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"### {name}\n\n{markdown(ingest_corpus(source, Path(folder)))}\n")


if __name__ == "__main__":
    main()
