"""The face of the storage for Python people: one series, opened as a context, in plain calls.

    from storage import open_series

    with open_series("gs://bucket/dicomweb", study_uid, series_uid, mode="a") as series:
        print(series.append(["scan/slice1.dcm"]).new)

Thin over `storage.writing` (the lock, the change, the crash safety) and `storage.ingest` (sources, descriptions).
`session` is the same for code that has an event loop.
"""

from storage.library.append_result import Appended, AppendError, AppendResult
from storage.library.custom_fields import CustomFields
from storage.library.dependencies import Dependency, DependencyReport, Fate
from storage.library.hints import Hints
from storage.library.instance import Instance
from storage.library.new_file import NewFile
from storage.library.series import Series, open_series

__all__ = [
    "AppendError",
    "AppendResult",
    "Appended",
    "CustomFields",
    "Dependency",
    "DependencyReport",
    "Fate",
    "Hints",
    "Instance",
    "NewFile",
    "Series",
    "open_series",
]
