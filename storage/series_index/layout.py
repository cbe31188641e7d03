"""The series index file, byte by byte.

    magic · metadata blocks … · locators · rows · kept attributes · problems · hints · UIDs · records
          · CRC-32 of the header · header · footer

Blocks come first because they are written while they are made; the footer says where the header is, so that the end of
a file far away tells what is true of the series, and checks by itself. All positions are absolute in the file. A file
whose footer, checksum or format number is not ours is rebuilt, never an error.
"""

import struct
from typing import Literal, NamedTuple

import msgspec

MAGIC = b"codweb series index\n"
FORMAT = 1
"""Raised with every change of what is written here, or of how attributes are encoded: older files are then rebuilt."""

FOOTER = struct.Struct("<QIIQ")
"""Header position, header length, CRC-32 of everything before the footer, `FOOTER_MAGIC`."""
FOOTER_MAGIC = 0x646E652D786469
HEADER_CRC = struct.Struct("<I")
"""CRC-32 of the header alone, just before it: the footer's can be checked only by who has the whole file."""

Depth = Literal["quick", "deep"]
NO_BLOCK = 0xFFFFFFFF


class Section(msgspec.Struct, frozen=True, array_like=True):
    """Where a part of the file lies."""

    start: int
    length: int


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The JSON objects of some neighbouring instances, joined by commas, in both codings."""

    first: int
    """Ordinal of its first instance."""
    count: int
    raw_length: int
    raw_crc32: int
    zstd: Section
    deflate: Section | None
    """None in a quick index, which is there to answer soon and will not stay."""


class Header(msgspec.Struct, frozen=True):
    """What is true of the whole series."""

    format: int
    study_uid: str
    series_uid: str
    metadata_version: str
    tar_version: str | None
    """None: the bucket holds no tar of this series."""
    depth: Depth
    root: str
    """The service root written into the links of the metadata blocks."""
    is_deid: bool
    count: int
    has_metadata: bool
    """False: a quick index whose metadata must be built deep before it can be answered; pixels can be served."""
    transfer_syntaxes: list[str]
    sop_classes: list[str]
    blocks: list[Block]
    shared: bytes
    """JSON object: the patient, study and series attributes that stand for the series."""
    locators: Section
    rows: Section
    kept: Section
    problems: Section
    hints: Section
    uids: Section
    records: Section


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """What metadata.json claims of an instance that is not proven yet."""

    original_uid: str
    """SOP Instance UID inside the P10; differs from the entry's own in a de-identified store."""
    positions: list[int] | None = None
    lengths: list[int] | None = None
    """The stored offset table, relative to the P10: a hint to be verified."""


def decode_header(data: bytes | memoryview) -> Header:
    """Raises msgspec.DecodeError for what is no header of this format."""
    return msgspec.msgpack.decode(data, type=Header)


RECORD = struct.Struct("<QQIHHQIQIQIQIQIIQQ")
HAS_CRC, PROVEN, BROKEN = 1, 2, 4
"""Flags. PROVEN: its header was read and is that of this instance. BROKEN: it was read and is not; a problem says why."""


class Record(NamedTuple):
    """One instance, as its fixed-width record tells it; `*_start` are positions inside the section of that name."""

    start: int
    """First byte of the P10 in the tar."""
    size: int
    crc32c: int
    flags: int
    transfer_syntax: int
    """Index into `Header.transfer_syntaxes`; the length of that list when unknown."""
    locator_start: int
    locator_length: int
    row_start: int
    row_length: int
    kept_start: int
    kept_length: int
    problem_start: int
    problem_length: int
    hint_start: int
    hint_length: int
    block: int
    """Index into `Header.blocks`, or `NO_BLOCK`."""
    block_offset: int
    """Where its JSON begins in the decoded block."""
    json_length: int
