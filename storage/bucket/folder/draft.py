"""An object being written: a file beside its place, under a name that no key has, until it is put there whole."""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from types import TracebackType

from storage.bucket.base import ObjectInfo
from storage.bucket.folder.directory import Directory
from storage.bucket.folder.file import OpenFile, describe, version_of
from storage.bucket.folder.root import Root, unavailable
from storage.bucket.object_key import RESERVED_PREFIX
from storage.errors import ObjectChanged, ObjectExists
from storage.ranges import ByteRange

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

_READ_BYTES = 1024 * 1024
"""How much of a range is in memory where the system does not copy it."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""How file systems say that they make no second name for a file."""


class Draft:
    """Open it, append, publish in one of three ways, close it. Closing removes what was not published.

    Every method blocks.
    """

    __slots__ = ("_descriptor", "_directory", "_key", "_make", "_name", "_root", "_temporary")

    def __init__(self, root: Root, key: str, *, make_folders: bool = True) -> None:
        self._root = root
        self._key = key
        self._make = make_folders
        self._name = key.rpartition("/")[2]
        self._temporary = RESERVED_PREFIX + secrets.token_hex(12)
        self._directory: Directory | None = None
        self._descriptor = -1

    def __enter__(self) -> "Draft":
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        self._directory = Directory.open(self._root, self._key, make=self._make)
        with self._failures():
            self._descriptor = os.open(self._temporary, _CREATE_FLAGS, 0o666, dir_fd=self._directory.descriptor)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data).cast("B")
        with self._failures():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def append_range(self, file: OpenFile, wanted: ByteRange) -> None:
        """Append bytes of another file, or of the one that is being replaced: copied by the system where it can."""
        position = wanted.start + file.copy_to(self._descriptor, wanted)
        while position < wanted.stop:
            following = min(position + _READ_BYTES, wanted.stop)
            self.append(file.read(ByteRange(position, following)))
            position = following

    def publish(self) -> ObjectInfo:
        """Put the file in its place, whatever is there."""
        info = self._finish()
        with self._opened.locked(required=False):
            self._rename()
        self._opened.flush()
        return info

    def publish_over(self, version: str) -> ObjectInfo:
        """Put the file in the place of exactly this version. Raises ObjectChanged, ObjectNotFound."""
        info = self._finish()
        with self._opened.locked(required=True):
            present = version_of(self._opened.status(self._name))
            if present != version:
                raise ObjectChanged(f"{self._key}: version {present} instead of {version}")
            self._rename()
        self._opened.flush()
        return info

    def publish_new(self) -> ObjectInfo:
        """Put the file in its place if that is free. Raises ObjectExists."""
        info = self._finish()
        with self._opened.locked(required=False), self._failures():
            self._link()
        self._opened.flush()
        return info

    def close(self) -> None:
        """Give back the descriptors and remove the file, unless it was renamed to its place."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(OSError):  # renamed; or stays as a file that no listing shows
                os.unlink(self._temporary, dir_fd=self._opened.descriptor)
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    @property
    def _opened(self) -> Directory:
        if self._directory is None:
            raise ValueError("the draft is not open")
        return self._directory

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unavailable(self._key, error) from error

    def _finish(self) -> ObjectInfo:
        """Put every byte on the disk, and give the file a time of its own.

        The kernel's file times move in steps of some milliseconds, and inodes are used again: of three quick writes
        of equal size the third could get the version of the first. This clock counts nanoseconds.
        """
        with self._failures():
            now = time.time_ns()
            os.utime(self._descriptor, ns=(now, now))
            os.fsync(self._descriptor)
            return describe(self._key, os.fstat(self._descriptor))

    def _rename(self) -> None:
        directory = self._opened.descriptor
        with self._failures():
            os.rename(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)

    def _link(self) -> None:
        """Give the file its name unless that is taken: in one step where the file system makes hard links."""
        directory = self._opened.descriptor
        try:
            os.link(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError as error:
            # An answer lost on the way from a file server makes the repeat fail although the first went through.
            if os.fstat(self._descriptor).st_nlink < 2:
                raise ObjectExists(self._key) from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._reserve_and_rename()

    def _reserve_and_rename(self) -> None:
        """Without links: take the name by an empty file, then put ours over it. A reader may meet the empty one."""
        directory = self._opened.descriptor
        try:
            os.close(os.open(self._name, _CREATE_FLAGS, 0o666, dir_fd=directory))
        except FileExistsError as error:
            raise ObjectExists(self._key) from error
        self._rename()
