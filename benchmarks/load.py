"""The client: HTTP/1.1 over kept connections, on plain sockets, so that it costs little beside what it measures.

`Connection.get` keeps a whole answer, for checking. `one_client` asks one question after the other and times each;
`many_clients` keeps a number of connections busy from one thread. Both compare the status and the length of every answer
with what was checked before; neither looks into the bytes while the clock runs.
"""

import gc
import selectors
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import quantiles
from time import perf_counter
from types import TracebackType
from typing import Self

TIMEOUT_SECONDS = 30
_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 64 * 1024
_SMALL_HEAD_BYTES = 4096
"""No head of the measured answers is longer."""
HOST = "127.0.0.1"


class Unanswered(Exception):
    """An answer that is broken, late, or not the one that was checked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and what of its answer is compared while the clock runs."""

    request: bytes
    length: int
    """Bytes of the body, as it was checked."""


@dataclass(frozen=True, slots=True)
class Times:
    """What a stretch of asking took."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    count: int
    bytes: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


def encode(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A GET request; a Host among the headers stands for another address of the same server."""
    fields = {"Host": HOST, **(headers or {})}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """One kept connection, used by one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = _connected(port)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._pending = b""
        """Bytes that came and are not consumed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def get(self, request: bytes) -> Answer:
        """Ask, and keep the answer."""
        begun = perf_counter()
        self._socket.sendall(request)
        status, headers = self._head()
        body = bytearray()
        for piece in self._body(headers):
            body += piece
        return Answer(status, headers, bytes(body), perf_counter() - begun)

    def length(self, request: bytes) -> int:
        """Ask, and count the bytes of the answer's body. Raises Unanswered for a status other than 200."""
        self._socket.sendall(request)
        status, headers = self._head()
        if status != 200:
            raise Unanswered(f"status {status}")
        return sum(len(piece) for piece in self._body(headers))

    def _head(self) -> tuple[int, dict[str, str]]:
        self._need(b"\r\n\r\n")
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        return _parse_head(head)

    def _body(self, headers: Mapping[str, str]) -> Iterator[memoryview | bytes]:
        if "content-length" in headers:
            yield from self._exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(self._line(), 16):
                yield from self._exactly(size)
                self._line()
            self._line()
        else:
            yield from self._until_closed()

    def _until_closed(self) -> Iterator[memoryview | bytes]:
        """A body whose end is the end of the connection (RFC 9112 §6.3), as Orthanc sends long ones."""
        yield self._pending
        self._pending = b""
        while got := self._socket.recv_into(self._buffer):
            yield self._buffer[:got]
        self._socket.close()
        self._socket = _connected(self._port)

    def _exactly(self, size: int) -> Iterator[memoryview | bytes]:
        if self._pending:
            piece, self._pending = self._pending[:size], self._pending[size:]
            size -= len(piece)
            yield piece
        while size:
            got = self._socket.recv_into(self._buffer, min(size, _BUFFER_BYTES))
            if not got:
                raise Unanswered(f"the connection broke with {size} bytes missing")
            size -= got
            yield self._buffer[:got]

    def _line(self) -> bytes:
        self._need(b"\r\n")
        line, _, self._pending = self._pending.partition(b"\r\n")
        return line

    def _need(self, mark: bytes) -> None:
        while mark not in self._pending:
            got = self._socket.recv(_HEAD_BYTES)
            if not got or len(self._pending) > _HEAD_BYTES:
                raise Unanswered("the connection broke within a head")
            self._pending += got


def one_client(port: int, asked: Sequence[Asked], *, seconds: float, least: int) -> Times:
    """Ask in turn on one connection, for some seconds and at least so many times."""
    taken = []
    transferred = 0
    with Connection(port) as connection, _no_collection():
        connection.length(asked[0].request)
        begun = last = perf_counter()
        for one in cycle(asked):
            length = connection.length(one.request)
            now = perf_counter()
            if length != one.length:
                raise Unanswered(f"{length} bytes instead of {one.length}")
            transferred += length
            taken.append(now - last)
            last = perf_counter()
            if last - begun >= seconds and len(taken) >= least:
                return _times(taken, transferred, last - begun)
    raise AssertionError("a cycle ends")


def many_clients(port: int, asked: Sequence[Asked], clients: int, *, seconds: float) -> Times:
    """Keep `clients` connections busy for some seconds and so many answers; each asks again as soon as it is answered."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    questions = cycle(asked)
    taken: list[float] = []
    transferred = 0
    with selectors.DefaultSelector() as selector, _no_collection():
        lines = [_Line(port) for _ in range(clients)]
        try:
            begun = perf_counter()
            for line in lines:
                selector.register(line.socket, selectors.EVENT_READ, line)
                line.ask(next(questions), begun)
            while (now := perf_counter()) - begun < seconds or len(taken) < clients:
                ready = selector.select(TIMEOUT_SECONDS)
                if not ready:
                    raise Unanswered(f"no answer for {TIMEOUT_SECONDS} seconds")
                for key, _ in ready:
                    line = key.data
                    if line.take(buffer):
                        now = perf_counter()
                        taken.append(now - line.asked_at)
                        transferred += line.asked.length
                        line.ask(next(questions), now)
            return _times(taken, transferred, now - begun)
        finally:
            for line in lines:
                line.socket.close()


class _Line:
    """One of many connections."""

    def __init__(self, port: int) -> None:
        self.socket = _connected(port)
        self.asked = Asked(b"", 0)
        self.asked_at = 0.0
        self._missing: int | None = None
        """Bytes of the body still to come; None within the head."""

    def ask(self, asked: Asked, now: float) -> None:
        self.asked, self.asked_at, self._missing = asked, now, None
        self.socket.sendall(asked.request)

    def take(self, buffer: memoryview) -> bool:
        """Take what has come; whether the answer is whole."""
        got = self.socket.recv_into(buffer)
        if not got:
            raise Unanswered("the connection broke")
        if self._missing is None:
            # comes in one piece: both servers write it at once, and it is far smaller than a segment of the loopback
            head, mark, _ = bytes(buffer[: min(got, _SMALL_HEAD_BYTES)]).partition(b"\r\n\r\n")
            status, headers = _parse_head(head)
            length = int(headers.get("content-length", -1))
            if not mark or status != 200 or length != self.asked.length:
                raise Unanswered(f"status {status} and {length} bytes instead of {self.asked.length}")
            self._missing = length
            got -= len(head) + len(mark)
        self._missing -= got
        if self._missing < 0:
            raise Unanswered("more bytes than the answer has")
        return self._missing == 0


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if version != "HTTP/1.1" or not rest[:3].isdigit():
        raise Unanswered("not an HTTP answer")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), headers


def _times(taken: Sequence[float], transferred: int, seconds: float) -> Times:
    """Of at least one answer."""
    cuts = quantiles([*taken, *taken] if len(taken) == 1 else taken, n=100, method="inclusive")
    return Times(cuts[49] * 1e3, cuts[94] * 1e3, cuts[98] * 1e3, len(taken), transferred, seconds)


@contextmanager
def _no_collection() -> Iterator[None]:
    """The client's garbage waits until the clock has stopped."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
