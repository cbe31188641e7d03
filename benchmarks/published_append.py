# mypy: ignore-errors
# (the library carries no types, and is not in the environment of the checks)
"""The published COD library appends the files of a folder as one series; prints seconds and processor seconds.

python published_append.py FOLDER STUDY SERIES   with STORAGE_EMULATOR_HOST; in an environment that has the library
"""

import resource
import sys
from pathlib import Path
from time import perf_counter

from cloud_optimized_dicom.cod_object import CODObject
from cloud_optimized_dicom.instance import Instance
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage


def main(folder: Path, study_uid: str, series_uid: str) -> None:
    """One session in mode `a`, the bytes as they are; what it takes to import the library does not count."""
    client = storage.Client(project="nobody", credentials=AnonymousCredentials())
    files = [Instance(str(path)) for path in sorted(folder.glob("*.dcm"))]
    begun, used = perf_counter(), _used()
    with CODObject(
        datastore_path="gs://bench/dicomweb",
        client=client,
        study_uid=study_uid,
        series_uid=series_uid,
        mode="a",
        create_if_missing=True,
    ) as series:
        result = series.append(files, compress=False)
    if len(result.new) != len(files):
        raise SystemExit(f"{len(result.new)} of {len(files)} were stored: {result.errors[:1]}")
    print(perf_counter() - begun, _used() - used)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
