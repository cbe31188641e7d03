"""One file of a folder, open for reading, as an object of a bucket: its size, its version, and exact ranges of it."""

import errno
import os
import stat
import sys
from types import TracebackType

from storage.bucket.base import ObjectInfo
from storage.bucket.folder.root import Root, unavailable
from storage.errors import ObjectChanged, ObjectNotFound, ObjectTruncated, StorageUnavailable
from storage.ranges import ByteRange

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: opening a pipe that somebody put in the place of a file must not wait for a writer."""

_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})

ZEROED_BYTES = 16 << 10
"""Up to here memory is zeroed, for nothing, in less time than it takes to ask numpy for some."""

_NO_COPYING = _NOT_SUPPORTED | {errno.EXDEV, errno.EPERM}
"""How systems say that they do not copy from one file to the other; EPERM is what sandboxes say to what is new to them."""


class OpenFile:
    """One descriptor, and what the file was when it was opened. A `with` block closes it.

    Raises:
        ObjectNotFound: no such file; or a directory, which is a prefix of keys and no object.
        StorageUnavailable: any other failure, a pipe or device, a symbolic link that leads out.
    """

    __slots__ = ("_descriptor", "_status", "info", "key", "size", "users", "version")

    def __init__(self, root: Root, key: str) -> None:
        try:
            self._descriptor = os.open(root.place(key), _OPEN_FLAGS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise root.absence(key) from error
        except OSError as error:
            raise unavailable(key, error) from error
        try:
            self._status = _status(key, self._descriptor)
            root.check_holds(key, self._descriptor)
            check_regular(key, self._status)
        except BaseException:
            os.close(self._descriptor)
            raise
        self.key = key
        self.size = self._status.st_size
        self.version = version_of(self._status)
        self.info = describe(key, self._status)
        self.users = 1
        """Who reads from it, see `HeldFiles`."""

    def __enter__(self) -> "OpenFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back: nobody reads from it any more."""
        os.close(self._descriptor)

    def is_at(self, path: str) -> bool:
        """Whether this very file, as it was when it was opened, is what a path leads to now."""
        try:
            now = os.stat(path)
        except OSError:
            return False
        then = self._status
        return (now.st_ino, now.st_mtime_ns, now.st_size, now.st_dev) == (
            then.st_ino,
            then.st_mtime_ns,
            then.st_size,
            then.st_dev,
        )

    def expect(self, wanted: ByteRange | None, version: str | None) -> ByteRange:
        """The range to read, once it is known that the file is `version` and long enough."""
        if version is not None and version != self.version:
            raise ObjectChanged(f"{self.key}: version {self.version} instead of {version}")
        if wanted is None:
            return ByteRange(0, self.size)
        if wanted.stop > self.size:
            raise ObjectTruncated(f"{self.key}: wanted bytes up to {wanted.stop}, it has {self.size}")
        return wanted

    def read_cached(self, wanted: ByteRange, no_wait: int) -> memoryview | None:
        """Read a range that is wholly in the page cache; None if it is not. Never waits for a disk.

        Raises:
            NotImplementedError: the file system cannot tell.
        """
        buffer = _buffer(wanted.length)
        try:
            count = os.preadv(self._descriptor, [buffer], wanted.start, no_wait)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                raise NotImplementedError from error
            raise unavailable(self.key, error) from error
        return buffer if count == wanted.length else None

    def read(self, wanted: ByteRange) -> memoryview:
        """Read a range, waiting for the disk."""
        buffer = _buffer(wanted.length)
        filled = 0
        try:
            while filled < wanted.length:
                count = os.preadv(self._descriptor, [buffer[filled:]], wanted.start + filled)
                if count == 0:
                    break
                filled += count
        except OSError as error:
            raise unavailable(self.key, error) from error
        if filled < wanted.length:
            self.check_unchanged()
            raise ObjectTruncated(f"{self.key}: {filled} bytes at {wanted.start} instead of {wanted.length}")
        return buffer

    def copy_to(self, descriptor: int, wanted: ByteRange) -> int:
        """Let the system copy a range to another open file, at its position. How many bytes of it were copied.

        The rest must be read and written: file systems that cannot copy say so at once, or after some bytes, or copy
        nothing and say nothing.
        """
        copied = 0
        if sys.platform == "linux":
            try:
                while copied < wanted.length:
                    rest = wanted.length - copied
                    count = os.copy_file_range(self._descriptor, descriptor, rest, wanted.start + copied)
                    if count == 0:
                        break
                    copied += count
            except OSError as error:
                if error.errno not in _NO_COPYING:
                    raise unavailable(self.key, error) from error
        return copied

    def check_unchanged(self) -> None:
        """Raise ObjectChanged if somebody wrote into the file since it was opened.

        A file that was replaced by another is no such case: the descriptor still reads the old one, and wholly.
        """
        now = _status(self.key, self._descriptor)
        # st_ctime would say more and must not be asked: it also moves when the name is taken by a newer file.
        if now.st_size != self._status.st_size or now.st_mtime_ns != self._status.st_mtime_ns:
            raise ObjectChanged(f"{self.key}: was written to while it was read")


def _buffer(length: int) -> memoryview:
    """Memory that is not zeroed first, which costs a fifth of reading 512 KiB; handed out only when it is filled."""
    if length < ZEROED_BYTES:
        return memoryview(bytearray(length))
    import numpy as np  # a tenth of a second, which who reads no such lengths does not spend

    return np.empty(length, np.uint8).data


def version_of(status: os.stat_result) -> str:
    """Device, inode, size and time of change.

    A new file differs in its inode (see `Draft` for inodes used again). Who writes into a file, keeps its size, and
    does so twice within one tick of the kernel's clock (4 ms at most on common systems) is not noticed.
    """
    return f"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def describe(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, version_of(status), status.st_mtime)


def check_regular(key: str, status: os.stat_result) -> None:
    """Raise unless the status is that of an ordinary file."""
    if stat.S_ISDIR(status.st_mode):
        raise ObjectNotFound(key)
    if not stat.S_ISREG(status.st_mode):
        raise StorageUnavailable(f"{key}: is neither a file nor a directory (mode {status.st_mode:o})")


def _status(key: str, descriptor: int) -> os.stat_result:
    try:
        return os.fstat(descriptor)
    except OSError as error:
        raise unavailable(key, error) from error
