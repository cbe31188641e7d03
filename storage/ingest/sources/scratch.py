"""A private folder for what must be unpacked before it can be read, gone when the ingest ends."""

import os
import tempfile
from types import TracebackType
from typing import BinaryIO

MAX_RATIO = 200
FLOOR_BYTES = 1 << 30
"""What is unpacked may be at most so many times what it was; all that is more shares this once."""


class Scratch:
    """A folder only its owner may enter, made when it is first needed; a context.

    Places found in it are opened by other processes, so its files have names as long as it lasts.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        self._floor = FLOOR_BYTES
        self.is_closed = False
        """Whether nobody wants its files any more: who is still filling one stops."""

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_closed = True
        if self._folder is not None:
            self._folder.cleanup()

    def limit_of(self, packed_bytes: int) -> int:
        """How many bytes something of this size may become here."""
        return MAX_RATIO * packed_bytes + self._floor

    def count(self, packed_bytes: int, unpacked_bytes: int) -> None:
        """Something of a size has become so many bytes."""
        self._floor -= max(0, unpacked_bytes - MAX_RATIO * packed_bytes)

    def new_file(self) -> BinaryIO:
        """A file of a name of its own. Raises OSError: it cannot be made, or nobody wants it any more."""
        if self.is_closed:
            raise OSError("the ingest has ended")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="codweb-ingest-", ignore_cleanup_errors=True)
        self._files += 1
        return open(os.path.join(self._folder.name, str(self._files)), "xb")
