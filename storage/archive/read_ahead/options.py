"""How much is read ahead, and how much of it is held."""

from dataclasses import dataclass
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ReadAheadOptions:
    """Plain values, from the settings."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: on, except where a bucket is a folder: there a read costs less than a plan."""
    block_bytes: int = 8 * MIB
    """Length of one request of a reader whose order is known."""
    budget_bytes: int = 256 * MIB
    """Bytes held by one process, those on their way included; less than a block: nothing is read ahead."""
    streams: int = 2
    """Blocks on their way at once for one reader; one that is half here makes way for the next, which hides its latency."""

    def __post_init__(self) -> None:
        if self.block_bytes < 1:
            raise ValueError(f"blocks of {self.block_bytes} bytes")
        if self.streams < 1:
            raise ValueError(f"{self.streams} streams")

    @property
    def blocks_ahead(self) -> int:
        """How far beyond a reader blocks are fetched: as many as can be on their way, half arrived ones included."""
        return 2 * self.streams - 1

    def is_on(self, *, cheap_head: bool) -> bool:
        """Whether a bucket is read ahead; `cheap_head` as the bucket says it."""
        wanted = self.mode == "on" or (self.mode == "auto" and not cheap_head)
        return wanted and self.budget_bytes >= self.block_bytes
