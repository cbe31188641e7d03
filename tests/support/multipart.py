"""An independent reader of multipart bodies: Python's own email parser."""

from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message

import httpx


@dataclass(frozen=True)
class Part:
    headers: Message
    body: bytes


def parts_of(response: httpx.Response) -> list[Part]:
    """The parts of a multipart/related answer, payloads untouched."""
    content_type = response.headers["content-type"]
    assert content_type.startswith("multipart/related"), content_type
    boundary = Message()
    boundary["content-type"] = content_type
    delimiter = b"--" + str(boundary.get_param("boundary")).encode()
    body = response.content
    assert body.startswith(delimiter + b"\r\n")
    assert body.endswith(b"\r\n" + delimiter + b"--\r\n")
    inner = body[len(delimiter) + 2 : -(len(delimiter) + 6)]
    parts = []
    for raw in inner.split(b"\r\n" + delimiter + b"\r\n"):
        head, _, payload = raw.partition(b"\r\n\r\n")
        parts.append(Part(message_from_bytes(head + b"\r\n\r\n"), payload))
    return parts
