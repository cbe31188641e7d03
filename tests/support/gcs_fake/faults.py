"""What can go wrong on the way to a store, on demand: for chosen requests, as often as told."""

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

Chooser = Callable[[web.Request], bool]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail; the fields that are set happen, in this order."""

    before: Callable[[], object] | None = None
    """Called before the request is answered as usual, e.g. to replace an object."""
    reset: bool = False
    """Close the connection without an answer."""
    swallow: bool = False
    """Do what was asked, and close the connection instead of answering."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    body_bytes: int | None = None
    """Close the connection after so many bytes of a body."""
    stall_seconds: float = 0
    """Wait in the middle of a body."""


class Faults:
    """Rules in the order in which they were made; the first that meets a request is used."""

    def __init__(self) -> None:
        self._rules: list[tuple[Chooser, Fault, list[int]]] = []

    def add(self, chooser: Chooser, fault: Fault, times: int) -> None:
        self._rules.append((chooser, fault, [times]))

    def clear(self) -> None:
        self._rules.clear()

    def take(self, request: web.Request) -> Fault | None:
        for chooser, fault, left in self._rules:
            if left[0] > 0 and chooser(request):
                left[0] -= 1
                return fault
        return None
