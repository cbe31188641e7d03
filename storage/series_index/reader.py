"""Opens a series index by mmap and answers from it: pages are shared by all processes that serve the series."""

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import zstandard

from storage.dicom.locator import PixelLocator
from storage.errors import InstanceNotFound
from storage.keys import SeriesKey
from storage.ranges import ByteRange
from storage.series_index import layout
from storage.series_index.found import FoundLog
from storage.series_index.layout import BROKEN, FOOTER, HAS_CRC, PROVEN, RECORD, Header, Hint, Record
from storage.series_index.splice import Coding, Piece, joined

CHUNK_BYTES = 1 << 20
_ROW = slice(Record._fields.index("row_start"), Record._fields.index("row_length") + 1)


class UnusableIndex(Exception):
    """The file is damaged, of another format, or gone: build it again."""


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance of a series as the index knows it."""

    key: SeriesKey
    uid: str
    ordinal: int
    """Its place in the order of the answers."""
    range: ByteRange
    """The P10 inside the tar."""
    crc32c: int | None
    transfer_syntax_uid: str | None
    locator: PixelLocator | None
    """None: not proven yet, or it cannot be served (then `problem` says why)."""
    problem: str | None

    @property
    def is_proven(self) -> bool:
        return self.locator is not None


class SeriesIndex:
    """A read-only view of one index file, plus what was found out since it was built."""

    def __init__(self, path: Path) -> None:
        """Open and check a file. Raises UnusableIndex."""
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UnusableIndex(f"{path.name}: {error}") from error
        self.path = path
        self.header = _checked_header(self._map, path)
        self.key = SeriesKey(self.header.study_uid, self.header.series_uid)
        self._view = memoryview(self._map)
        self._instances: dict[int, StoredInstance] = {}
        self.found = FoundLog(path.with_suffix(".found"), self.identity)

    @cached_property
    def identity(self) -> str:
        """Changes whenever anything the file says could: versions, depth, format (hex, for ETags and logs)."""
        header = self.header
        facts = (header.format, header.metadata_version, header.tar_version, header.depth, header.root, header.count)
        return f"{zlib.crc32(repr(facts).encode()):08x}{self._footer_crc:08x}"

    @cached_property
    def _footer_crc(self) -> int:
        return int(FOOTER.unpack_from(self._map, len(self._map) - FOOTER.size)[2])

    @cached_property
    def uids(self) -> list[str]:
        """The instances' UIDs in the order of the answers."""
        return str(self.section("uids"), "utf-8").split("\n") if self.header.count else []

    @cached_property
    def _ordinals(self) -> dict[str, int]:
        return {uid: ordinal for ordinal, uid in enumerate(self.uids)}

    def instance(self, instance_uid: str) -> StoredInstance:
        """Raises InstanceNotFound."""
        ordinal = self._ordinals.get(instance_uid)
        if ordinal is None:
            raise InstanceNotFound(f"{self.key} holds no instance {instance_uid}")
        return self.at(ordinal)

    def at(self, ordinal: int) -> StoredInstance:
        """The instance at a place in the order of the answers."""
        known = self._instances.get(ordinal)
        if known is not None and (known.locator is not None or ordinal not in self.found):
            return known
        record = self.record(ordinal)
        syntaxes = self.header.transfer_syntaxes
        syntax = syntaxes[record.transfer_syntax] if record.transfer_syntax < len(syntaxes) else None
        locator = None
        if record.flags & PROVEN:
            locator = PixelLocator.from_bytes(self._part("locators", record.locator_start, record.locator_length))
        found = self.found.get(ordinal)
        if found is not None:
            locator, syntax = found.locator, found.transfer_syntax_uid
        instance = StoredInstance(
            key=self.key,
            uid=self.uids[ordinal],
            ordinal=ordinal,
            range=ByteRange(record.start, record.start + record.size),
            crc32c=record.crc32c if record.flags & HAS_CRC else None,
            transfer_syntax_uid=syntax,
            locator=locator,
            problem=self._problem(record),
        )
        self._instances[ordinal] = instance
        return instance

    def all_instances(self) -> list[StoredInstance]:
        return [self.at(ordinal) for ordinal in range(self.header.count)]

    def hint(self, ordinal: int) -> Hint:
        """What metadata.json claims of an instance that is not proven."""
        record = self.record(ordinal)
        if not record.hint_length:
            return Hint(self.uids[ordinal])
        return msgspec.msgpack.decode(self._part("hints", record.hint_start, record.hint_length), type=Hint)

    def row(self, ordinal: int) -> bytes:
        """The finished answer of an instance search, links rootless."""
        record = self.record(ordinal)
        return bytes(self._part("rows", record.row_start, record.row_length))

    def rows(self, ordinals: range) -> list[bytes]:
        """The rows of neighbouring instances; for hundreds of them at a time."""
        start = self.header.records.start + ordinals.start * RECORD.size
        records = self._view[start : start + len(ordinals) * RECORD.size]
        base = self.header.rows.start
        return [
            self._map[base + at : base + at + length]
            for at, length in (fields[_ROW] for fields in RECORD.iter_unpack(records))
        ]

    def kept(self, ordinal: int) -> bytes:
        """JSON object of the instance-level attributes that derived rows keep."""
        record = self.record(ordinal)
        return bytes(self._part("kept", record.kept_start, record.kept_length))

    def pieces(self, coding: Coding) -> list[Piece] | None:
        """The metadata of all instances, joined by commas, as stored pieces of one coding; None if it is not stored."""
        pieces = []
        for block in self.header.blocks:
            section = {"zstd": block.zstd, "gzip": block.deflate, "identity": None}[coding]
            if section is None:
                return None
            data = self._view[section.start : section.start + section.length]
            pieces.append(Piece(data, block.raw_length, block.raw_crc32))
        return joined(pieces, coding)

    @property
    def json_bytes(self) -> int:
        """Bytes of the full metadata, uncompressed."""
        return sum(block.raw_length for block in self.header.blocks)

    def block_chunks(self, number: int) -> Iterator[bytes]:
        """The JSON objects of one block, joined by commas, in chunks of bounded size."""
        section = self.header.blocks[number].zstd
        data = self._view[section.start : section.start + section.length]
        reader = zstandard.ZstdDecompressor().stream_reader(data)
        while chunk := reader.read(CHUNK_BYTES):
            yield chunk

    def instance_chunks(self, ordinal: int) -> Iterator[bytes]:
        """The DICOM JSON object of one instance, in chunks of bounded size; decodes one block."""
        record = self.record(ordinal)
        position, stop = 0, record.block_offset + record.json_length
        for chunk in self.block_chunks(record.block):
            start = max(0, record.block_offset - position)
            if start < len(chunk):
                yield chunk[start : stop - position]
            position += len(chunk)
            if position >= stop:
                return

    def instance_json(self, ordinal: int) -> bytes:
        """The DICOM JSON object of one instance."""
        return b"".join(self.instance_chunks(ordinal))

    def record(self, ordinal: int) -> Record:
        return Record(*RECORD.unpack_from(self._map, self.header.records.start + ordinal * RECORD.size))

    def _problem(self, record: Record) -> str | None:
        if not record.flags & BROKEN:
            return None
        return str(self._part("problems", record.problem_start, record.problem_length), "utf-8")

    def _part(self, section: str, start: int, length: int) -> memoryview:
        base = getattr(self.header, section).start + start
        return self._view[base : base + length]

    def section(self, name: str) -> memoryview:
        """A part of the file, by its name in the header."""
        return self._part(name, 0, getattr(self.header, name).length)


def _checked_header(data: mmap.mmap, path: Path) -> Header:
    """The header, once the whole file has matched its checksum."""
    size = len(data)
    if size < len(layout.MAGIC) + FOOTER.size or data[: len(layout.MAGIC)] != layout.MAGIC:
        raise UnusableIndex(f"{path.name} is not a series index")
    start, length, crc, magic = FOOTER.unpack_from(data, size - FOOTER.size)
    if magic != layout.FOOTER_MAGIC or start + length + FOOTER.size != size:
        raise UnusableIndex(f"{path.name} is cut off")
    with memoryview(data) as view:
        if zlib.crc32(view[: size - FOOTER.size]) != crc:
            raise UnusableIndex(f"{path.name} does not match its checksum")
        try:
            header = layout.decode_header(view[start : start + length])
        except msgspec.DecodeError as error:
            raise UnusableIndex(f"{path.name}: {error}") from error
    if header.format != layout.FORMAT:
        raise UnusableIndex(f"{path.name} is of format {header.format}, not {layout.FORMAT}")
    return header
