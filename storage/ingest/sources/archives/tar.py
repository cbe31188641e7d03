"""The entries of a tar by its headers, in order, in constant memory: ustar, PAX and GNU as tars have been written.

Wider than `storage.cod.tar.read_members`, which reads what we and the published library write, and stops at the first
thing that it does not know. Bounded where Python's tarfile is not: it keeps every member, reads records of any length
into memory, and a header of a few bytes can make it loop.

Source: POSIX.1-2001 pax Interchange Format; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from storage.ingest.sources.archives.entry import ArchiveRefused, Entry, Left, Member

BLOCK_BYTES = 512

MAX_RECORD_BYTES = 1 << 20
"""Extended headers and long names longer than this are hostile."""

MAX_ENTRIES = 1_000_000

MAX_GAP_BYTES = 1 << 20
"""How far behind an end-of-archive mark another header is looked for: tars have been joined with their ends left in."""

MAX_SECONDS = 1e11
"""Times from here on (the year 5138), which a header of base 256 can state, are none."""

_SCAN_BYTES = 64 << 10
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_REGULAR = (b"0", b"\0", b"7")
_FOLDER, _VOLUME_LABEL = b"5", b"V"
_WITHOUT_CONTENT = {
    b"1": "a link: the file it means is in the archive itself",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
}
_EXTENDED = (b"x", b"X", b"g", b"L", b"K")
"""PAX records (Solaris writes X), global ones, GNU's long name and long link: they speak of the header that follows."""
_OLD_SPARSE = b"S"
_IS_EXTENDED_AT = 482
_IS_EXTENDED_AGAIN_AT = 504
"""Where an old GNU sparse header, and each block that continues it, says that another block follows."""
_KEPT_RECORDS = ("path", "size", "mtime")

Read = Callable[[int, int], bytes]
"""Bytes [start, stop) of the archive, all of them."""


@dataclass(frozen=True, slots=True)
class _Header:
    kind: bytes
    size: int
    name: str
    mtime: float


def tar_entries(read: Read, size: int) -> Iterator[Entry]:
    """Walk a tar of `size` bytes.

    Raises:
        ArchiveRefused: it is cut, damaged or hostile; the entries before stand.
    """
    position = 0
    records: dict[str, str] = {}
    shared: dict[str, str] = {}
    """Of global extended headers: they hold for all that follows."""
    entries = 0
    has_end = False
    while position + BLOCK_BYTES <= size:
        block = read(position, position + BLOCK_BYTES)
        if block == _ZERO_BLOCK:
            has_end = True
            following = _behind_zeros(read, position, size)
            if following is None:
                return
            position = following
            continue
        header = _header(block, position)
        start = position + BLOCK_BYTES
        if header.kind in _EXTENDED:
            if header.size > min(MAX_RECORD_BYTES, size - start):
                raise ArchiveRefused(
                    f"an extended header of {header.size} bytes at byte {position}: damaged or cut off"
                )
            _take(header.kind, read(start, start + header.size), records, shared, position)
            position = _next(start + header.size)
            continue
        entries += 1
        if entries > MAX_ENTRIES:
            raise ArchiveRefused(f"more than {MAX_ENTRIES} members")
        records = {**shared, **records}
        stored = _number(records["size"], position) if "size" in records else header.size
        if header.kind == _FOLDER or header.kind in _WITHOUT_CONTENT:
            stored = 0  # whatever they say: nothing of it is in the archive
        name = records.get("path", header.name)
        if header.kind == _OLD_SPARSE:
            start = _behind_sparse_map(read, block, start, size)
        if stored > size - start:
            raise ArchiveRefused(f"cut off: its last member, of {stored} bytes, has {max(0, size - start)} of them")
        entry = _entry(header, name, start, stored, records)
        if entry is not None:
            yield entry
        records = {}
        position = _next(start + stored)
        has_end = False
    if not has_end:
        raise ArchiveRefused("it ends without an end-of-archive mark: it may be cut off")


