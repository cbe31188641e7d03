"""The files that a DICOMDIR lists: what a CD or a memory stick says is on it.

Its Referenced File IDs are walked like any data set, without holding a record, so a large DICOMDIR needs no more memory
than a small one. Their components are names of eight characters in capitals; the copy on a disk often has other ones.

Source: PS3.3 §F.3.2.2 (Directory Record), PS3.10 §8 (File IDs), PS3.12 Annex F (ISO 9660 names: `;1`, a dot at the end).
"""

import os
import re
from collections.abc import Iterator
from functools import partial

from storage.dicom.elements import Kind, walk
from storage.dicom.p10 import P10, open_p10
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.ingest.sources.files import FilePlace, opened
from storage.ingest.sources.open_source import OpenSource, SourceChanged
from storage.ingest.sources.place import Notes, printable, system_reason

MAX_DICOMDIR_BYTES = 256 << 20
"""A record takes some hundred bytes: enough for half a million images."""

MAX_REFERENCES = 1_000_000

MAX_FILE_ID_BYTES = 256
"""Eight components of eight characters and the backslashes between them are 71; some writers are generous."""

_REFERENCED_FILE_ID = 0x00041500
_DIRECTORY_RECORDS = 0x00041220
_ISO_9660_END = re.compile(r"\.?(;[0-9]+)?\Z")


def dicomdir_places(path: str, notes: Notes) -> Iterator[FilePlace]:
    """The files that the DICOMDIR at `path` lists, each once, in its order; missing ones are refused."""
    folder = os.path.dirname(path) or "."
    try:
        with opened(path) as file:
            state = file.state
        with FilePlace(path, os.path.basename(path), state).open() as source:
            file_ids = _file_ids(source)
            source.check()
    except OSError as error:
        notes.refuse(path, system_reason(error))
        return
    except SourceChanged:
        notes.refuse(path, "changed while it was being read")
        return
    except InstanceUnreadable as error:
        notes.refuse(path, f"unreadable DICOMDIR: {error}")
        return
    names = _Names(folder)
    for file_id in dict.fromkeys(file_ids):
        shown = printable("/".join(file_id))
        try:
            found = names.find(file_id)
            if found is None:
                notes.refuse(os.path.join(folder, shown), "the DICOMDIR lists it, and it is not there")
                continue
            with opened(found) as file:
                place = FilePlace(found, printable(os.path.relpath(found, folder)), file.state)
        except OSError as error:
            notes.refuse(os.path.join(folder, shown), system_reason(error))
        else:
            yield place


def _file_ids(source: OpenSource) -> list[tuple[str, ...]]:
    """Every Referenced File ID as its components. Raises InstanceUnreadable."""
    if source.size > MAX_DICOMDIR_BYTES:
        raise InstanceUnreadable(f"{source.size} bytes, more than {MAX_DICOMDIR_BYTES}")
    window = Window(source.size)
    p10 = source.parse(window, partial(open_p10, window))
    return source.parse(window, partial(_walk_file_ids, p10))


def _walk_file_ids(p10: P10) -> list[tuple[str, ...]]:
    file_ids: list[tuple[str, ...]] = []
    depth = 0
    for kind, tag, _, start, stop in walk(
        p10.window, p10.start, p10.stop, explicit=p10.explicit, little_endian=p10.little_endian
    ):
        if kind == Kind.SEQUENCE and (depth or tag == _DIRECTORY_RECORDS):
            depth += 1
        elif kind == Kind.END_SEQUENCE and depth:
            depth -= 1
        elif kind == Kind.ELEMENT and tag == _REFERENCED_FILE_ID and depth == 1 and start < stop:
            if stop - start > MAX_FILE_ID_BYTES:
                raise InstanceUnreadable(f"a Referenced File ID of {stop - start} bytes")
            if len(file_ids) == MAX_REFERENCES:
                raise InstanceUnreadable(f"more than {MAX_REFERENCES} files")
            text = bytes(p10.window.view(start, stop)).decode("utf-8", "replace")
            file_ids.append(tuple(part.strip(" \0") for part in text.split("\\")))
    return file_ids


class _Names:
    """Finds files below one folder by names that may differ in case, and never outside of it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._real = os.path.realpath(folder)
        self._folded: dict[str, dict[str, str]] = {}
        """For each folder looked into: its names by how they fold."""

    def find(self, file_id: tuple[str, ...]) -> str | None:
        """The path of a file; None: it is not there. Raises OSError: it may not be looked for."""
        path = self._folder
        for component in file_id:
            if component in ("", ".", "..") or "/" in component or "\0" in component:
                raise OSError("no File ID of a DICOMDIR")
            name = self._name_in(path, component)
            if name is None:
                return None
            path = os.path.join(path, name)
        if os.path.commonpath([self._real, os.path.realpath(path)]) != self._real:
            raise OSError("a link leads out of the folder of the DICOMDIR")
        return path

    def _name_in(self, folder: str, component: str) -> str | None:
        names = self._folded.get(folder)
        if names is None:
            try:
                # In reverse, so that of several names that fold alike the first one stays.
                listed = sorted(os.listdir(folder), reverse=True)
            except (FileNotFoundError, NotADirectoryError):
                listed = []
            names = {_fold(name): name for name in listed} | {name: name for name in listed}
            self._folded[folder] = names
        return names.get(component) or names.get(_fold(component))


def _fold(name: str) -> str:
    return _ISO_9660_END.sub("", name.casefold())
