"""The members of a zip: its directory read by Python's zipfile, every position and size proven against the bytes.

A zip says everything twice, in front of each member and in the directory at its end, and a hostile one says different
things: members that overlap (D. Fifield, "A better zip bomb", 2019), sizes that are not so. The directory counts; a
member is taken where its local header agrees, and where it ends before the next one begins.

Source: APPNOTE.TXT 6.3.10, sections 4.3 (structure), 4.4 (fields), 4.5.3 (Zip64).
"""

import calendar
import io
import stat
import struct
import zipfile
from collections.abc import Iterator

from storage.ingest.sources.archives.entry import ArchiveRefused, Entry, Left, Member
from storage.ingest.sources.archives.tar import MAX_ENTRIES, Read

MAX_DIRECTORY_BYTES = 256 << 20

MAX_MEMBER_BYTES = 16 << 30
"""Inflated: longer ones are no DICOM files."""

MIN_INFLATED_BYTES = 1 << 30
MAX_INFLATE_RATIO = 200
"""All members together inflate to at most this many times the size of the archive, or to `MIN_INFLATED_BYTES`."""

_LOCAL_MAGIC = b"PK\x03\x04"
_LOCAL = struct.Struct("<4s5H3I2H")
"""Magic, version, flags, method, time, date, crc32, packed size, size, name length, extra length."""
_DIRECTORY_MAGIC = b"PK\x01\x02"

_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_FOLLOW, _HIDDEN, _UTF8 = 1 << 0, 1 << 3, 1 << 13, 1 << 11
_ZIP64 = 0x0001
_UNKNOWN_SIZE = 0xFFFFFFFF
_NO_TIME = (1980, 0, 0, 0, 0, 0)
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}


def inflate_limit(archive_bytes: int) -> int:
    """How many bytes an archive of this size may become."""
    return max(MIN_INFLATED_BYTES, MAX_INFLATE_RATIO * archive_bytes)


def zip_entries(read: Read, size: int) -> Iterator[Entry]:
    """The entries of a zip of `size` bytes, in the order in which they lie.

    Raises:
        ArchiveRefused: it is cut, damaged or hostile; the entries before stand.
    """
    try:
        with zipfile.ZipFile(_DirectoryFile(read, size)) as opened:
            infos = sorted(opened.infolist(), key=lambda info: info.header_offset)
            directory_start: int = opened.start_dir
    except _DirectoryTooLarge as error:
        raise ArchiveRefused(str(error)) from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError, struct.error):
        yield from _entries_before_the_cut(read, size)
        raise ArchiveRefused("its directory at the end is missing or damaged: cut off") from None
    inflated_bytes = 0
    for index, info in enumerate(infos):
        limit = infos[index + 1].header_offset if index + 1 < len(infos) else directory_start
        entry = _entry(read, info, limit)
        if isinstance(entry, Member) and entry.packed_size is not None:
            inflated_bytes += entry.size
            if inflated_bytes > inflate_limit(size):
                raise ArchiveRefused(f"its members would inflate to more than {inflate_limit(size)} bytes")
        if entry is not None:
            yield entry


def _entry(read: Read, info: zipfile.ZipInfo, limit: int) -> Entry | None:
    """What an entry of the directory stands for; None for a folder.

    Args:
        limit: where the next member, or the directory, begins.
    """
    name = info.filename
    if name.endswith("/"):  # not `is_dir`, which fails at a name without a character
        return None
    refusal = _refusal(info)
    if refusal is not None:
        return refusal
    local_stop = info.header_offset + _LOCAL.size
    if info.header_offset < 0 or local_stop > limit:
        raise ArchiveRefused("its members overlap: hostile or damaged")
    local = _LOCAL.unpack(read(info.header_offset, local_stop))
    magic, _, flags, method, _, _, _, _, _, name_bytes, extra_bytes = local
    if magic != _LOCAL_MAGIC or method != info.compress_type or (flags ^ info.flag_bits) & _ENCRYPTED:
        return Left(name, "the archive is damaged here: its directory says another thing", holds_nothing=False)
    start = local_stop + name_bytes + extra_bytes
    if start + info.compress_size > limit:
        raise ArchiveRefused("its members overlap: hostile or damaged")
    is_packed = info.compress_type == _DEFLATED
    return Member(
        name=name,
        start=start,
        size=info.file_size,
        mtime=_mtime(info.date_time),
        packed_size=info.compress_size if is_packed else None,
        crc32=info.CRC,
    )


