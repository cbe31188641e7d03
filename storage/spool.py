"""Many byte strings kept for a short time in bounded memory: beyond a size they lie in a temporary file."""

from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType

MEMORY_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class Spool:
    """Append strings, read them back in any order."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 -- closed by __exit__
        self._end = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, chunks: Iterable[bytes]) -> tuple[int, int]:
        """Append one string given in chunks; returns where it lies (start, length)."""
        start = self._end
        self._file.seek(start)
        for chunk in chunks:
            self._end += self._file.write(chunk)
        return start, self._end - start

    def get(self, place: tuple[int, int]) -> Iterator[bytes]:
        """The string at a place, in chunks."""
        position, length = place
        stop = position + length
        while position < stop:
            self._file.seek(position)
            chunk = self._file.read(min(_CHUNK_BYTES, stop - position))
            position += len(chunk)
            yield chunk
