"""Answers leave in few writes, and every byte arrives once, in order, on its own connection: uvloop and asyncio."""

import asyncio
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, IncompleteRead
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.protocol import JoinedWrites, Pieces
from app.responses import PiecesResponse
from app.server import server_config

LARGE = bytes(range(256)) * 32 * 1024
"""8 MiB: more than a socket takes at once."""
PARTS: list[bytes | memoryview] = [b"\r\n--head\r\n\r\n", memoryview(LARGE)[: 512 * 1024], b"\r\n--head--\r\n"]
SECONDS = 20

Serve = Callable[[ASGIApp], int]


@pytest.fixture(params=["uvloop", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Serves an app as `codweb serve` does, until the test ends; tells the port."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(_serving(app, request.param))


@contextmanager
def _serving(app: ASGIApp, loop: str) -> Iterator[int]:
    config = server_config(app)  # type: ignore[arg-type]  # any ASGI app will do
    config.loop, config.lifespan = loop, "off"
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(SECONDS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each `writev` of the server was given."""
    given: list[int] = []
    real = os.writev

    def writev(descriptor: int, buffers: Sequence[bytes]) -> int:
        given.append(sum(map(len, buffers)))
        return real(descriptor, buffers)

    monkeypatch.setattr(os, "writev", writev)
    return given


def connect(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=SECONDS)


def get(connection: HTTPConnection, path: str = "/", method: str = "GET") -> bytes:
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return body


def received(raw: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    return b"".join(iter(lambda: raw.recv(1 << 20), b""))


async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path, and as many bytes behind it as its last segment says."""
    path = scope["path"]
    await PiecesResponse([path.encode(), LARGE[: int(path.rpartition("/")[2])]], {})(scope, receive, send)


def test_a_frame_leaves_with_one_call(serve: Serve, calls: list[int]) -> None:
    port = serve(PiecesResponse(PARTS, {}))

    with closing(connect(port)) as connection:
        for _ in range(3):
            assert get(connection) == b"".join(PARTS)

    assert len(calls) == 3
    assert all(count > len(b"".join(PARTS)) for count in calls)  # its head too


def test_a_short_answer_leaves_with_one_call(serve: Serve, calls: list[int]) -> None:
    port = serve(Response(b"short"))

    with closing(connect(port)) as connection:
        for _ in range(3):
            assert get(connection) == b"short"

    assert len(calls) == 3


def test_a_stream_is_not_held_while_the_app_waits(serve: Serve) -> None:
    """The head and a short chunk arrive before the app goes on; its next chunk depends on that."""
    arrived = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> Any:
            yield b"first"
            assert await asyncio.to_thread(arrived.wait, SECONDS)
            yield b"second"

        await StreamingResponse(chunks(), headers={"content-length": "11"})(scope, receive, send)

    with closing(connect(serve(app))) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.read(5) == b"first"
        arrived.set()
        assert answer.read() == b"second"


def test_short_chunks_are_sent_as_they_were_when_they_were_given(serve: Serve) -> None:
    """An app may use one buffer for all of its chunks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        buffer = bytearray(1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"256")]})
        for number in range(256):
            buffer[0] = number
            await send({"type": "http.response.body", "body": memoryview(buffer), "more_body": number < 255})

    with closing(connect(serve(app))) as connection:
        assert get(connection) == bytes(range(256))


def test_a_slow_reader_gets_every_byte_once(serve: Serve) -> None:
    port = serve(PiecesResponse([b"begin", LARGE, b"between", LARGE, b"end"], {}))
    expected = b"begin" + LARGE + b"between" + LARGE + b"end"

    with closing(connect(port)) as connection:
        for _ in range(2):  # the connection stays usable
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = bytearray()
            while piece := answer.read(1_000_000):
                body += piece
                time.sleep(0.01)
            assert body == expected


def test_more_pieces_than_one_call_takes(serve: Serve) -> None:
    pieces = [b"%d," % number for number in range(5000)]

    with closing(connect(serve(PiecesResponse(pieces, {})))) as connection:
        assert get(connection) == b"".join(pieces)


def test_a_body_without_pieces_is_a_body(serve: Serve) -> None:
    with closing(connect(serve(PiecesResponse([], {})))) as connection:
        assert [get(connection), get(connection)] == [b"", b""]


@pytest.mark.parametrize("taken", [0, 1, 100, 400_000, BlockingIOError(), BrokenPipeError()])
def test_what_the_socket_does_not_take_goes_through_the_transport(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, taken: int | OSError
) -> None:
    def writev(descriptor: int, buffers: Sequence[bytes]) -> int:
        if isinstance(taken, OSError):
            raise taken
        joined = b"".join(buffers)[:taken]
        return os.write(descriptor, joined) if joined else 0

    monkeypatch.setattr(os, "writev", writev)

    with closing(connect(serve(PiecesResponse(PARTS, {})))) as connection:
        for _ in range(3):
            assert get(connection) == b"".join(PARTS)


def test_pipelined_answers_come_whole_and_in_order(serve: Serve) -> None:
    sizes = [0, 5, 3_000_000, 20_000, 0, 100_000]
    lines = [b"GET /%d HTTP/1.1\r\nHost: a\r\n" % size for size in sizes]
    port = serve(by_path)

    with socket.create_connection(("127.0.0.1", port), SECONDS) as raw:
        raw.sendall(b"\r\n".join(lines) + b"Connection: close\r\n\r\n")
        answers = received(raw)

    for size in sizes:
        head, _, answers = answers.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        expected = b"/%d" % size + LARGE[:size]
        assert answers[: len(expected)] == expected
        answers = answers[len(expected) :]
    assert answers == b""


def test_the_answer_to_head_has_no_body(serve: Serve) -> None:
    with closing(connect(serve(PiecesResponse(PARTS, {})))) as connection:
        assert get(connection, method="HEAD") == b""
        assert get(connection) == b"".join(PARTS)


def test_a_client_that_expects_is_told_to_continue(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await Response(message["body"])(scope, receive, send)

    with socket.create_connection(("127.0.0.1", serve(app)), SECONDS) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"body")
        assert raw.recv(1000).endswith(b"\r\n\r\nbody")


def test_a_connection_that_is_not_kept_gets_its_whole_answer(serve: Serve) -> None:
    with socket.create_connection(("127.0.0.1", serve(by_path)), SECONDS) as raw:
        raw.sendall(b"GET /3000000 HTTP/1.0\r\n\r\n")

        assert received(raw).partition(b"\r\n\r\n")[2] == b"/3000000" + LARGE[:3_000_000]


def test_a_malformed_request_is_answered_and_the_connection_closed(serve: Serve) -> None:
    with socket.create_connection(("127.0.0.1", serve(by_path)), SECONDS) as raw:
        raw.sendall(b"no HTTP at all\r\n\r\n")

        assert received(raw).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_an_upgrade_is_refused_as_before(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.close"})

    with socket.create_connection(("127.0.0.1", serve(app)), SECONDS) as raw:
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert raw.recv(1000).startswith(b"HTTP/1.1 403 ")


def test_an_error_within_a_body_breaks_the_connection(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> Any:
            yield b"first"
            raise RuntimeError

        await StreamingResponse(chunks(), headers={"content-length": "11"})(scope, receive, send)

    with closing(connect(serve(app))) as connection:
        connection.request("GET", "/")
        with pytest.raises(IncompleteRead):
            connection.getresponse().read()


def test_answers_to_a_client_that_went_away_reach_nobody_else(serve: Serve) -> None:
    """Its descriptor's number goes to the next connection while the app still writes for the old one."""
    began, gone, ended = threading.Event(), threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/old":
            return await by_path(scope, receive, send)
        size = 400 * (1000 + 100_000)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        began.set()
        await asyncio.to_thread(gone.wait, SECONDS)
        for _ in range(399):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await send({"type": "http.response.body", "body": Pieces([b"x" * 100_000]), "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    port = serve(app)
    old = socket.create_connection(("127.0.0.1", port), SECONDS)
    old.sendall(b"GET /old HTTP/1.1\r\nHost: a\r\n\r\n")
    assert began.wait(SECONDS)
    old.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    old.close()  # by a reset

    with ExitStack() as stack:
        others = [stack.enter_context(closing(connect(port))) for _ in range(4)]
        gone.set()
        for _ in range(20):
            for number, other in enumerate(others):
                assert get(other, f"/{number}/70000") == f"/{number}/70000".encode() + LARGE[:70_000]
    assert ended.wait(SECONDS)


class _Transport:
    """A transport that only remembers."""

    def __init__(self, *, sslcontext: object = None, closing: bool = False) -> None:
        self.sent: list[bytes] = []
        self._known = {"sslcontext": sslcontext}
        self._closing = closing

    def get_extra_info(self, name: str) -> Any:
        return self._known[name]

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"<closed>")

    abort = close


class _Loop:
    def call_soon(self, call: Callable[[], None]) -> None:
        pass


def joined(transport: _Transport) -> JoinedWrites:
    return JoinedWrites(transport, _Loop())  # type: ignore[arg-type]  # as much of both as it uses


def test_nothing_is_written_past_an_encrypting_transport(calls: list[int]) -> None:
    transport = _Transport(sslcontext=object())

    writes = joined(transport)
    writes.write(b"head")
    writes.write(Pieces([b"a", b"b"]))
    writes.close()

    assert transport.sent == [b"head", b"a", b"b", b"<closed>"]
    assert calls == []


def test_what_waits_is_sent_before_closing_and_lost_by_an_abort() -> None:
    transport = _Transport(sslcontext=object())
    writes = joined(transport)
    writes.write(b"head")
    writes.close()

    aborted = _Transport(sslcontext=object())
    writes = joined(aborted)
    writes.write(b"head")
    writes.abort()
    writes.flush()

    assert transport.sent == [b"head", b"<closed>"]
    assert aborted.sent == [b"<closed>"]


def test_nothing_is_sent_on_a_connection_that_is_closing() -> None:
    transport = _Transport(sslcontext=object(), closing=True)

    writes = joined(transport)
    writes.write(b"head")
    writes.write(b"x" * 100_000)
    writes.flush()

    assert transport.sent == []


def test_short_writes_wait_up_to_64_kib() -> None:
    transport = _Transport(sslcontext=object())

    writes = joined(transport)
    for _ in range(9):
        writes.write(b"x" * 8000)

    assert [len(sent) for sent in transport.sent] == [64_000, 8000]
