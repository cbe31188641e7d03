"""A compressed tar, unpacked once into one file of the ingest's scratch folder, within bounds."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

import zstandard

from storage.ingest.sources.archives.entry import ArchiveRefused
from storage.ingest.sources.form import HEAD_BYTES, Form, form_of
from storage.ingest.sources.open_source import CHUNK_BYTES

MAX_DICTIONARY_BYTES = 256 << 20
"""What a decompressor may take of memory: xz -9 takes 65 MiB, and its format allows 4 GiB; of zstd it is the window."""

_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def unpacked_head(packed: BinaryIO, form: Form) -> bytes:
    """The first bytes of what is compressed here; empty if they cannot be unpacked."""
    head = b""
    try:
        for chunk in _chunks(packed, form, HEAD_BYTES):
            head += chunk
            if len(head) >= HEAD_BYTES:
                break
    except _DAMAGED:
        return b""
    return head[:HEAD_BYTES]


def holds_tar(packed: BinaryIO, form: Form) -> bool:
    """Whether a tar begins inside."""
    return form_of(unpacked_head(packed, form)) is Form.TAR


def unpack(packed: BinaryIO, form: Form, *, limit: int) -> Iterator[bytes]:
    """All of it, in chunks.

    Raises:
        ArchiveRefused: it is cut or damaged here, or becomes larger than `limit`.
    """
    made = 0
    try:
        for chunk in _chunks(packed, form, CHUNK_BYTES):
            made += len(chunk)
            if made > limit:
                raise ArchiveRefused(f"it unpacks to more than {limit} bytes")
            yield chunk
    except _DAMAGED as error:
        raise ArchiveRefused(f"cut off or damaged after {made} unpacked bytes") from error


class _Reader(Protocol):
    def read1(self, size: int, /) -> bytes:
        """What is there: `read` would lose it when the next piece is damaged."""


def _chunks(packed: BinaryIO, form: Form, length: int) -> Iterator[bytes]:
    """Chunks of at most `length` bytes."""
    if form is Form.XZ:
        yield from _xz_chunks(packed, length)
        return
    reader = _reader(packed, form)
    while chunk := reader.read1(length):
        yield chunk


def _reader(packed: BinaryIO, form: Form) -> _Reader:
    match form:
        case Form.GZIP:
            return gzip.GzipFile(fileobj=packed)
        case Form.BZIP2:
            return bz2.BZ2File(packed)
        case Form.ZSTD:
            opened = zstandard.ZstdDecompressor(max_window_size=MAX_DICTIONARY_BYTES)
            # its stubs say Any
            return cast(_Reader, opened.stream_reader(packed, read_across_frames=True, closefd=False))
    raise AssertionError(f"{form} is not compressed")


def _xz_chunks(packed: BinaryIO, length: int) -> Iterator[bytes]:
    """By hand, for LZMAFile knows no bound of memory. Streams may follow one another, with zeros between them."""
    unread = packed.read(CHUNK_BYTES)
    while unread:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY_BYTES)
        while not decompressor.eof:
            if decompressor.needs_input and not unread:
                unread = packed.read(CHUNK_BYTES)
                if not unread:
                    raise EOFError
            chunk = decompressor.decompress(unread, length)
            unread = b""
            if chunk:
                yield chunk
        unread = decompressor.unused_data.lstrip(b"\0")
        while not unread and (more := packed.read(CHUNK_BYTES)):
            unread = more.lstrip(b"\0")
