"""The parent of workers and maintenance: accepts, hands out, starts again, and ends all of them in peace.

Each connection goes to the worker with the fewest. Measured against the two ways without a hand in between, 17 connections
of wrk to 4 workers came out as 5, 4, 4, 4 here, as 7, 4, 4, 2 by SO_REUSEPORT (which chooses by a hash) and as 10, 5, 1, 1
from one inherited socket (whoever wakes first takes what is there); viewers keep six connections open for hours, so it
matters. A handed connection costs some 60 µs, once. macOS does not spread SO_REUSEPORT at all.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

from app.processes.board import Board
from app.processes.maintenance import run_maintenance
from app.processes.opened import OpenedSeries
from app.processes.worker import CONNECTION, run_worker
from app.server import GRACE_SECONDS
from app.settings import Settings
from storage.child_process import interrupts_blocked

logger = logging.getLogger("codweb")

_PRELOADED = ["app.cli", "app.processes.worker", "app.processes.maintenance"]
_LONGEST_STOP_SECONDS = GRACE_SECONDS + 3
"""After that, children are killed."""
_SOUND_SECONDS = 10.0
"""A process that lived so long did not die of its start: it is started again at once."""
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_UNKNOWN_EXIT = 255
"""What multiprocessing tells when the process that it forks others from was killed: they may live, and are not ours any more."""
_ACCEPTED_AT_ONCE = 64
_BREATH_SECONDS = 1.0
"""Wait after the system refused a connection for want of descriptors or memory."""
_REPORT_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class _Member:
    """One of the processes; its name and slot stay, whatever dies."""

    slot: int
    name: str
    target: Callable[..., None]
    process: BaseProcess | None = None
    channel: socket.socket | None = None
    """Our end, of a worker that lives."""
    is_ready: bool = False
    handed: int = 0
    """Connections handed to the present process."""
    failures: int = 0
    """Times in a row that it died soon after its start."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs the processes of one server."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        names = [f"worker {number}" for number in range(1, settings.workers + 1)]
        self._board = Board.of("supervisor", "maintenance", *names)
        self._maintenance = _Member(1, "maintenance", run_maintenance)
        self._workers = [_Member(slot, name, run_worker) for slot, name in enumerate(names, 2)]
        self._opened = OpenedSeries.pair()
        self._context = _context()
        self._stopping = asyncio.Event()
        self._is_watching = False

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, let everybody finish what is under way, and return; a second signal ends it now."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        self._listening.setblocking(False)
        try:
            async with asyncio.TaskGroup() as group:
                for member in self._members:
                    group.create_task(self._keep(member))
                group.create_task(self._report())
                group.create_task(self._end())
        finally:
            self._kill()
            self._opened.close()

    @property
    def _members(self) -> list[_Member]:
        return [*self._workers, self._maintenance]

    # Keeping them alive

    async def _keep(self, member: _Member) -> None:
        """Start a process, and again when it has died, until all are to stop."""
        while not self._stopping.is_set():
            began = monotonic()
            try:
                process = self._start(member)
            except (OSError, EOFError) as error:  # EOFError: the process that forks has died of it
                logger.error("%s could not be started and will be tried again: %s", member.name, error)
                self._part_from(member)
                await self._wait(_LONGEST_WAIT_SECONDS)
                continue
            await member.ended.wait()
            process.join()
            if process.exitcode == _UNKNOWN_EXIT and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
            self._forget(member)
            if self._stopping.is_set():
                return
            lived = monotonic() - began
            member.failures = 0 if lived > _SOUND_SECONDS else member.failures + 1
            wait = (
                min(_FIRST_WAIT_SECONDS * 2 ** (member.failures - 1), _LONGEST_WAIT_SECONDS) if member.failures else 0
            )
            logger.error(
                "%s (process %d) %s after %.1f s; it is started again%s",
                member.name, process.pid, _how_it_ended(process), lived, f" in {wait:g} s" if wait else "",
            )  # fmt: skip
            await self._wait(wait)

    async def _wait(self, seconds: float) -> None:
        """Wait, unless all are to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _start(self, member: _Member) -> BaseProcess:
        arguments: list[Any] = [self._settings, self._board, member.slot, self._opened]  # what the targets take
        theirs: socket.socket | None = None
        if member.target is run_worker:
            member.channel, theirs = socket.socketpair()
            member.channel.setblocking(False)
            arguments.append(theirs)
        process = self._context.Process(target=member.target, args=arguments, name=member.name)
        try:
            with interrupts_blocked():
                process.start()
        finally:
            if theirs is not None:
                theirs.close()
        member.process, member.handed = process, 0
        member.ended.clear()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, self._on_end, member, process.sentinel)
        if member.channel is not None:
            loop.add_reader(member.channel, self._on_ready, member)
        logger.debug("%s is process %d", member.name, process.pid)
        return process

    def _on_end(self, member: _Member, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self._part_from(member)
        member.ended.set()

    def _on_ready(self, member: _Member) -> None:
        """A worker can take connections now; or its end of the channel is closed, and it never will again."""
        assert member.channel is not None  # closed together with this reader
        try:
            said = member.channel.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        member.is_ready = bool(said)
        if said:
            self._watch()
        else:
            self._part_from(member)

    def _part_from(self, member: _Member) -> None:
        """Hand nothing more to a worker."""
        member.is_ready = False
        if member.channel is not None:
            asyncio.get_running_loop().remove_reader(member.channel)
            member.channel.close()
            member.channel = None
        self._watch()

    def _forget(self, member: _Member) -> None:
        self._board.clear(member.slot)
        member.process = None

    # Handing out connections

    def _watch(self) -> None:
        """Accept while there is somebody who answers; meanwhile clients wait in the queue of the listening socket."""
        wanted = not self._stopping.is_set() and any(member.is_ready for member in self._workers)
        if wanted == self._is_watching:
            return
        self._is_watching = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_reader(self._listening, self._accept)
        else:
            loop.remove_reader(self._listening)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("cannot accept connections just now: %s", error.strerror)
                asyncio.get_running_loop().remove_reader(self._listening)
                self._is_watching = False
                asyncio.get_running_loop().call_later(_BREATH_SECONDS, self._watch)
                return
            with connection:
                self._hand_out(connection)

    def _hand_out(self, connection: socket.socket) -> None:
        """To the worker with the fewest connections; of equals, to the one that was given the fewest."""
        for member in sorted(self._workers, key=lambda member: (self._load(member), member.handed)):
            if not member.is_ready or member.channel is None:
                continue
            try:
                socket.send_fds(member.channel, [CONNECTION], [connection.fileno()])
            except OSError:  # it is dying, or so busy that its queue is full
                continue
            member.handed += 1
            return
        logger.warning("a connection was closed: no worker could take it")

    def _load(self, member: _Member) -> int:
        """Connections of a worker: those that it has, and those that are on their way to it."""
        taken, is_open = self._board.connections(member.slot)
        return member.handed - taken + is_open

    async def _report(self) -> None:
        while not self._stopping.is_set():
            self._board.report_memory(0)
            await self._wait(_REPORT_SECONDS)

    # The end

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._kill()
            return
        self._stopping.set()
        self._watch()
        self._listening.close()
        for member in self._members:
            if member.process is not None:
                member.process.terminate()

    async def _end(self) -> None:
        """Wait for the end of all; longer than that nobody may take."""
        await self._stopping.wait()
        living = [member for member in self._members if member.process is not None]
        if not living:
            return
        _, late = await asyncio.wait(
            [asyncio.create_task(member.ended.wait()) for member in living], timeout=_LONGEST_STOP_SECONDS
        )
        if late:
            logger.warning("%d processes did not end in %d s and are killed", len(late), _LONGEST_STOP_SECONDS)
            self._kill()
            await asyncio.wait(late)

    def _kill(self) -> None:
        for member in self._members:
            if member.process is not None and member.process.is_alive():
                member.process.kill()


def _context() -> ForkServerContext | SpawnContext:
    """How processes are started.

    On Linux they are forked from one that has imported everything and done nothing: the imports (1.3 s of one core) are
    paid for once, not by each process and each restart, and their memory is shared. macOS's libraries do not survive a fork.
    """
    if sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        return context
    else:
        return multiprocessing.get_context("spawn")


def _how_it_ended(process: BaseProcess) -> str:
    code = process.exitcode
    assert code is not None  # it was joined
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
