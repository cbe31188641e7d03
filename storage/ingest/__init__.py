"""DICOM files into COD series: the writing face of the storage.

    report = await ingest(["scans", "s3://bucket/cd.tar"], open_bucket("datastore", create=True))

`sources` finds files, `describe` reads each once, `plan` gathers them by series, `dedupe` holds them against what is
stored, `writer` stores what is new under the lock of its series, `ledger` remembers files for the next time, `report`
says what became of everything.
"""

from storage.ingest.ledger import Ledger
from storage.ingest.report import (
    InstanceNote,
    Outcome,
    Progress,
    RefusedFile,
    Report,
    SeriesNote,
    SilentProgress,
)
from storage.ingest.run import ingest
from storage.ingest.writer import OnSeries

__all__ = [
    "InstanceNote",
    "Ledger",
    "OnSeries",
    "Outcome",
    "Progress",
    "RefusedFile",
    "Report",
    "SeriesNote",
    "SilentProgress",
    "ingest",
]
