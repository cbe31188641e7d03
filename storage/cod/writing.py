"""The small objects of a COD series, as the published library reads them: metadata.json (v2.0) and index.sqlite.

metadata.json is gzip JSON: the UIDs of the series and one entry per instance with every key present, for the library
fails on a missing one. index.sqlite is the ratarmount index of the tar: the library downloads it and never looks into
it; we write a valid one, so that ratarmount mounts the series without reading its tar.
"""

import base64
import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from storage.cod.entry import DEFAULT_LIMITS, Limits, OriginalUids
from storage.cod.entry_parts import OffsetTable, instance_uri
from storage.cod.lock import Journal, LockOwner
from storage.cod.metadata import UNSUSPECTED_BYTES
from storage.cod.tar import TarLayout, TarMember
from storage.errors import SeriesFull
from storage.keys import SeriesKey

ENTRY_VERSION = "2.0"

GZIP_LEVEL = 6
"""Entries are base64 of compressed data: there is little to win at higher levels."""

_SQLITE_FILE_MODE = 0o100644
_SQLITE_FOLDER_MODE = 0o40555


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One instance to be written into metadata.json."""

    instance_uid: str
    """Its key: the UID of the outside world."""
    member: TarMember
    crc32c: int
    """Of exactly the P10 bytes of the member."""
    has_pixeldata: bool
    """Pixel Data (7FE0,0010) is present; the Float and Double Float forms do not count."""
    metadata: bytes
    """What `compress_attributes` made of the instance's DICOM JSON."""
    offset_table: OffsetTable | None
    original_path: str
    dependencies: tuple[str, ...] = ()
    """URIs of files that this instance stands for, to be deleted when it is safe to."""
    original_uids: OriginalUids | None = None
    """What the P10 says, where the keys are hashed UIDs; None: it says what the keys say."""


class PackedSeries:
    """metadata.json, compressed once: as itself, and as the body of the lock that announces it.

    The same input gives the same bytes: the gzip header carries no time.
    """

    def __init__(self, members: Mapping[str, msgspec.Raw], entries: Iterable[tuple[str, msgspec.Raw | bytes]]) -> None:
        """Pack the top-level members, in their order, with `cod` behind them, and entries by instance UID."""
        self._packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
        self._packed: list[bytes] = []
        self._text_bytes = self._entries = 0
        self._put(b"{")
        for name, value in members.items():
            self._put(msgspec.json.encode(name) + b":" + bytes(value) + b",")
        self._put(b'"cod":{"instances":{')
        separator = b""
        for instance_uid, entry in entries:
            self._put(separator + msgspec.json.encode(instance_uid) + b":" + bytes(entry))
            separator = b","
            self._entries += 1
        self._put(b"}}")

    @property
    def metadata(self) -> bytes:
        """The bytes of metadata.json."""
        return self._ended(b"}")

    def lock(self, owner: LockOwner, journal: Journal | None = None) -> bytes:
        """The bytes of a lock whose holder is about to write it, or (without a journal) keeps it."""
        tail = b',"codweb":' + msgspec.json.encode(owner)
        if journal is not None:
            tail += b',"codweb_journal":' + msgspec.json.encode(journal)
        return self._ended(tail + b"}")

    def check(self, series: SeriesKey, limits: Limits = DEFAULT_LIMITS) -> None:
        """Make sure that what is written can be read again, by codweb at least. Raises SeriesFull."""
        if self._entries > limits.max_instances:
            raise SeriesFull(f"{series} would have {self._entries} instances, more than {limits.max_instances}")
        packed = sum(map(len, self._packed))
        if self._text_bytes > min(limits.max_bytes, max(UNSUSPECTED_BYTES, packed * limits.max_ratio)):
            raise SeriesFull(f"{series}: its metadata.json would have {self._text_bytes} bytes, more than can be read")

    def _put(self, text: bytes) -> None:
        self._text_bytes += len(text)
        self._packed.append(self._packer.compress(text))

    def _ended(self, tail: bytes) -> bytes:
        packer = self._packer.copy()
        return b"".join((*self._packed, packer.compress(tail), packer.flush()))


def series_members(series: SeriesKey, *, is_deid: bool = False) -> dict[str, msgspec.Raw]:
    """The top-level members that name a series, as a new metadata.json begins."""
    prefix = "deid_" if is_deid else ""
    uids = {f"{prefix}study_uid": series.study_uid, f"{prefix}series_uid": series.series_uid}
    return {name: msgspec.Raw(msgspec.json.encode(uid)) for name, uid in uids.items()}


