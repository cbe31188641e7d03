"""Listing a folder in the order of keys, one directory chain in memory at a time."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from storage.bucket.base import ObjectInfo
from storage.bucket.folder.file import describe
from storage.bucket.folder.root import Root, unavailable
from storage.bucket.object_key import is_key
from storage.errors import ObjectNotFound, StorageUnavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name in a directory as it sorts: a folder with the `/` that its keys go on with, a file as it is.

    Python compares text by code point, which is the order of UTF-8 bytes: `1.2.tar` comes before `1.2/`.
    """

    sort_name: str
    is_link: bool


def walk(root: Root, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Objects whose key starts with `prefix` and sorts after `after`, in ascending order. Blocks.

    Skipped: names that no key can have (unfinished writes, names that are not UTF-8), pipes and devices, links to
    files that lie outside, and links to folders (what they show is listed in its own place, or lies outside).

    Raises:
        StorageUnavailable: a directory cannot be read; a listing is complete or it fails.
    """
    root.check_present()
    start = prefix[: prefix.rfind("/") + 1]
    chain = [(start, iter(_first_entries(root, start)))]
    while chain:
        folder, entries = chain[-1]
        entry = next(entries, None)
        if entry is None:
            chain.pop()
            continue
        key = folder + entry.sort_name
        if key.endswith("/"):
            if _may_hold(key, prefix, after):
                chain.append((key, iter(_entries(root, key))))
        elif key.startswith(prefix) and key > after:
            info = _describe(root, key, is_link=entry.is_link)
            if info is not None:
                yield info


def _may_hold(folder: str, prefix: str, after: str) -> bool:
    """Whether a key that starts with `folder` can be one of the wanted."""
    within = folder.startswith(prefix) or prefix.startswith(folder)
    return within and (folder > after or after.startswith(folder))


def _first_entries(root: Root, folder: str) -> list[_Entry]:
    """The entries of the folder that the prefix names, which may be reached through links that stay inside."""
    if folder:
        place = os.path.realpath(root.place(folder))
        if not root.holds(place):
            raise StorageUnavailable(f"{folder}: a symbolic link leads out of the datastore")
        if not os.path.lexists(place):
            absence = root.absence(folder.rstrip("/"))
            if not isinstance(absence, ObjectNotFound):
                raise absence
    return _entries(root, folder)


def _entries(root: Root, folder: str) -> list[_Entry]:
    """The sorted entries of one directory; none if it was removed meanwhile."""
    found: list[_Entry] = []
    try:
        with os.scandir(root.place(folder)) as entries:
            for entry in entries:
                if not is_key(folder + entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found.append(_Entry(entry.name + "/", is_link=False))
                elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    found.append(_Entry(entry.name, entry.is_symlink()))
    except (FileNotFoundError, NotADirectoryError):
        root.check_present()
        return []
    except OSError as error:
        raise unavailable(folder or "the datastore", error) from error
    return sorted(found, key=lambda entry: entry.sort_name)


def _describe(root: Root, key: str, *, is_link: bool) -> ObjectInfo | None:
    """Describe a file; None if it was removed meanwhile, or is a link that leads to no file of the datastore."""
    place = root.place(key)
    if is_link and not root.holds(os.path.realpath(place)):
        _log.warning("%s is not listed: a link that leads out of the datastore", key)
        return None
    try:
        status = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        root.check_present()
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            _log.warning("%s is not listed: a link that leads nowhere", key)
            return None
        raise unavailable(key, error) from error
    if not stat.S_ISREG(status.st_mode):
        _log.warning("%s is not listed: a link to a folder", key)
        return None
    return describe(key, status)
