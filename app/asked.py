"""What a request says of itself beside its path, read once for each way of asking.

A viewer asks thousands of times in the same way: the same Host, Accept and User-Agent. What follows from them is kept by
those headers, so that a frame costs a look-up instead of half a dozen parsers.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address

from app.accept import Accept, parse_accept
from app.address import service_root
from app.coding import choose_coding
from app.errors import NotAcceptable
from app.negotiation import FrameForm
from app.query import decode_query
from app.settings import Settings
from storage.series_index.splice import Coding

TELLING = frozenset(
    {
        b"host", b"accept", b"accept-encoding", b"user-agent",
        b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-proto",
    }
)  # fmt: skip
"""Headers from which all of this follows, and nothing else does."""

_READER_CHARS = 512
_PORTS = re.compile(r"(?<=[0-9\]]):[0-9]{1,5}(?=[\s,;\"]|$)")
"""Ports of forwarded addresses: some proxies name the connection's, and a viewer has six of them."""

RawHeaders = tuple[tuple[bytes, bytes], ...]


class Asked:
    """One way of asking. Fields are worked out when they are first needed; what fails is worked out again."""

    def __init__(
        self,
        settings: Settings,
        prefix: str,
        scheme: str,
        port: int | None,
        peer: str,
        query: bytes,
        headers: RawHeaders,
    ) -> None:
        """Args:
        prefix: path of the service root.
        scheme, port: of the connection; None for a Unix socket.
        peer: address of the other end; empty if it is not known, or nobody wants to know.
        headers: those of `TELLING`, in their order.
        """
        self._settings = settings
        self._prefix = prefix
        self._scheme = scheme
        self._port = port
        self._peer = peer
        self._query = query
        self._headers = headers
        self.forms: dict[tuple[str, bool, bool, bool], FrameForm] = {}
        """Forms that were chosen for this Accept: by transfer syntax, native, big endian, and whether one frame is asked."""

    @cached_property
    def root(self) -> str:
        """The service root by which the client reached this server. Raises UnknownHost."""
        settings = self._settings
        return service_root(
            self._scheme,
            self._joined,
            self._peer or None,
            self._port,
            prefix=self._prefix,
            public_url=settings.public_url or None,
            trusted_proxies=settings.proxy_networks,
            allowed_hosts=settings.allowed_hosts,
        )

    @cached_property
    def accept(self) -> Accept:
        """What the client accepts: the `accept` parameter first, then the header (PS3.18 §8.3.3.1).

        Raises:
            NotAcceptable: in strict mode, a request without either (PS3.18 §8.7.5).
        """
        named = [value for name, value in decode_query(self._query) if name.lower() == "accept"] if self._query else []
        headers = self._lines(b"accept")
        if not headers and not named and self._settings.strict:
            raise NotAcceptable("a request must say what it accepts (CODWEB_STRICT is on)")
        return parse_accept(headers, named)

    @cached_property
    def coding(self) -> Coding:
        """The content coding of the answer."""
        return choose_coding(next(iter(self._lines(b"accept-encoding")), ""))

    @cached_property
    def reader(self) -> str:
        """Names the client, so that its reads are looked at together: its address and User-Agent.

        Only a guess: clients that share one are read ahead of as one, which costs a little and shows nothing.
        """
        forwarded = ""
        if _is_within(self._peer, self._settings.proxy_networks):
            forwarded = ",".join(self._lines(b"forwarded") or self._lines(b"x-forwarded-for"))
        agent = next(iter(self._lines(b"user-agent")), "")
        return f"{self._peer} {_PORTS.sub('', forwarded[:_READER_CHARS])} {agent[:_READER_CHARS]}"

    @cached_property
    def _joined(self) -> Mapping[str, str]:
        """Each header once; several lines of one name joined by commas."""
        joined: dict[str, str] = {}
        for raw_name, raw_value in self._headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            joined[name] = f"{joined[name]},{value}" if name in joined else value
        return joined

    def _lines(self, wanted: bytes) -> list[str]:
        return [value.decode("latin-1") for name, value in self._headers if name == wanted]


def _is_within(peer: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        return bool(networks) and any(ip_address(peer) in network for network in networks)
    except ValueError:
        return False