def encode_entry(series: SeriesKey, entry: NewEntry, *, datastore_url: str, modified: datetime) -> bytes:
    """One v2.0 entry, ASCII. `end_byte` is exclusive; `modified_datetime` has no zone, as the library writes it."""
    table, uids = entry.offset_table, entry.original_uids
    fields = {
        "instance_uid": (uids and uids.instance_uid) or entry.instance_uid,
        "series_uid": (uids and uids.series_uid) or series.series_uid,
        "study_uid": (uids and uids.study_uid) or series.study_uid,
        "has_pixeldata": entry.has_pixeldata,
        "metadata": base64.b64encode(entry.metadata).decode("ascii"),
        "uri": instance_uri(datastore_url, series, entry.instance_uid),
        "headers": {"start_byte": entry.member.start, "end_byte": entry.member.stop},
        "offset_tables": _table_fields(table),
        "crc32c": encode_crc32c(entry.crc32c),
        "size": entry.member.size,
        # The stdlib escapes everything beyond ASCII, lone surrogates of undecodable file names too.
        "original_path": msgspec.Raw(json.dumps(entry.original_path).encode("ascii")),
        "dependencies": msgspec.Raw(json.dumps(entry.dependencies).encode("ascii")),
        "diff_hash_dupe_paths": [],
        "version": ENTRY_VERSION,
        "modified_datetime": modified.astimezone(UTC).replace(tzinfo=None).isoformat(),
    }
    return msgspec.json.encode(fields)


def encode_crc32c(crc32c: int) -> str:
    """A checksum as Google Cloud Storage writes it: base64 of four bytes, the highest first."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode("ascii")


def moved_entry(stored: msgspec.Raw, member: TarMember) -> bytes:
    """A stored entry, of any version, of an instance that lies elsewhere now; everything else stays as it is."""
    fields = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
    fields["headers"] = msgspec.Raw(msgspec.json.encode({"start_byte": member.start, "end_byte": member.stop}))
    return msgspec.json.encode(fields)


def corrected_entry(
    stored: msgspec.Raw,
    *,
    metadata: bytes,
    offset_table: OffsetTable | None,
    has_pixeldata: bool,
    original_uids: OriginalUids,
) -> bytes:
    """A stored entry, of any version, that says of the same bytes what is so; it is of version 2.0 then."""
    fields: dict[str, object] = dict(msgspec.json.decode(stored, type=dict[str, msgspec.Raw]))
    return msgspec.json.encode(
        fields
        | {
            "instance_uid": original_uids.instance_uid,
            "series_uid": original_uids.series_uid,
            "study_uid": original_uids.study_uid,
            "has_pixeldata": has_pixeldata,
            "metadata": base64.b64encode(metadata).decode("ascii"),
            "offset_tables": _table_fields(offset_table),
            "version": ENTRY_VERSION,
        }
    )


def _table_fields(table: OffsetTable | None) -> dict[str, tuple[int, ...]]:
    if table is None:
        return {}
    return {"CustomOffsetTable": table.positions, "CustomOffsetTableLengths": table.lengths}


def noted_entry(stored: msgspec.Raw, conflicts: Iterable[str]) -> bytes:
    """A stored entry with further `diff_hash_dupe_paths`: files of the same UID and other bytes that were not stored."""
    fields = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
    try:
        paths = msgspec.json.decode(fields.get("diff_hash_dupe_paths", msgspec.Raw(b"[]")), type=list[str])
    except msgspec.ValidationError:
        paths = []
    paths += [path for path in dict.fromkeys(conflicts) if path not in paths]
    fields["diff_hash_dupe_paths"] = msgspec.Raw(json.dumps(paths).encode("ascii"))
    return msgspec.json.encode(fields)


def build_tar_index(layout: TarLayout, *, tar_mtime: float) -> bytes:
    """index.sqlite for a tar: a row per member, one for their folder, and what ratarmount checks on opening."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(_INDEX_SCHEMA)
        connection.executemany(_INSERT_FILE, _file_rows(layout.members))
        connection.executemany('INSERT INTO "metadata" VALUES (?, ?)', _index_metadata(layout.size, tar_mtime))
        connection.executemany('INSERT INTO "versions" VALUES (?, ?, ?, ?, ?)', _INDEX_VERSIONS)
        connection.commit()
        return connection.serialize()
    finally:
        connection.close()


