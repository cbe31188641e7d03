"""What each process of a server says of itself, in memory that all of them share: a slot each, written by its owner."""

import ctypes
import multiprocessing
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, str | int]
"""One process, as JSON."""
_PROCESS, _RESIDENT, _PRIVATE, _TAKEN, _OPEN, _CELLS = range(6)


@dataclass(frozen=True, slots=True)
class Board:
    """Slots by number, one for each name. A cell is one aligned word, so it is read whole while it is written."""

    names: Sequence[str]
    cells: Any  # an array of ctypes.c_uint64, for which the standard library has no public type

    @classmethod
    def of(cls, *names: str) -> "Board":
        """An empty board; it may be handed to processes that are spawned."""
        return cls(names, multiprocessing.get_context("spawn").RawArray(ctypes.c_uint64, len(names) * _CELLS))

    def report_memory(self, slot: int) -> None:
        """This process owns the slot, and uses so much memory now."""
        resident, private = memory_in_use()
        self._put(slot, _RESIDENT, resident)
        self._put(slot, _PRIVATE, private)
        self._put(slot, _PROCESS, os.getpid())

    def report_connections(self, slot: int, *, taken: int, open: int) -> None:
        """This process has been given so many connections in its life, and so many are open now."""
        self._put(slot, _OPEN, open)
        self._put(slot, _TAKEN, taken)

    def connections(self, slot: int) -> tuple[int, int]:
        """Connections taken and open, as last reported."""
        return self._get(slot, _TAKEN), self._get(slot, _OPEN)

    def clear(self, slot: int) -> None:
        """The process of this slot has ended."""
        for cell in range(_CELLS):
            self._put(slot, cell, 0)

    def rows(self) -> list[Row]:
        """The processes that live, for people and monitors."""
        return [
            {
                "name": name,
                "pid": self._get(slot, _PROCESS),
                "rss_bytes": self._get(slot, _RESIDENT),
                "private_bytes": self._get(slot, _PRIVATE),
            }
            for slot, name in enumerate(self.names)
            if self._get(slot, _PROCESS)
        ]

    def _get(self, slot: int, cell: int) -> int:
        return int(self.cells[slot * _CELLS + cell])

    def _put(self, slot: int, cell: int, value: int) -> None:
        self.cells[slot * _CELLS + cell] = value


def memory_in_use() -> tuple[int, int]:
    """Resident bytes of this process, and how many of them are its own: the rest are pages of files, index files above all.

    Where there is no /proc (macOS) both are the most that it ever had.
    """
    with suppress(OSError):
        resident, shared = (int(pages) * _PAGE_BYTES for pages in Path("/proc/self/statm").read_text().split()[1:3])
        return resident, resident - shared
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


_PAGE_BYTES = resource.getpagesize()
