"""The places below a folder: every file, whatever it is called, and what lies in archives among them."""

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from storage.ingest.sources.archives import Archive, archive_places
from storage.ingest.sources.archives.archive import archive_form
from storage.ingest.sources.files import FilePlace, opened
from storage.ingest.sources.form import HEAD_BYTES, Form, form_of
from storage.ingest.sources.place import Notes, Place, printable, system_reason
from storage.ingest.sources.scratch import Scratch
from storage.keys import SeriesObject, parse_object_key, parse_shared_index_key

_COD_DEPTH = 5
"""Parts of the key of a series' metadata.json, and of a shared index."""

NOTHING: Mapping[str, str] = MappingProxyType({})


def folder_places(
    source: str, notes: Notes, scratch: Scratch, left_out: Mapping[str, str] = NOTHING
) -> Iterator[Place]:
    """Every file below a folder, in a stable order, hidden ones too.

    Links are followed, each folder is entered once (so a circle of links ends); what cannot be looked into is refused.
    Only the names of one folder at a time are held, and of the folders that are still to be entered.

    Args:
        left_out: folders that are not entered, by their real paths, with the reason.
    """
    entered: set[tuple[int, int]] = set()

    waiting = [source]  # not os.walk, which calls itself for each level and fails at a thousand
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            reason = left_out.get(os.path.realpath(folder)) if left_out else None
            if reason is not None:
                notes.skip(folder, reason)
                continue
            folders, files = _names_in(folder)
        except OSError as error:
            notes.refuse(folder, system_reason(error))
            continue
        waiting += [os.path.join(folder, name) for name in sorted(folders, reverse=True)]
        for name in sorted(files):
            path = os.path.join(folder, name)
            if is_beside_series(os.path.abspath(path)):
                notes.skip(path, "kept beside a COD series: it holds no instance")
            else:
                yield from file_places(path, os.path.relpath(path, source), notes, scratch)


def _names_in(folder: str) -> tuple[list[str], list[str]]:
    """The names of folders, and of everything else. Raises OSError."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False  # what is wrong with it is told by who opens it
            (folders if is_folder else files).append(entry.name)
    return folders, files


def file_places(path: str, shown: str, notes: Notes, scratch: Scratch) -> Iterator[Place]:
    """The file at `path`, or if it is an archive what lies in it; a DICOMDIR is skipped."""
    shown = printable(shown)
    try:
        with opened(path) as file:
            head = file.read_up_to(0, HEAD_BYTES)
            form = form_of(head)
            archived_as = None if form in (Form.DICOM, Form.DICOMDIR) else archive_form(file, head)
            state = file.state
    except OSError as error:
        notes.refuse(path, system_reason(error))
        return
    if form is Form.DICOMDIR:
        notes.skip(path, "a DICOMDIR: it lists other files and holds no instance")
    elif archived_as is not None:
        yield from archive_places(Archive(path, shown, state, archived_as), notes, scratch)
    else:
        yield FilePlace(path, shown, state)


def is_beside_series(path: str) -> bool:
    """Whether the end of a path is that of an object which a COD store keeps beside the tar of a series."""
    key = "/".join(path.rsplit("/", _COD_DEPTH)[-_COD_DEPTH:])
    parsed = parse_object_key(key)
    return (parsed is not None and parsed[1] is not SeriesObject.TAR) or parse_shared_index_key(key) is not None
