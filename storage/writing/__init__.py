"""One COD series under its lock: what is stored, what shall become of it, and the way there, which survives a crash.

`stored` reads what is there, `change` is what shall become, `survey` and `tar_plan` place it, `writer` carries it out,
`session` takes the lock, `recovery` settles what a dead writer began, `unlocking` is for what only a person can decide.
"""

from storage.writing.change import Change, Correction, NewInstance
from storage.writing.recovery import Side
from storage.writing.session import writing
from storage.writing.stored import StoredSeries, read_stored
from storage.writing.tar_pieces import OnBytes
from storage.writing.unlocking import LockReport, look_at_lock, unlock
from storage.writing.writer import SeriesWriter

__all__ = [
    "Change",
    "Correction",
    "LockReport",
    "NewInstance",
    "OnBytes",
    "SeriesWriter",
    "Side",
    "StoredSeries",
    "look_at_lock",
    "read_stored",
    "unlock",
    "writing",
]
