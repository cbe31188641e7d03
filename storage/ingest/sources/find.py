"""Finding places: every source, in the order in which it was named, whatever it is."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.bucket import BucketOptions, open_bucket
from storage.errors import StorageError
from storage.ingest.report import RefusedFile
from storage.ingest.sources.dicomdir import dicomdir_places
from storage.ingest.sources.files import opened
from storage.ingest.sources.folders import NOTHING, file_places, folder_places
from storage.ingest.sources.form import HEAD_BYTES, Form, form_of
from storage.ingest.sources.objects import is_tar, listed, object_places
from storage.ingest.sources.place import Notes, Place, SkippedFile
from storage.ingest.sources.scratch import Scratch

BATCH_PLACES = 256
"""Places that one visit to a thread finds."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEFAULTS = BucketOptions()


async def find_places(
    sources: Sequence[str | Path],
    refused: list[RefusedFile],
    skipped: list[SkippedFile],
    *,
    scratch: Scratch,
    options: BucketOptions = _DEFAULTS,
    left_out: Mapping[str, str] = NOTHING,
) -> AsyncGenerator[Place, None]:
    """Every file under the sources, in a stable order, as it is found: a million of them are never held at once.

    A source is a file, a folder, an archive, a DICOMDIR (which means the files that it lists), or the address of a
    bucket, of a prefix in one, or of an object. What cannot be read does not keep the others from being found.

    Args:
        refused: grows by what may hold an instance and cannot be read.
        skipped: grows by what holds none by its nature.
        scratch: where compressed tars are unpacked; places found in them can be opened as long as it lasts.
        options: how to reach buckets.
        left_out: folders (real paths) and prefixes of buckets (addresses) that are not looked into, with the reason.
    """
    notes = Notes(refused, skipped)
    for source in sources:
        scheme = None if isinstance(source, Path) else _SCHEME.match(source)
        if scheme is None:
            places = _in_thread(_local_places(str(source), notes, scratch, left_out))
        elif scheme[1].lower() == "file":
            places = _in_thread(_local_places(unquote(urlsplit(str(source)).path), notes, scratch, left_out))
        else:
            places = _remote_places(str(source), scheme.end(), options, notes, left_out)
        async with aclosing(places):
            async for place in places:
                yield place


async def _in_thread(places: Iterator[Place]) -> AsyncGenerator[Place, None]:
    """What a walk of a disk finds, without keeping the event loop from its other work."""
    while batch := await asyncio.to_thread(list, islice(places, BATCH_PLACES)):
        for place in batch:
            yield place


def _local_places(source: str, notes: Notes, scratch: Scratch, left_out: Mapping[str, str]) -> Iterator[Place]:
    if os.path.isdir(source):
        yield from folder_places(source, notes, scratch, left_out)
    elif _is_dicomdir(source):
        yield from dicomdir_places(source, notes)
    else:
        yield from file_places(source, os.path.basename(source), notes, scratch)


def _is_dicomdir(source: str) -> bool:
    try:
        with opened(source) as file:
            return form_of(file.read_up_to(0, HEAD_BYTES)) is Form.DICOMDIR
    except OSError:
        return False  # what is wrong with it is told by who opens it next


async def _remote_places(
    source: str, path_start: int, options: BucketOptions, notes: Notes, left_out: Mapping[str, str]
) -> AsyncGenerator[Place, None]:
    """The objects that an address means: the parent of its last part is opened, and asked for that part."""
    path = source[path_start:].rstrip("/")
    parent, _, name = path.rpartition("/")
    if not parent:
        parent, name = path, ""
    url = source[:path_start] + parent
    try:
        bucket = open_bucket(url, options=options)
    except (ValueError, StorageError) as error:
        notes.refuse(source, str(error))
        return
    is_found = False
    try:
        async for info, shown in listed(bucket, name, is_folder=source.endswith("/")):
            is_found = True
            if any(f"{url}/{info.key}".startswith(f"{each.rstrip('/')}/") for each in left_out):
                continue
            places = object_places(url, options, info, shown, notes)
            if is_tar(info.key):
                async with aclosing(_in_thread(places)) as members:
                    async for place in members:
                        yield place
            else:
                for place in places:
                    yield place
    except (ValueError, StorageError) as error:
        notes.refuse(source, f"cannot be listed: {error}")
        return
    finally:
        await bucket.close()
    if not is_found:
        notes.refuse(source, "nothing is stored there")
