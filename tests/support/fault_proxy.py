"""An HTTP proxy before a store that harms chosen requests: late, refused, cut off, dripping, lost.

It lives on the event loop of the test. Each request goes to the store over a connection of its own, unchanged but for
`Expect` and `Connection`; clients may keep theirs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Delay:
    """The request is heard so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The store is not asked; this is the answer."""

    status: int = 503
    headers: tuple[str, ...] = ()
    """Whole lines, e.g. `Retry-After: 3`."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection breaks instead of an answer; with `is_heard` the store has done what it was asked."""

    is_heard: bool = False


@dataclass(frozen=True, slots=True)
class Shorten:
    """So many bytes of the body, and the end of the connection."""

    keep: int


@dataclass(frozen=True, slots=True)
class Drip:
    """The body in pieces with pauses between them."""

    piece_bytes: int
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class Act:
    """Something happens to the store before the request is heard."""

    action: Callable[[], None]


Fault = Delay | Refuse | Reset | Shorten | Drip | Act


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in small letters."""


@dataclass(slots=True)
class _Rule:
    fault: Fault
    times: int
    method: str
    contains: str
    header: str

    def meets(self, seen: Seen) -> bool:
        return (
            self.method in ("", seen.method)
            and self.contains in seen.target
            and (self.header == "" or self.header in seen.headers)
        )


@dataclass(slots=True)
class FaultProxy:
    """Where clients go (`url`), and what is to happen to them."""

    url: str
    upstream: str
    requests: list[Seen] = field(default_factory=list)
    open_connections: int = 0
    _rules: list[_Rule] = field(default_factory=list)

    def strike(self, fault: Fault, *, times: int = 1, method: str = "", contains: str = "", header: str = "") -> None:
        """Let `fault` meet the next requests of this method whose target contains this text and who have this header."""
        self._rules.append(_Rule(fault, times, method, contains, header))

    def heal(self) -> None:
        """Forget all faults and all requests."""
        self._rules.clear()
        self.requests.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:  # the test is over; the server's own callback would print it
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection lasts."""
        head = await reader.readuntil(b"\r\n\r\n")
        seen = _parse(head)
        if "expect" in seen.headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(seen.headers.get("content-length", 0)))
        self.requests.append(seen)
        fault = self._fault(seen)
        match fault:
            case Delay(seconds):
                await _unless_left(reader, seconds)
            case Refuse(status, headers, refusal):
                lines = [f"HTTP/1.1 {status} Refused", f"Content-Length: {len(refusal)}", *headers, "", ""]
                writer.write("\r\n".join(lines).encode() + refusal)
                return True
            case Reset(is_heard):
                if is_heard:
                    await self._ask(head, body, seen.method)
                writer.transport.abort()
                return False
            case Act(action):
                action()
            case _:
                pass
        answer_head, answer_body = await self._ask(head, body, seen.method)
        writer.write(answer_head)
        if isinstance(fault, Shorten):
            writer.write(answer_body[: fault.keep])
            await writer.drain()
            return False
        if isinstance(fault, Drip):
            for start in range(0, len(answer_body), fault.piece_bytes):
                writer.write(answer_body[start : start + fault.piece_bytes])
                await writer.drain()
                if start + fault.piece_bytes < len(answer_body):  # behind the last one the next request may come
                    await _unless_left(reader, fault.pause_seconds)
            return True
        writer.write(answer_body)
        await writer.drain()
        return True

    def _fault(self, seen: Seen) -> Fault | None:
        for rule in self._rules:
            if rule.times > 0 and rule.meets(seen):
                rule.times -= 1
                return rule.fault
        return None

    async def _ask(self, head: bytes, body: bytes, method: str) -> tuple[bytes, bytes]:
        """The store's answer: its head, with the length of the body, and the body."""
        parts = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"expect:", b"connection:"))]
            lines.insert(1, b"Connection: close")
            writer.write(b"\r\n".join(lines) + body)
            answer_head = await reader.readuntil(b"\r\n\r\n")
            while answer_head.startswith(b"HTTP/1.1 100"):
                answer_head = await reader.readuntil(b"\r\n\r\n")
            answer_body = b"" if method == "HEAD" else await reader.read(-1)
        finally:
            writer.close()
        lines = answer_head.rstrip(b"\r\n").split(b"\r\n")
        if any(line.lower().startswith(b"transfer-encoding:") for line in lines):
            answer_body = _joined(answer_body)
            lines.append(b"Content-Length: %d" % len(answer_body))
        hidden = (b"connection:", b"transfer-encoding:", b"keep-alive:")
        lines = [line for line in lines if not line.lower().startswith(hidden)]
        return b"\r\n".join(lines) + b"\r\n\r\n", answer_body


@asynccontextmanager
async def fault_proxy(upstream: str) -> AsyncIterator[FaultProxy]:
    """A proxy before the store at `upstream`, on a free port, as long as the context lasts."""
    proxy = FaultProxy("", upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()


async def _unless_left(reader: asyncio.StreamReader, seconds: float) -> None:
    """Wait, but no longer than the client does."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            if await reader.read(1) == b"":
                raise ConnectionResetError("the client has left")


def _parse(head: bytes) -> Seen:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    named = [line.split(":", 1) for line in lines]
    return Seen(method, target, {name.strip().lower(): value.strip() for name, value in named})


def _joined(chunked: bytes) -> bytes:
    """A chunked body in one piece (RFC 9112 §7.1)."""
    joined, rest = b"", chunked
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            return joined
        joined += rest[:length]
        rest = rest[length + 2 :]
