"""The processes of one server, as one of them sees it."""

from collections.abc import Callable
from dataclasses import dataclass

from app.processes.board import Board, Row
from storage.series_index.reader import SeriesIndex


@dataclass(frozen=True, slots=True)
class Crew:
    """Who else is there, and how to tell them."""

    board: Board
    slot: int
    """Its own place on the board."""
    tell_opened: Callable[[SeriesIndex], None]
    """Tells the process that deepens that somebody opened this series."""

    @classmethod
    def of_one(cls) -> "Crew":
        """A process that does everything itself."""
        return cls(Board.of("server"), 0, lambda index: None)

    def processes(self) -> list[Row]:
        """Name, process id and memory of each process that lives: this one's as of now, of others a second old."""
        self.board.report_memory(self.slot)
        return self.board.rows()
