"""One directory of a folder, opened to be changed: nothing done through it can land in another place."""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from types import TracebackType

from storage.bucket.folder.file import check_regular
from storage.bucket.folder.root import Root, unavailable
from storage.errors import ObjectNotFound, StorageUnavailable

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY

_LOCK_SECONDS = 10.0
"""How long a change waits for other processes that change the same directory; each holds the lock for one rename."""

_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""How file systems say that they do not lock directories (NFS: EBADF)."""


class Directory:
    """A descriptor of the directory in which a key's file is. Opened by `open`, closed by `close` or a `with` block."""

    __slots__ = ("_key", "descriptor")

    def __init__(self, key: str, descriptor: int) -> None:
        self._key = key
        self.descriptor = descriptor

    @classmethod
    def open(cls, root: Root, key: str, *, make: bool) -> "Directory":
        """Open the directory of `key`, segment by segment, so that it is proven to lie inside before it is made.

        Raises:
            ObjectNotFound: it does not exist, and `make` is false.
        """
        root.check_present()
        try:
            descriptor = os.open(root.path, _OPEN_FLAGS)
        except OSError as error:
            raise unavailable(key, error) from error
        try:
            for segment in key.split("/")[:-1]:
                following = _open_below(root, key, descriptor, segment, make=make)
                os.close(descriptor)
                descriptor = following
                root.check_holds(key, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(key, descriptor)

    def __enter__(self) -> "Directory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)

    def status(self, name: str) -> os.stat_result:
        """Describe a file of the directory. Raises ObjectNotFound."""
        try:
            status = os.stat(name, dir_fd=self.descriptor)
        except FileNotFoundError as error:
            raise ObjectNotFound(self._key) from error
        except OSError as error:
            raise unavailable(self._key, error) from error
        check_regular(self._key, status)
        return status

    def remove(self, name: str) -> None:
        """Remove a file; absent already is no error, and a directory is no object."""
        with self.locked(required=False):
            try:
                if stat.S_ISDIR(os.lstat(name, dir_fd=self.descriptor).st_mode):
                    return
                os.unlink(name, dir_fd=self.descriptor)
            except FileNotFoundError:
                return
            except OSError as error:
                raise unavailable(self._key, error) from error
        self.flush()

    def flush(self) -> None:
        """Make renames and removals outlast a power cut."""
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that do not flush directories
                raise unavailable(self._key, error) from error

    @contextlib.contextmanager
    def locked(self, *, required: bool) -> Iterator[None]:
        """Hold the directory's lock, so that compare-and-rename is one step for all who change it through this class.

        Args:
            required: without a lock the change would not be safe; else a rename is atomic on its own, and a file
                system without locks is no reason to refuse it.
        """
        if not self._lock() and required:
            raise StorageUnavailable(f"{self._key}: this file system has no locks, which a conditional change needs")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # closing the descriptor releases it all the same
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        """Take the lock; False where the file system has none."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise StorageUnavailable(
                        f"{self._key}: its directory stayed locked for {_LOCK_SECONDS} s"
                    ) from error
                time.sleep(0.002)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                raise unavailable(self._key, error) from error
            else:
                return True


def _open_below(root: Root, key: str, parent: int, segment: str, *, make: bool) -> int:
    try:
        return os.open(segment, _OPEN_FLAGS, dir_fd=parent)
    except FileNotFoundError as error:
        absence = root.absence(key)
        if not (make and isinstance(absence, ObjectNotFound)):
            raise absence from error
    except NotADirectoryError as error:
        if make:
            raise StorageUnavailable(f"{key}: a file stands where it needs a folder") from error
        raise root.absence(key) from error
    except OSError as error:
        raise unavailable(key, error) from error
    try:
        with contextlib.suppress(FileExistsError):  # made by another writer just now
            os.mkdir(segment, dir_fd=parent)
        os.fsync(parent)
        return os.open(segment, _OPEN_FLAGS, dir_fd=parent)
    except OSError as error:
        raise unavailable(key, error) from error