def _file_rows(members: Sequence[TarMember]) -> Iterable[tuple[object, ...]]:
    for member in members:
        folder, _, name = member.name.rpartition("/")
        place = (f"/{folder}", name, member.header_start, member.start, member.size, member.mtime)
        yield (*place, _SQLITE_FILE_MODE, b"0", "", 0, 0, 0, 0, 0, 0)
    if members:
        first = members[0]
        yield ("", "instances", first.header_start, first.start, 0, 0.0, _SQLITE_FOLDER_MODE, 5, "", 0, 0, 0, 0, 0, 0)


def _index_metadata(tar_size: int, tar_mtime: float) -> list[tuple[str, str]]:
    nanoseconds = int(tar_mtime * 1e9)
    stat = {
        "st_atime": tar_mtime, "st_atime_ns": nanoseconds, "st_blksize": 4096, "st_blocks": -(-tar_size // 512),
        "st_ctime": tar_mtime, "st_ctime_ns": nanoseconds, "st_dev": 0, "st_gid": 0, "st_ino": 0,
        "st_mode": _SQLITE_FILE_MODE, "st_mtime": tar_mtime, "st_mtime_ns": nanoseconds, "st_nlink": 1, "st_rdev": 0,
        "st_size": tar_size, "st_uid": 0,
    }  # fmt: skip
    arguments = {
        "mountRecursively": False, "encoding": "utf-8", "stripRecursiveTarExtension": False,
        "transformRecursiveMountPoint": None, "transformPattern": None, "ignoreZeros": False, "hashes": [],
        "gzipSeekPointSpacing": 16 << 20,
    }  # fmt: skip
    return [
        ("tarstats", json.dumps(stat)),
        ("arguments", json.dumps(arguments)),
        ("backendName", "SQLiteIndexedTar"),
        ("isGnuIncremental", "0"),
    ]


_INDEX_VERSIONS = [("ratarmount", "0.11.1", 0, 11, 1), ("index", "0.7.0", 0, 7, 0)]
"""The versions whose shape this is, and that the stores of the published library name."""

_INSERT_FILE = 'INSERT OR REPLACE INTO "files" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'

_INDEX_SCHEMA = """
CREATE TABLE "files" (
    "path"           VARCHAR(65535) NOT NULL,  /* path with leading and without trailing slash */
    "name"           VARCHAR(65535) NOT NULL,
    "offsetheader"   INTEGER,  /* seek offset from TAR file where the TAR metadata for this file resides */
    "offset"         INTEGER,  /* seek offset from TAR file where these file's contents resides */
    "size"           INTEGER,
    "mtime"          REAL,
    "mode"           INTEGER,
    "type"           INTEGER,
    "linkname"       VARCHAR(65535),
    "uid"            INTEGER,
    "gid"            INTEGER,
    "istar"          BOOL   ,
    "issparse"       BOOL   ,
    "isgenerated"    BOOL   ,
    "recursiondepth" INTEGER,
    PRIMARY KEY ("path","name","offsetheader")
);
CREATE TABLE "xattrkeys" (
    "id" INTEGER PRIMARY KEY,
    "name" VARCHAR(65535) UNIQUE
);
CREATE TABLE "xattrsdata" (
    "offsetheader" INTEGER,
    "keyid" INTEGER,
    "value" VARCHAR(65535),
    PRIMARY KEY ("offsetheader","keyid"),
    FOREIGN KEY ("keyid") REFERENCES xattrkeys("id")
);
CREATE TABLE "metadata" (
    "key"      VARCHAR(65535) NOT NULL,
    "value"    VARCHAR(65535) NOT NULL,
    PRIMARY KEY ("key")
);
CREATE TABLE "versions" (
    "name"     VARCHAR(65535) NOT NULL,
    "version"  VARCHAR(65535) NOT NULL,
    "major"    INTEGER,
    "minor"    INTEGER,
    "patch"    INTEGER,
    PRIMARY KEY ("name")
);
CREATE VIEW "xattrs" ( "offsetheader", "key", "value" ) AS
    SELECT offsetheader, xattrkeys.name, value FROM "xattrsdata"
    INNER JOIN xattrkeys ON xattrkeys.id = xattrsdata.keyid;
CREATE TRIGGER "xattrs_insert" INSTEAD OF INSERT ON "xattrs"
BEGIN
    INSERT OR IGNORE INTO xattrkeys(name) VALUES (NEW.key);
    INSERT OR REPLACE INTO xattrsdata(offsetheader, keyid, value) VALUES (
        NEW.offsetheader,
        (SELECT xattrkeys.id FROM xattrkeys WHERE name = NEW.key),
        NEW.value
    );
END;
"""
