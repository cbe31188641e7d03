"""Byte strings kept for a short time in bounded memory: beyond a size they lie in a temporary file."""

from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

MEMORY_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class Spool:
    """Append strings, read them back in any order."""

    def __init__(self) -> None:
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._end = 0
        """Strings are numbered by the bytes before them, wherever those are kept."""
        self._in_file: dict[int, int] = {}
        """Where the others begin in the file."""

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.clear()
        if self._file is not None:
            self._file.close()

    def put(self, chunks: Iterable[bytes]) -> tuple[int, int]:
        """Append one string given in chunks; returns where it lies (start, length)."""
        gathered: list[bytes] = []
        length = 0
        rest = iter(chunks)
        for chunk in rest:
            gathered.append(chunk)
            length += len(chunk)
            if self._held_bytes + length > MEMORY_BYTES:
                length += self._write(gathered, rest)
                break
        else:
            self._held[self._end] = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            self._held_bytes += length
        place = self._end, length
        self._end += length or 1  # an empty string has a number of its own too
        return place

    def get(self, place: tuple[int, int]) -> Iterator[bytes]:
        """The string at a place, in chunks."""
        start, length = place
        held = self._held.get(start)
        if held is not None:
            yield held
            return
        assert self._file is not None  # what is not held was written
        position = self._in_file[start]
        stop = position + length
        while position < stop:
            self._file.seek(position)
            chunk = self._file.read(min(_CHUNK_BYTES, stop - position))
            position += len(chunk)
            yield chunk

    def _write(self, gathered: list[bytes], rest: Iterator[bytes]) -> int:
        """Put a string into the file; returns how many bytes `rest` brought."""
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 -- closed by __exit__
        self._in_file[self._end] = self._file.seek(0, 2)
        self._file.writelines(gathered)
        gathered.clear()
        more = 0
        for chunk in rest:
            more += self._file.write(chunk)
        return more
