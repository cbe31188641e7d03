"""Addresses: the URL under which a client reached this server, and the UIDs and frame lists in its paths.

Absolute links (RetrieveURL, BulkDataURI, Content-Location) must work from where the client sits. A configured public
URL is the surest; else a trusted proxy says how it was asked (`Forwarded`, RFC 7239, or `X-Forwarded-*`); else the Host
header does. dicomweb-client (Python) sends Host without the port, so the listening port is filled in.
Whatever is built from a header is checked against a narrow grammar and the allowed hosts: such links end in caches.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from app.errors import RequestError, UnknownHost
from storage.keys import is_path_uid

Networks = Sequence[IPv4Network | IPv6Network]

MAX_FRAMES = 10_000
"""Frames of one request; a list of this length already fills the longest URL that servers take."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])\.?(?::([0-9]{1,5}))?", re.ASCII
)
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}){0,16}", re.ASCII)
_FRAME_NUMBER = re.compile(r"0*[1-9][0-9]{0,9}", re.ASCII)
_FORWARDED_PAIR = re.compile(r'\s*(?:([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*)?(?:([;,])|\Z)', re.ASCII)
_FORWARDING_HEADERS = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto",
)  # fmt: skip
_MAX_HEADER_CHARS = 4096


@dataclass(frozen=True, slots=True)
class _Host:
    """A host name or address in lower case, and a port if one was written."""

    name: str
    port: int | None


@dataclass(frozen=True, slots=True)
class _Forwarded:
    """What a trusted proxy says about the request that it received."""

    scheme: str | None = None
    host: str | None = None
    port: str | None = None


def service_root(
    scheme: str,
    headers: Mapping[str, str],
    peer: str | None,
    server_port: int | None,
    *,
    prefix: str = "/dicomweb",
    public_url: str | None = None,
    trusted_proxies: Networks = (),
    allowed_hosts: Sequence[str] = ("*",),
) -> str:
    """The URL of the service root without a slash at its end, e.g. `https://pacs.example.org/dicomweb`.

    Args:
        scheme: of the connection.
        headers: of the request; names are looked up in lower case. Several lines of one name: joined by commas.
        peer: address of the other end of the connection; None or a name (a Unix socket, a test) is not trusted.
        server_port: on which the request came in.
        public_url: the whole service root; if given, it is the answer.
        trusted_proxies: networks of the peers whose forwarding headers count.
        allowed_hosts: names, `*.example.org` for its subdomains, `*` for any.

    Raises:
        UnknownHost: no host, a malformed one, or one that is not allowed.
    """
    if public_url:
        return public_url.rstrip("/")
    is_proxied = any(name in headers for name in _FORWARDING_HEADERS) and _is_trusted(peer, trusted_proxies)
    forwarded = _forwarded(headers, trusted_proxies) if is_proxied else _Forwarded()
    host = _parse_host(forwarded.host or headers.get("host", ""))
    if not _is_allowed(host, allowed_hosts):
        raise UnknownHost("this host name is not among the allowed ones")
    scheme = forwarded.scheme or scheme
    port = host.port
    if port is None:  # a proxy listens elsewhere than we do
        port = _forwarded_port(forwarded.port) if is_proxied else server_port
    is_default = port is None or port == _DEFAULT_PORTS.get(scheme)
    outer = _outer_prefix(headers) if is_proxied else ""
    return f"{scheme}://{host.name}{'' if is_default else f':{port}'}{outer}{prefix}"


def path_uid(text: str) -> str:
    """A UID from a path, safe to become part of a key.

    Raises:
        RequestError: anything but 1 to 128 letters, digits, dots and hyphens, and `.` and `..` too.
    """
    if not is_path_uid(text):
        raise RequestError("a UID in the path is malformed")
    return text


def parse_frame_list(text: str) -> tuple[int, ...]:
    """The frame numbers of a `/frames/{list}` path, from 1, in the order asked, repeats kept.

    Raises:
        RequestError: not a comma list of positive integers, or more than `MAX_FRAMES` of them.

    Source: PS3.18 §10.4.1.1.6. The text wants ascending numbers; clients ask for what they need first.
    """
    return _one_frame(text) if len(text) <= _SHORT_LIST else _frame_numbers(text)


_SHORT_LIST = 10


def _frame_numbers(text: str) -> tuple[int, ...]:
    if text.count(",") >= MAX_FRAMES:
        raise RequestError(f"at most {MAX_FRAMES} frames can be asked for at once")
    numbers = [number.strip() for number in text.split(",")]
    if not all(_FRAME_NUMBER.fullmatch(number) for number in numbers):
        raise RequestError("a frame list is made of numbers from 1, joined by commas")
    return tuple(int(number) for number in numbers)


