"""Read-ahead: who scrolls through a series on a far bucket is served from large blocks that were fetched before.

options.py        access.py     values: how much is fetched and held; who reads what
access_order.py                 whether a reader reads in an order that can be foreseen     (pure)
plan.py                         which ranges to fetch then                                  (pure)
block.py          held.py       bytes on their way or here, and all of them within a budget
shared_reads.py                 single reads; equal ones in flight are one
read_ahead.py                   ReadAhead: puts them together
sources.py                      where the bytes of an instance are read from: the bucket itself, or read ahead

Settings need the options and nothing else, so the rest is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.archive.read_ahead.access import Access
    from storage.archive.read_ahead.options import ReadAheadOptions
    from storage.archive.read_ahead.read_ahead import ReadAhead
    from storage.archive.read_ahead.sources import Sources

_HOMES = {"Access": "access", "ReadAhead": "read_ahead", "ReadAheadOptions": "options", "Sources": "sources"}

__all__ = ["Access", "ReadAhead", "ReadAheadOptions", "Sources"]


def __getattr__(name: str) -> object:
    """Source: PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
