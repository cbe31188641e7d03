"""DICOM files into COD series: the writing face of the storage.

    report = await ingest(["scans", "s3://bucket/cd.tar"], open_bucket("datastore", create=True))

`sources` finds files, `describe` reads each once, `plan` gathers them by series, `dedupe` holds them against what is
stored, `writer` stores what is new under the lock of its series, `ledger` remembers files for the next time, `report`
says what became of everything.

A process that describes files needs a few modules of it, so what stands here is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "InstanceNote": "report",
    "Ledger": "ledger",
    "OnSeries": "writer",
    "Outcome": "report",
    "Progress": "report",
    "RefusedFile": "report",
    "Report": "report",
    "SeriesNote": "report",
    "SilentProgress": "report",
    "ingest": "run",
}

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


def __getattr__(name: str) -> object:
    """Source: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
