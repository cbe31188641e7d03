"""What reading unproven instances found out: their proof and their pixels' place, appended beside a quick index.

Each entry is self-checking and carries the identity of the index it belongs to, so a torn append, or the log of an
older index, is simply not taken. A deep index needs no log: everything in it is proven.
"""

import os
import zlib
from pathlib import Path

import msgspec

from storage.dicom.locator import PixelLocator


class Found(msgspec.Struct, frozen=True, array_like=True):
    """One discovery."""

    identity: str
    ordinal: int
    transfer_syntax_uid: str
    locator_bytes: bytes

    @property
    def locator(self) -> PixelLocator:
        return PixelLocator.from_bytes(self.locator_bytes)


class FoundLog:
    """Discoveries of one index, read once when it is opened and appended to while it is served."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity
        self._entries = {entry.ordinal: entry for entry in _read(path) if entry.identity == identity}

    def __contains__(self, ordinal: int) -> bool:
        return ordinal in self._entries

    def get(self, ordinal: int) -> Found | None:
        return self._entries.get(ordinal)

    def remember(self, ordinal: int, transfer_syntax_uid: str, locator: PixelLocator) -> None:
        """Keep a discovery, in memory at once and in the file for the next process; a full disk costs only a re-read."""
        entry = Found(self._identity, ordinal, transfer_syntax_uid, locator.to_bytes())
        self._entries[ordinal] = entry
        body = msgspec.msgpack.encode(entry)
        framed = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        try:
            os.write(descriptor, framed)
        except OSError:
            return
        finally:
            os.close(descriptor)


def _read(path: Path) -> list[Found]:
    """The entries up to the first that does not check."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    entries: list[Found] = []
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        crc = int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : position + 8 + length]
        if len(body) != length or zlib.crc32(body) != crc:
            break
        try:
            entries.append(msgspec.msgpack.decode(body, type=Found))
        except msgspec.DecodeError:  # sound, but of another format
            break
        position += 8 + length
    return entries