def _refusal(info: zipfile.ZipInfo) -> Left | None:
    """Why the directory alone keeps us from a member."""
    name = info.filename
    file_type = stat.S_IFMT(info.external_attr >> 16)
    if file_type == stat.S_IFLNK:
        return Left(name, "a link", holds_nothing=True)
    if info.flag_bits & (_ENCRYPTED | _HIDDEN):
        return Left(name, "encrypted: unpack the archive first", holds_nothing=False)
    if info.compress_type not in (_STORED, _DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        return Left(name, f"compressed by {method}: unpack the archive first", holds_nothing=False)
    if info.compress_type == _STORED and info.compress_size != info.file_size:
        return Left(name, "the archive is damaged here: a stored member of two sizes", holds_nothing=False)
    if info.file_size > MAX_MEMBER_BYTES:
        return Left(name, f"larger than {MAX_MEMBER_BYTES} bytes", holds_nothing=False)
    return None


def _mtime(date_time: tuple[int, ...]) -> float | None:
    """A zip says local time and not where; it is taken for UTC, so that it is the same on every host."""
    year, month, day, hour, minute, second = date_time
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def _entries_before_the_cut(read: Read, size: int) -> Iterator[Entry]:
    """Members of a zip without its directory, from their local headers, as far as those say how long they are."""
    position = inflated_bytes = 0
    for _ in range(MAX_ENTRIES):
        if position + _LOCAL.size > size:
            return
        local = _LOCAL.unpack(read(position, position + _LOCAL.size))
        magic, _, flags, method, _, _, crc32, packed_size, member_size, name_bytes, extra_bytes = local
        start = position + _LOCAL.size + name_bytes + extra_bytes
        if magic != _LOCAL_MAGIC or flags & _SIZES_FOLLOW or start > size:
            return
        raw_name = read(position + _LOCAL.size, position + _LOCAL.size + name_bytes)
        member_size, packed_size = _zip64_sizes(read(start - extra_bytes, start), member_size, packed_size)
        info = zipfile.ZipInfo(raw_name.decode("utf-8" if flags & _UTF8 else "cp437", "replace"))
        info.header_offset, info.flag_bits, info.compress_type = position, flags, method
        info.file_size, info.compress_size, info.CRC = member_size, packed_size, crc32
        info.date_time = _NO_TIME
        position = start + packed_size
        if position > size:
            return
        entry = _entry(read, info, position)
        if isinstance(entry, Member) and entry.packed_size is not None:
            inflated_bytes += entry.size
            if inflated_bytes > inflate_limit(size):
                return
        if entry is not None:
            yield entry


def _zip64_sizes(extra: bytes, size: int, packed_size: int) -> tuple[int, int]:
    """The sizes of a local header, from its Zip64 field if that has them."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64 and length >= 16 and at + 20 <= len(extra) and _UNKNOWN_SIZE in (size, packed_size):
            size, packed_size = struct.unpack_from("<QQ", extra, at + 4)
        at += 4 + length
    return size, packed_size


class _DirectoryTooLarge(Exception):
    """The directory of a zip would take more memory than any honest one."""


class _DirectoryFile(io.RawIOBase):
    """What zipfile reads the directory from: no read is longer, and no directory has more members, than is honest."""

    def __init__(self, read: Read, size: int) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self._size - self._position)
        length = rest if size is None or size < 0 else min(size, rest)
        if length > MAX_DIRECTORY_BYTES:
            raise _DirectoryTooLarge(f"a directory of more than {MAX_DIRECTORY_BYTES} bytes")
        data = self._read(self._position, self._position + length)
        self._position += length
        if data.count(_DIRECTORY_MAGIC) > MAX_ENTRIES:
            raise _DirectoryTooLarge(f"more than {MAX_ENTRIES} members")
        return data
