"""What an archive says of one thing in it."""

from dataclasses import dataclass


class ArchiveRefused(Exception):
    """An archive is damaged, cut or hostile from here on; what it gave before stands. The message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive."""

    name: str
    """As the archive says it: any text."""
    start: int
    """Where its first byte, plain or packed, lies in the archive."""
    size: int
    mtime: float | None
    """Seconds since the epoch; None: the archive does not say."""
    packed_size: int | None = None
    """Bytes of the DEFLATE stream in the archive; None: it lies there plain."""
    crc32: int | None = None
    """Of the file, where the archive knows it (zip)."""

    @property
    def stop(self) -> int:
        """Where it ends in the archive."""
        return self.start + (self.size if self.packed_size is None else self.packed_size)


@dataclass(frozen=True, slots=True)
class Left:
    """Something in an archive that is not read."""

    name: str
    reason: str
    holds_nothing: bool
    """Whether no instance can be missed by it (a link), so that it is skipped and not refused."""


Entry = Member | Left