_one_frame = lru_cache(maxsize=8192)(_frame_numbers)


def _forwarded(headers: Mapping[str, str], trusted: Networks) -> _Forwarded:
    """What the outermost trusted proxy says. `Forwarded` beats the X- fields."""
    standard = headers.get("forwarded")
    if standard is not None:
        elements = _forwarded_elements(standard)
        nearest = elements[-_hops([element.get("for", "") for element in elements], trusted) :][0] if elements else {}
        if "host" in nearest or "proto" in nearest:
            return _Forwarded(_checked_scheme(nearest.get("proto")), nearest.get("host"))
    hops = _hops(_members(headers, "x-forwarded-for"), trusted)

    def value(name: str) -> str | None:
        members = _members(headers, name)
        return members[-hops:][0] if members else None

    return _Forwarded(_checked_scheme(value("x-forwarded-proto")), value("x-forwarded-host"), value("x-forwarded-port"))


def _hops(addresses: Sequence[str], trusted: Networks) -> int:
    """How many members, from the right, trusted proxies wrote: each proxy adds one, naming the peer that it saw.

    Members further left came with the request and may be anything.
    """
    hops = 1
    for address in reversed(addresses):
        if not _is_trusted(_without_port(address), trusted):
            break
        hops += 1
    return hops


def _forwarded_elements(text: str) -> list[dict[str, str]]:
    """The elements of a Forwarded header (RFC 7239 §4), pair by pair; quoted values lose their quotes."""
    if len(text) > _MAX_HEADER_CHARS:
        raise UnknownHost("the Forwarded header is too long")
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        pair = _FORWARDED_PAIR.match(text, position)
        if pair is None:
            raise UnknownHost("the Forwarded header is malformed")
        if pair[1] is not None:
            value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
            elements[-1].setdefault(pair[1].lower(), value)
        if pair[4] == ",":
            elements.append({})
        position = pair.end()
    return [element for element in elements if element]


def _members(headers: Mapping[str, str], name: str) -> list[str]:
    return [member for part in headers.get(name, "")[:_MAX_HEADER_CHARS].split(",") if (member := part.strip())]


def _checked_scheme(text: str | None) -> str | None:
    if text is None:
        return None
    scheme = text.lower()
    if scheme not in _DEFAULT_PORTS:
        raise UnknownHost("the forwarded scheme is neither http nor https")
    return scheme


def _forwarded_port(text: str | None) -> int | None:
    """The port of X-Forwarded-Port. 80 and 443 are dropped under either scheme: a proxy that ends TLS often names its
    inner port there, and nobody serves https on 80."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65535):
        raise UnknownHost("the forwarded port is malformed")
    return None if int(text) in _DEFAULT_PORTS.values() else int(text)


def _outer_prefix(headers: Mapping[str, str]) -> str:
    """The path that a proxy cut off before it passed the request on; the nearest proxy's word counts."""
    members = _members(headers, "x-forwarded-prefix")
    outer = members[-1].rstrip("/") if members else ""
    if not _PREFIX.fullmatch(outer):
        raise UnknownHost("the forwarded prefix is malformed")
    return outer


def _parse_host(text: str) -> _Host:
    match = _HOST.fullmatch(text.strip())
    if match is None or ".." in match[1]:
        raise UnknownHost("the host name is missing or malformed")
    name = match[1].lower()
    port = int(match[2]) if match[2] else None
    if port is not None and not 0 < port <= 65535:
        raise UnknownHost("the port of the host is malformed")
    if name.startswith("["):
        try:
            name = f"[{IPv6Address(name[1:-1]).compressed}]"
        except ValueError:
            raise UnknownHost("the host name is missing or malformed") from None
    return _Host(name, port)


def _is_allowed(host: _Host, allowed_hosts: Sequence[str]) -> bool:
    for entry in allowed_hosts:
        allowed = entry.lower().rstrip(".")
        if allowed == "*" or allowed in (host.name, host.name.strip("[]"), f"{host.name}:{host.port}"):
            return True
        if allowed.startswith("*.") and host.name.endswith(allowed[1:]):
            return True
    return False


def _is_trusted(address: str | None, trusted: Networks) -> bool:
    if not trusted or not address:
        return False
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in trusted)


def _without_port(address: str) -> str:
    """`192.0.2.1:4711` and `[2001:db8::1]:4711` without their ports; a bare IPv6 address as it is."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
