"""New instances in another lossless encoding, where that is certain to lose nothing and makes them smaller.

What is transcoded lies in a folder of its series until the series is stored: the sizes of all have to be known before
the first byte of a tar is written. The file as it came is remembered beside the instance, by size and checksum, so that
it is the same when it comes again.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from storage.cod.writing import encode_crc32c
from storage.dicom.p10 import open_p10
from storage.dicom.window import Window
from storage.errors import StorageError, StorageUnavailable
from storage.ingest.describe import Description, describe
from storage.ingest.sources import Place, SourceChanged
from storage.ingest.sources.files import FilePlace, opened
from storage.ingest.stored import Original

if TYPE_CHECKING:
    from storage.pixels.encode import Target

MAX_BYTES = 1 << 30
"""Of a file that is transcoded: it is held whole, twice. Larger ones keep their bytes."""

BATCH_FILES = 4
"""What one task of the pool transcodes: some tenths of a second."""


@dataclass(frozen=True, slots=True)
class Remade:
    """A transcoded instance."""

    description: Description
    """Of the new bytes; its place is the file in the series' folder, shown as the one that it came from."""
    original: Original


def remake(
    descriptions: Sequence[Description], target: "Target", folder: str, datastore_url: str
) -> list[Remade | None]:
    """Transcode instances, each into a file of `folder`; runs in the pool. None: its bytes stay as they are.

    Raises:
        StorageUnavailable: nothing can be written there.
    """
    return [_remade(each, target, folder, datastore_url) for each in descriptions]


def _remade(description: Description, target: "Target", folder: str, datastore_url: str) -> Remade | None:
    from storage.pixels.transcode import Kept, transcode  # numpy and codecs: only where somebody wants them

    if description.size > MAX_BYTES:
        return None
    try:
        with description.place.open() as source:
            data = source.read(0, source.size)
    except (SourceChanged, OSError, StorageError):
        return None  # told by who reads it for the tar
    result = transcode(data, target)
    if isinstance(result, Kept):
        return None
    found = describe(_written(result.data, folder, description.place), datastore_url)
    if not isinstance(found, Description) or (found.series, found.instance_uid) != (
        description.series,
        description.instance_uid,
    ):
        return None
    window = Window(len(data))
    window.add(0, data)
    syntax = open_p10(window).transfer_syntax_uid
    original = Original(
        description.size, encode_crc32c(description.crc32c), syntax, stored_crc32c=encode_crc32c(found.crc32c)
    )
    return Remade(replace(found, mtime=description.mtime), original)


def _written(data: bytes, folder: str, place: Place) -> FilePlace:
    try:
        descriptor, path = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        with opened(path) as written:
            return FilePlace(path, place.shown, written.state)
    except OSError as error:
        raise _no_room(error) from error


@contextmanager
def series_folder() -> Iterator[str]:
    """Where the transcoded instances of one series lie. Raises StorageUnavailable: nothing can be written there."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="codweb-transcoded-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from error
    with folder as path:
        yield path


def _no_room(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"transcoded files cannot be kept in the temporary folder: {error.strerror or error}")
