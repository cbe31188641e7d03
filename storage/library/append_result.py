"""What became of the files of one `append`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Appended:
    """One file and the instance that it holds."""

    source: str
    """As it was named; of a folder or an archive, the name of the file in it."""
    instance_uid: str
    """The key in the series."""


@dataclass(frozen=True, slots=True)
class AppendError:
    """One file that was not taken, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of every file, each list in the order of the files."""

    new: tuple[Appended, ...] = ()
    """Will be stored when the session is committed."""
    same: tuple[Appended, ...] = ()
    """The series has this instance with the same bytes already."""
    conflict: tuple[Appended, ...] = ()
    """The series has this instance with other bytes, and they stay."""
    errors: tuple[AppendError, ...] = ()
