"""The tar of a COD series, member by member, as the published library lays it out.

A member is 512 bytes of `x` header, 512 bytes of PAX records, 512 bytes of ustar header, the P10 bit for bit, and zeros
up to the next multiple of 512. So the P10 starts 1536 bytes after its member, and every offset of a series is known
from the sizes alone: nothing is ever searched for, whatever a preamble holds.

Source: POSIX.1-2001 pax Interchange Format (ustar header block, extended header records).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from storage.errors import CorruptSeries
from storage.keys import is_path_uid

BLOCK_BYTES = 512
RECORD_BYTES = 10240
"""A tar ends with two zero blocks and is padded to whole records of 20 blocks, as tarfile and GNU tar write it."""

HEADER_BYTES = 3 * BLOCK_BYTES
"""From the start of a member to its first data byte, in what we and the published library write."""

MAX_OCTAL_SIZE = 8**11
"""Sizes from here on (8 GiB) do not fit the eleven octal digits of a ustar header and go into a PAX record."""

MAX_PAX_BYTES = 1 << 20
"""Extended headers longer than this are hostile: ours take less than one block."""

_NAME_BYTES = 100
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_PAX_NAME = b"././@PaxHeader"


@dataclass(frozen=True, slots=True)
class TarMember:
    """One file of a tar and where its bytes lie; all positions from the start of the tar."""

    name: str
    header_start: int
    start: int
    size: int
    mtime: float
    """Seconds since the epoch."""

    @property
    def stop(self) -> int:
        return self.start + self.size

    @property
    def next_start(self) -> int:
        """Where the next member, or the end of the archive, begins."""
        return self.stop + padding_bytes(self.size)


@dataclass(frozen=True, slots=True)
class TarLayout:
    """The members of a tar to be written, in order, and its size in bytes."""

    members: tuple[TarMember, ...]
    size: int
    data_stop: int
    """Where the end of the archive begins."""

    @property
    def end_of_archive(self) -> bytes:
        """What follows the last member: two zero blocks, and zeros up to a whole record."""
        return bytes(self.size - self.data_stop)


def member_name(instance_uid: str) -> str:
    """The name of an instance inside the tar of its series."""
    if not is_path_uid(instance_uid):
        raise ValueError("not a UID that can be part of a member name")
    return f"instances/{instance_uid}.dcm"


def padding_bytes(size: int) -> int:
    """How many zeros follow the data of a member of this size."""
    return -size % BLOCK_BYTES


def lay_out(files: Sequence[tuple[str, int, float]], *, begin: int = 0) -> TarLayout:
    """Place files, each (instance UID, size in bytes, mtime), one after the other.

    Args:
        begin: bytes of the tar that come before them, whole blocks.
    """
    members = []
    position = begin
    for instance_uid, size, mtime in files:
        member = TarMember(member_name(instance_uid), position, position + HEADER_BYTES, size, mtime)
        members.append(member)
        position = member.next_start
    total = position + 2 * BLOCK_BYTES
    return TarLayout(tuple(members), total + -total % RECORD_BYTES, position)


def lead(size: int) -> bytes:
    """A pax global header of `size` bytes, whole blocks and at least two, that says nothing: it moves what follows.

    Source: POSIX.1-2001 pax Interchange Format, typeflag `g` and the keyword `comment`.
    """
    length = size - BLOCK_BYTES
    filler = "." * (length - len(f"{length} comment=\n"))
    return _ustar_block(_PAX_NAME, mode=0, size=length, mtime=0, kind=b"g") + _record("comment", filler)


def member_header(member: TarMember) -> bytes:
    """The 1536 bytes in front of the data of a member.

    The float `mtime` record is always there, as the published library's is: it is what makes every header equally long.
    Owner and group stay empty, so that the names of the ingesting machine do not leak into the archive.
    """
    name = member.name.encode("ascii")
    records = _record("mtime", str(float(member.mtime)))
    if len(name) > _NAME_BYTES:
        records = _record("path", member.name) + records
    if member.size >= MAX_OCTAL_SIZE:
        records += _record("size", str(member.size))
    if len(records) > BLOCK_BYTES:
        raise ValueError(f"PAX records of {len(records)} bytes do not fit one block")
    rounded = round(member.mtime)
    seconds = rounded if 0 <= rounded < MAX_OCTAL_SIZE else 0
    size = member.size if member.size < MAX_OCTAL_SIZE else 0
    extended = _ustar_block(_PAX_NAME, mode=0, size=len(records), mtime=0, kind=b"x")
    plain = _ustar_block(name[:_NAME_BYTES], mode=0o644, size=size, mtime=seconds, kind=b"0")
    return extended + records.ljust(BLOCK_BYTES, b"\0") + plain


def _record(keyword: str, value: str) -> bytes:
    """One PAX record, `<length> <keyword>=<value>\\n`, whose length counts its own digits."""
    body = f" {keyword}={value}\n".encode("ascii")
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode("ascii") + body


def _ustar_block(name: bytes, *, mode: int, size: int, mtime: int, kind: bytes) -> bytes:
    fields = (
        name.ljust(_NAME_BYTES, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % 0,  # uid
        b"%07o\0" % 0,  # gid
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b" " * 8,  # the checksum counts itself as blanks
        kind,
        bytes(100),  # link name
        b"ustar\x0000",
        bytes(32 + 32),  # user and group name
        bytes(16),  # device numbers: none
        bytes(155),  # prefix: long names go into a PAX record
    )
    block = bytearray(b"".join(fields).ljust(BLOCK_BYTES, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def read_members(read: Callable[[int, int], bytes], size: int) -> Iterator[TarMember]:
    """Walk a tar of `size` bytes by its headers, up to its end-of-archive mark or its end.

    Members behind a gap of zeros are not found, exactly as `tar tf` does not find them: some stores have such gaps,
    so a reader of instances goes by the offsets of metadata.json and never by this.

    Args:
        read: answers the bytes [start, stop), all of them.

    Raises:
        CorruptSeries: a block is no tar header, or a member reaches past the end.
    """
    position = 0
    records: dict[str, str] = {}
    member_start = 0
    while position + BLOCK_BYTES <= size:
        block = read(position, position + BLOCK_BYTES)
        if block == _ZERO_BLOCK:
            return
        kind, stated_size = _check_block(block, position)
        data_start = position + BLOCK_BYTES
        data_size = stated_size if kind == b"x" else _record_number(records, "size", stated_size, position)
        if data_size > size - data_start:
            raise CorruptSeries(f"tar member at {position}: {data_size} bytes do not fit the tar of {size}")
        position = data_start + data_size + padding_bytes(data_size)
        if kind == b"x":
            if data_size > MAX_PAX_BYTES:
                raise CorruptSeries(f"tar member at {member_start}: extended header of {data_size} bytes")
            records = _parse_records(read(data_start, data_start + data_size), member_start)
            continue
        if kind in (b"0", b"\0"):
            mtime = _record_mtime(records, block, member_start)
            yield TarMember(_stated_name(records, block), member_start, data_start, data_size, mtime)
        records = {}
        member_start = position


def _check_block(block: bytes, position: int) -> tuple[bytes, int]:
    """Type and stated size of a header block whose checksum holds."""
    stated = _octal(block[148:156], position)
    if len(block) != BLOCK_BYTES or stated != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise CorruptSeries(f"tar block at {position} is no header")
    return block[156:157], _octal(block[124:136], position)


def _octal(field: bytes, position: int) -> int:
    """A number of a ustar header: octal digits, or GNU's base 256 for large ones."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b"\0 ")
    if not all(byte in b"01234567" for byte in text):
        raise CorruptSeries(f"tar block at {position} is no header")
    return int(text or b"0", 8)


def _parse_records(data: bytes, position: int) -> dict[str, str]:
    records: dict[str, str] = {}
    while data and data[0]:
        digits, separator, _ = data[:20].partition(b" ")
        length = int(digits) if separator and digits.isdigit() else 0
        record = data[len(digits) + 1 : length]
        if length > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise CorruptSeries(f"tar member at {position}: malformed extended header")
        keyword, _, value = record[:-1].partition(b"=")
        records[keyword.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        data = data[length:]
    return records


def _record_number(records: dict[str, str], keyword: str, default: int, position: int) -> int:
    text = records.get(keyword)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise CorruptSeries(f"tar member at {position}: malformed {keyword} record")
    return int(text)


def _record_mtime(records: dict[str, str], block: bytes, position: int) -> float:
    try:
        return float(records["mtime"]) if "mtime" in records else float(_octal(block[136:148], position))
    except ValueError as error:
        raise CorruptSeries(f"tar member at {position}: malformed mtime record") from error


def _stated_name(records: dict[str, str], block: bytes) -> str:
    if "path" in records:
        return records["path"]
    name, prefix = (field.split(b"\0", 1)[0].decode("utf-8", "replace") for field in (block[:100], block[345:500]))
    return f"{prefix}/{name}" if prefix else name