def _entry(header: _Header, name: str, start: int, stored: int, records: Mapping[str, str]) -> Entry | None:
    """What a header stands for; None for a folder."""
    if header.kind in (_FOLDER, _VOLUME_LABEL) or (header.kind in _REGULAR and name.endswith("/")):
        return None
    if header.kind == _OLD_SPARSE or "sparse" in records:
        return Left(name, "a sparse member: unpack the archive first", holds_nothing=False)
    if header.kind in _WITHOUT_CONTENT:
        return Left(name, _WITHOUT_CONTENT[header.kind], holds_nothing=True)
    if header.kind not in _REGULAR:
        return Left(name, f"a tar member of unknown type {header.kind!r}", holds_nothing=False)
    return Member(name, start, stored, _mtime(records, header.mtime))


def _header(block: bytes, position: int) -> _Header:
    """A block whose checksum holds."""
    if _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise ArchiveRefused(f"no tar header at byte {position}: damaged")
    size = _octal(block[124:136])
    if size is None:
        raise ArchiveRefused(f"a tar header without a size at byte {position}: damaged")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    return _Header(block[156:157], size, name, float(_octal(block[136:148]) or 0))


def _octal(field: bytes) -> int | None:
    """A number of a header: octal digits, or GNU's base 256 for large ones; None: neither, or negative."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None
    text = field.split(b"\0", 1)[0].strip()
    if not all(byte in b"01234567" for byte in text):
        return None
    return int(text or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _take(kind: bytes, data: bytes, records: dict[str, str], shared: dict[str, str], position: int) -> None:
    """Learn what a header says about the one that follows it."""
    if kind == b"L":
        records["path"] = _text(data)
    elif kind in b"xX":
        _take_records(data, records, position)
    elif kind == b"g":
        _take_records(data, shared, position)


def _take_records(data: bytes, into: dict[str, str], position: int) -> None:
    """PAX records, `<length> <keyword>=<value>\\n`: the few that matter, and whether one speaks of a sparse file."""
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        stop = at + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, stop)
        if not space < equals < stop <= len(data) or data[stop - 1] != 0x0A:
            raise ArchiveRefused(f"a malformed extended header at byte {position}: damaged")
        keyword = data[space + 1 : equals].decode("utf-8", "replace")
        if keyword.startswith("GNU.sparse."):
            into["sparse"] = "yes"
        elif keyword in _KEPT_RECORDS:
            into[keyword] = data[equals + 1 : stop - 1].decode("utf-8", "replace")
        at = stop


def _number(text: str, position: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ArchiveRefused(f"a malformed size at byte {position}: damaged")
    return int(text)


def _mtime(records: Mapping[str, str], stated: float) -> float | None:
    try:
        seconds = float(records.get("mtime", stated))
    except ValueError:
        seconds = stated
    return seconds if abs(seconds) < MAX_SECONDS else None  # NaN and infinity too


def _behind_sparse_map(read: Read, block: bytes, start: int, size: int) -> int:
    """Where the data of an old GNU sparse member begins."""
    is_extended = block[_IS_EXTENDED_AT]
    while is_extended:
        if start + BLOCK_BYTES > size:
            raise ArchiveRefused("cut off in a sparse member")
        is_extended = read(start, start + BLOCK_BYTES)[_IS_EXTENDED_AGAIN_AT]
        start += BLOCK_BYTES
    return start


def _behind_zeros(read: Read, position: int, size: int) -> int | None:
    """Where another header follows the end-of-archive mark, as `tar --ignore-zeros` finds it; None: nowhere near."""
    limit = min(size, position + MAX_GAP_BYTES)
    while position + BLOCK_BYTES <= limit:
        stop = min(position + _SCAN_BYTES, limit - (limit - position) % BLOCK_BYTES)
        data = read(position, stop)
        rest = data.lstrip(b"\0")
        if rest:
            found = position + (len(data) - len(rest)) // BLOCK_BYTES * BLOCK_BYTES
            try:
                _header(read(found, found + BLOCK_BYTES), found)
            except ArchiveRefused:
                return None  # whatever follows the end is no part of the archive
            return found
        position = stop
    return None


def _next(stop: int) -> int:
    return stop + -stop % BLOCK_BYTES
