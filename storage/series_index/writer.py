"""Builds a series index file in bounded memory: instances arrive one after the other, blocks leave as they fill."""

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
import zstandard

from storage.keys import SeriesKey
from storage.series_index import layout
from storage.series_index.layout import BROKEN, HAS_CRC, PROVEN, RECORD, Block, Header, Hint, Section
from storage.series_index.splice import DEFLATE_LEVEL, ZSTD_LEVEL

BLOCK_INSTANCES = 64
BLOCK_BYTES = 1 << 20
"""A block is closed when it holds this many instances, or this many bytes of JSON: one instance costs one block."""
FEED_BYTES = 256 << 10
HASTY_ZSTD_LEVEL = 1
"""For the blocks of a quick index: half the time of the usual level, for a thousandth more bytes of 450 CT slices."""


class IndexedInstance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything the index keeps of one instance but its JSON."""

    uid: str
    """The UID by which the outside world names it."""
    start: int
    size: int
    crc32c: int | None
    transfer_syntax_uid: str | None
    row: bytes
    """Finished answer of an instance search, links rootless."""
    kept: bytes
    """JSON object of the attributes of the instance level."""
    locator: bytes | None = None
    """Proven and located; None leaves it unproven."""
    hint: Hint | None = None
    problem: str | None = None
    """Why it cannot be served: its bytes are not those of this instance, or cannot be read."""


@dataclass(slots=True)
class IndexWriter:
    """Writes one file; `finish` puts it in place atomically, `discard` leaves nothing behind."""

    path: Path
    key: SeriesKey
    metadata_version: str
    tar_version: str | None
    depth: layout.Depth
    root: str
    is_deid: bool
    _file: "IndexFile" = field(init=False)
    _blocks: list[Block] = field(init=False, default_factory=list)
    _open_block: "OpenBlock | None" = field(init=False, default=None)
    _records: bytearray = field(init=False, default_factory=bytearray)
    _uids: list[str] = field(init=False, default_factory=list)
    _syntaxes: dict[str, int] = field(init=False, default_factory=dict)
    _parts: dict[str, bytearray] = field(init=False)
    _has_metadata: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self._file = IndexFile(self.path)
        self._parts = {name: bytearray() for name in ("locators", "rows", "kept", "problems", "hints")}

    def add(self, instance: IndexedInstance, json_chunks: Iterable[bytes] | None) -> None:
        """Take the next instance, in the order of the answers; `json_chunks` None: only a deep build can tell it."""
        block, block_offset, json_length = layout.NO_BLOCK, 0, 0
        if json_chunks is None:
            self._has_metadata = False
        else:
            block, block_offset, json_length = self._add_json(len(self._uids), json_chunks)
        flags = (
            (HAS_CRC if instance.crc32c is not None else 0)
            | (PROVEN if instance.locator is not None else 0)
            | (BROKEN if instance.problem is not None else 0)
        )
        self._records += RECORD.pack(
            instance.start,
            instance.size,
            instance.crc32c or 0,
            flags,
            self._syntax(instance.transfer_syntax_uid),
            *self._put("locators", instance.locator),
            *self._put("rows", instance.row),
            *self._put("kept", instance.kept),
            *self._put("problems", instance.problem.encode() if instance.problem is not None else None),
            *self._put("hints", msgspec.msgpack.encode(instance.hint) if instance.hint is not None else None),
            block,
            block_offset,
            json_length,
        )
        self._uids.append(instance.uid)

    def finish(self, *, shared: bytes, sop_classes: Iterable[str]) -> None:
        """Close the file and put it in the place of an older one.

        Args:
            shared: JSON object of the patient, study and series attributes.
        """
        self._close_block()
        sections = {name: self._file.put(bytes(part)) for name, part in self._parts.items()}
        header = Header(
            format=layout.FORMAT,
            study_uid=self.key.study_uid,
            series_uid=self.key.series_uid,
            metadata_version=self.metadata_version,
            tar_version=self.tar_version,
            depth=self.depth,
            root=self.root,
            is_deid=self.is_deid,
            count=len(self._uids),
            has_metadata=self._has_metadata,
            transfer_syntaxes=list(self._syntaxes),
            sop_classes=sorted(sop_classes),
            blocks=self._blocks,
            shared=shared,
            uids=self._file.put("\n".join(self._uids).encode()),
            records=self._file.put(bytes(self._records)),
            **sections,
        )
        self._file.finish(header)

    def discard(self) -> None:
        """Forget the file; harmless after `finish`."""
        self._file.discard()

    def _syntax(self, uid: str | None) -> int:
        return 0xFFFF if uid is None else self._syntaxes.setdefault(uid, len(self._syntaxes))

    def _put(self, section: str, data: bytes | None) -> tuple[int, int]:
        if data is None:
            return 0, 0
        part = self._parts[section]
        part += data
        return len(part) - len(data), len(data)

    def _add_json(self, ordinal: int, chunks: Iterable[bytes]) -> tuple[int, int, int]:
        if self._open_block is None:
            self._open_block = OpenBlock(first=ordinal, with_deflate=self.depth == "deep")
        block = self._open_block
        offset = block.begin_instance()
        for chunk in chunks:
            block.feed(chunk)
        index, length = len(self._blocks), block.raw_length - offset
        if block.count >= BLOCK_INSTANCES or block.raw_length >= BLOCK_BYTES:
            self._close_block()
        return index, offset, length

    def _close_block(self) -> None:
        block, self._open_block = self._open_block, None
        if block is None:
            return
        zstd = self._file.put(block.finish_zstd())
        deflate = self._file.put(block.finish_deflate()) if block.with_deflate else None
        self._blocks.append(Block(block.first, block.count, block.raw_length, block.crc, zstd, deflate))


class IndexFile:
    """The file itself: parts one after the other under a temporary name, then the header, then its place."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = NamedTemporaryFile(dir=path.parent, prefix=".building-", delete=False)  # noqa: SIM115 -- lives as long as this
        self._temporary = Path(self._file.name)
        self._crc = 0
        self._position = 0
        self.put(layout.MAGIC)

    def put(self, data: bytes | memoryview) -> Section:
        """Append a part."""
        start = self._position
        self._file.write(data)
        self._crc = zlib.crc32(data, self._crc)
        self._position += len(data)
        return Section(start, len(data))

    def finish(self, header: Header) -> None:
        """Append the header and put the file in the place of an older one."""
        encoded = msgspec.msgpack.encode(header)
        self.put(layout.HEADER_CRC.pack(zlib.crc32(encoded)))
        at = self.put(encoded)
        self._file.write(layout.FOOTER.pack(at.start, at.length, self._crc, layout.FOOTER_MAGIC))
        self._file.close()
        os.replace(self._temporary, self._path)

    def discard(self) -> None:
        """Forget the file; harmless after `finish`."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class OpenBlock:
    """A block being filled: the compressors are fed, only compressed bytes are kept.

    One without deflate is of a quick index, which somebody waits for and which will soon be another.
    """

    def __init__(self, first: int, *, with_deflate: bool) -> None:
        self.first = first
        self.with_deflate = with_deflate
        self.count = 0
        self.raw_length = 0
        self._crc = 0
        self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL if with_deflate else HASTY_ZSTD_LEVEL).compressobj()
        self._deflate = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -15)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._zstd_out: list[bytes] = []
        self._deflate_out: list[bytes] = []

    def begin_instance(self) -> int:
        if self.count:
            self.feed(b",")
        self.count += 1
        return self.raw_length

    def feed(self, chunk: bytes) -> None:
        self.raw_length += len(chunk)
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes >= FEED_BYTES:
            self._flush()

    @property
    def crc(self) -> int:
        """CRC-32 of what was fed so far."""
        self._flush()
        return self._crc

    def _flush(self) -> None:
        """Compress what was gathered: a call for each small instance would cost half as much again."""
        if not self._waiting:
            return
        chunk = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._crc = zlib.crc32(chunk, self._crc)
        self._zstd_out.append(self._zstd.compress(chunk))
        if self.with_deflate:
            self._deflate_out.append(self._deflate.compress(chunk))

    def finish_zstd(self) -> bytes:
        self._flush()
        return b"".join((*self._zstd_out, self._zstd.flush()))

    def finish_deflate(self) -> bytes:
        self._flush()
        return b"".join((*self._deflate_out, self._deflate.flush(zlib.Z_FULL_FLUSH)))
