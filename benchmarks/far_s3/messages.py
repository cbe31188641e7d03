"""HTTP of the far bucket: a request as it came, and an answer as it goes (RFC 9112)."""

from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

HEAD_BYTES = 64 * 1024
_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    501: "Not Implemented",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request; path and query are decoded, names of headers in small letters."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def name(self) -> str:
        """What is asked, without what does not change the answer's wait."""
        return f"{self.method} {self.key} {self.headers.get('range', '')} {sorted(self.query.items())}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its body lies here, or in a file from `start` to `stop`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: str | None = None
    """Key of the object whose bytes are the body."""
    start: int = 0
    stop: int = 0

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_REASONS[self.status]}"]
        lines += (f"{name}: {value}" for name, value in self.headers.items())
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_request(reader: StreamReader, writer: StreamWriter) -> Request | None:
    """The next request of a connection; None when the client is through, or says what is not HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head[: head.index(b"\r\n")].decode("latin-1").split(" ")
        headers = {}
        for line in head.decode("latin-1").split("\r\n")[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":  # boto3 holds a body back for a second
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, headers)
    except (IncompleteReadError, ConnectionError, ValueError):
        return None
    path, _, query = target.partition("?")
    bucket, _, key = path.removeprefix("/").partition("/")
    return Request(method, bucket, unquote(key), dict(parse_qsl(query, keep_blank_values=True)), headers, body)


async def _body(reader: StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    if "aws-chunked" in headers.get("content-encoding", ""):
        body = _without_signatures(body)
    return body


async def _chunks(reader: StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return bytes(body)


def _without_signatures(body: bytes) -> bytes:
    """The bytes of an `aws-chunked` body: chunks with signatures or a checksum behind them, which are not checked."""
    found, position = bytearray(), 0
    while True:
        stop = body.index(b"\r\n", position)
        size = int(body[position:stop].partition(b";")[0], 16)
        if not size:
            return bytes(found)
        found += body[stop + 2 : stop + 2 + size]
        position = stop + 2 + size + 2
