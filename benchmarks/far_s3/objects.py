"""A folder as the objects of a bucket: versions by inode, time and size, as an ETag; keys in the order of S3."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

SCRATCH = ".far-s3-"
"""Files that are being written begin so, and are no objects."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    key: str
    size: int
    etag: str
    """In quotes, as HTTP wants it (RFC 9110 §8.8.3)."""
    modified: float


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `folders` are common prefixes, ending with the delimiter."""

    objects: list[Stored]
    folders: list[str]
    last: str
    """Where the next page begins, after; "" when there is none."""


class Objects:
    """The files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def open(self, key: str) -> Iterator[tuple[int, Stored]]:
        """A descriptor and what it is: both stay the same object, whatever is put in its place. Raises OSError."""
        descriptor = os.open(self._path(key), os.O_RDONLY)
        try:
            yield descriptor, _stored(key, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def head(self, key: str) -> Stored | None:
        """None where there is no such object."""
        try:
            path = self._path(key)
            return _stored(key, path.stat()) if path.is_file() else None
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> Stored:
        """Create or replace, atomically."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=SCRATCH, delete=False) as file:
            file.write(data)
        os.replace(file.name, path)
        return _stored(key, path.stat())

    def delete(self, key: str) -> None:
        """Absent already is no error."""
        self._path(key).unlink(missing_ok=True)

    def page(self, prefix: str, *, after: str, delimiter: str, most: int) -> Page:
        """Keys with this prefix after `after`, in the order of their UTF-8 bytes (ListObjectsV2)."""
        objects: list[Stored] = []
        folders: list[str] = []
        last = ""
        for key in sorted(self._keys(prefix), key=str.encode):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if cut < 0 else key[: cut + len(delimiter)]
            if name.encode() <= after.encode() or (folders and name == folders[-1]):
                continue
            if len(objects) + len(folders) == most:
                return Page(objects, folders, last)
            last = name
            if cut >= 0:
                folders.append(name)
            elif (stored := self.head(key)) is not None:  # else it went away meanwhile
                objects.append(stored)
        return Page(objects, folders, "")

    def _keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin so, in no order."""
        parent, _, beginning = prefix.rpartition("/")
        try:
            top = self._path(parent) if parent else self._folder
        except FileNotFoundError:
            return
        for place, folders, names in os.walk(top):
            if Path(place) == top:
                folders[:] = [name for name in folders if name.startswith(beginning)]
                names = [name for name in names if name.startswith(beginning)]
            base = os.path.relpath(place, self._folder).replace(os.sep, "/")
            for name in names:
                if not name.startswith(SCRATCH):
                    yield name if base == "." else f"{base}/{name}"

    def _path(self, key: str) -> Path:
        """Raises FileNotFoundError: a key that no file below the folder can have."""
        parts = key.split("/")
        if not all(part not in ("", ".", "..") and "\0" not in part for part in parts):
            raise FileNotFoundError(key)
        return self._folder.joinpath(*parts)


def _stored(key: str, status: os.stat_result) -> Stored:
    etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
    return Stored(key, status.st_size, etag, status.st_mtime)
