"""A worker: answers requests on the connections that the supervisor hands to it."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from app.log import start_logging
from app.main import create_app
from app.processes.board import Board
from app.processes.crew import Crew
from app.processes.opened import OpenedSeries
from app.server import server_config
from app.settings import Settings
from storage.child_process import end_with_the_parent

logger = logging.getLogger("codweb")

READY = b"r"
CONNECTION = b"c"
MOST_AT_ONCE = 64
"""Connections in one message at most: the kernel allows 253."""
_TICKS_BETWEEN_REPORTS = 10
"""uvicorn ticks ten times a second."""


def run_worker(settings: Settings, board: Board, slot: int, opened: OpenedSeries, channel: socket.socket) -> None:
    """Answer until SIGTERM, finish what is under way, and return.

    Args:
        channel: brings connections, each a byte with a descriptor; one byte goes back when the first may come.
    """
    end_with_the_parent()
    start_logging(settings.log_level, process=board.names[slot])
    app = create_app(settings, crew=Crew(board=board, slot=slot, tell_opened=opened.tell))
    _HandedServer(server_config(app), board, slot, channel).run(sockets=[])


class _HandedServer(uvicorn.Server):
    """A server that does not listen: connections come through a channel, accepted already."""

    def __init__(self, config: uvicorn.Config, board: Board, slot: int, channel: socket.socket) -> None:
        super().__init__(config)
        self._board = board
        self._slot = slot
        self._channel = channel
        self._taken = 0
        self._beginning: set[asyncio.Task[None]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, which would raise the signal once more at the end; until here SIGTERM simply ends the process."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._board.report_memory(self._slot)
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._receive)
        self._channel.send(READY)

    async def on_tick(self, counter: int) -> bool:
        self._report_connections()
        if counter % _TICKS_BETWEEN_REPORTS == 0:
            self._board.report_memory(self._slot)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        while self._receive():  # those that were handed over before the supervisor heard of the end
            pass
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()  # which says that this process takes no more
        if self._beginning:
            await asyncio.wait(self._beginning)
        await super().shutdown(sockets)

    def _receive(self) -> bool:
        """Take what was handed over; False if there was nothing."""
        try:
            said, descriptors, _, _ = socket.recv_fds(self._channel, MOST_AT_ONCE, MOST_AT_ONCE)
        except OSError:  # nothing there, or the channel is closed
            return False
        if not said:  # the supervisor has given this process up
            asyncio.get_running_loop().remove_reader(self._channel)
            self.should_exit = True
        for descriptor in descriptors:
            self._taken += 1
            task = asyncio.create_task(self._begin(socket.socket(fileno=descriptor)))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        self._report_connections()
        return bool(said)

    async def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError as error:  # it was closed on its way here
            logger.debug("a connection was lost before it began: %s", error)
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]  # as uvicorn does

    def _report_connections(self) -> None:
        is_open = len(self.server_state.connections) + len(self._beginning)
        self._board.report_connections(self._slot, taken=self._taken, open=is_open)
