"""The known pieces of one byte sequence: parsers ask it for bytes, and say which ones are missing.

Parsers are plain functions over a `Window`. The caller that waits on the network catches `MissingBytes`, fetches
[start, max(stop, start + a doubling amount)), adds it, and runs the parser again from its beginning. So the hard half
is tested without a bucket, and one parser serves header windows and whole instances alike.
"""

from bisect import bisect_right

from storage.errors import InstanceUnreadable


class MissingBytes(Exception):
    """A parser needs bytes [start, stop) of the sequence and the window does not hold all of them.

    Not a `StorageError`: nothing is wrong, something has to be fetched.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"bytes [{start}, {stop}) are needed")
        self.start = start
        self.stop = stop


class Window:
    """Pieces of a byte sequence of `size` bytes, sorted by position, never overlapping."""

    __slots__ = ("_pieces", "_starts", "size")

    def __init__(self, size: int) -> None:
        if size < 0:
            raise InstanceUnreadable(f"a sequence of {size} bytes")
        self.size = size
        self._starts: list[int] = []
        self._pieces: list[memoryview] = []

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> "Window":
        """A window that holds everything."""
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        window = cls(len(view))
        window.add(0, view)
        return window

    def add(self, start: int, data: bytes | bytearray | memoryview) -> None:
        """Learn bytes from `start` on; what is already known stays as it is.

        Raises:
            InstanceUnreadable: the bytes do not lie inside the sequence.
        """
        view = memoryview(data)
        stop = start + len(view)
        if start < 0 or stop > self.size:
            raise InstanceUnreadable(f"bytes [{start}, {stop}) of a sequence of {self.size}")
        position = start
        while position < stop:
            index = bisect_right(self._starts, position)
            if index and self._starts[index - 1] + len(self._pieces[index - 1]) > position:
                position = self._starts[index - 1] + len(self._pieces[index - 1])
                continue
            gap_stop = min(stop, self._starts[index]) if index < len(self._starts) else stop
            self._starts.insert(index, position)
            self._pieces.insert(index, view[position - start : gap_stop - start])
            position = gap_stop

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes [start, stop): no copy when one piece holds them.

        Raises:
            MissingBytes: some of them are not known yet.
            InstanceUnreadable: they do not lie inside the sequence.
        """
        if not 0 <= start <= stop <= self.size:
            raise InstanceUnreadable(f"bytes [{start}, {stop}) of a sequence of {self.size}")
        if start == stop:
            return memoryview(b"")
        index = bisect_right(self._starts, start) - 1
        if index < 0:
            raise MissingBytes(start, stop)
        base, piece = self._starts[index], self._pieces[index]
        if stop - base <= len(piece):
            return piece[start - base : stop - base]
        return memoryview(self._joined(index, start, stop))

    def piece_at(self, position: int, length: int) -> tuple[memoryview, int]:
        """A piece, and the position of its first byte, that holds `length` bytes at `position` (fewer at the very end).

        For loops that read many small values and would rather not ask for each of them.

        Raises:
            MissingBytes: the bytes are not known yet.
            InstanceUnreadable: `position` does not lie inside the sequence.
        """
        stop = min(position + length, self.size)
        index = bisect_right(self._starts, position) - 1
        if index >= 0:
            base, piece = self._starts[index], self._pieces[index]
            if position >= 0 and stop - base <= len(piece):
                return piece, base
        return self.view(position, stop), position

    def _joined(self, index: int, start: int, stop: int) -> bytes:
        """Bytes that lie across neighbouring pieces, from the piece `index` that holds `start`."""
        parts: list[memoryview] = []
        position = start
        while position < stop:
            if index == len(self._starts) or not self._starts[index] <= position:
                raise MissingBytes(position, stop)
            base, piece = self._starts[index], self._pieces[index]
            if base + len(piece) <= position:
                raise MissingBytes(position, stop)
            part = piece[position - base : stop - base]
            parts.append(part)
            position += len(part)
            index += 1
        return b"".join(parts)
