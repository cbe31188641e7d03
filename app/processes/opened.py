"""Which series somebody opened: every worker tells the maintenance process, which deepens those first.

A pair of datagram sockets that the parent keeps open: either side may die and be started again, and what was told
meanwhile waits. When it is full, what is told is lost: the maintenance process comes by every series in the end.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from storage.keys import SeriesKey
from storage.series_index.reader import SeriesIndex

_WAITING_BYTES = 128 * 1024
"""Some hundred series, as the kernel counts them."""
_LARGEST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class OpenedSeries:
    """Both ends, which may be handed to processes that are spawned."""

    told: socket.socket
    heard: socket.socket

    @classmethod
    def pair(cls) -> "OpenedSeries":
        heard, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end, option in ((told, socket.SO_SNDBUF), (heard, socket.SO_RCVBUF)):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, option, _WAITING_BYTES)
        return cls(told, heard)

    def tell(self, index: SeriesIndex) -> None:
        """A series was opened; said only while its index is quick."""
        if index.header.depth == "quick":
            with suppress(OSError):  # nobody listens, or too much waits
                self.told.send(f"{index.key.study_uid}/{index.key.series_uid}".encode())

    def waiting(self) -> Iterator[SeriesKey]:
        """The series that were told since the last call, oldest first."""
        while True:
            try:
                text = self.heard.recv(_LARGEST_BYTES).decode()
            except BlockingIOError:
                return
            study_uid, _, series_uid = text.partition("/")
            yield SeriesKey(study_uid, series_uid)

    def close(self) -> None:
        self.told.close()
        self.heard.close()
