"""The folder that holds a datastore: where a key's file is, whether it lies inside, and what an absence means."""

import fcntl
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from storage.errors import ObjectNotFound, StorageError, StorageUnavailable


@dataclass(frozen=True, slots=True)
class Root:
    """The real path of the folder, and the inode that stood there when the bucket was opened."""

    path: str
    inode: int

    @classmethod
    def at(cls, folder: Path) -> "Root":
        """Raises StorageUnavailable unless there is such a folder."""
        try:
            path = folder.resolve(strict=True)
            inode = path.stat().st_ino
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageUnavailable(
                f"there is no folder {folder}: mount or create it, or name the folder that holds `studies`"
            ) from error
        except (OSError, RuntimeError) as error:  # RuntimeError: how pathlib reports a loop of symbolic links
            raise StorageUnavailable(f"the folder {folder} cannot be opened: {error}") from error
        if not path.is_dir():
            raise StorageUnavailable(f"{folder} is a file: name the folder that holds `studies`")
        return cls(str(path), inode)

    def place(self, key: str) -> str:
        """The path of a key, or of a prefix of keys."""
        return f"{self.path}/{key}"

    def holds(self, place: str) -> bool:
        """Whether a real path is the folder or lies below it."""
        return place == self.path or place.startswith(self.path.rstrip("/") + "/")

    def check_holds(self, key: str, descriptor: int) -> None:
        """Raise StorageUnavailable if the way to an open file or directory led out of the folder."""
        try:
            place = _real_path(descriptor)
        except OSError as error:
            raise unavailable(key, error) from error
        if not self.holds(place):
            raise StorageUnavailable(f"{key}: a symbolic link leads out of the datastore")

    def check_present(self) -> None:
        """Raise StorageUnavailable if the folder is gone.

        Where a disk was unmounted an empty directory is left, under another inode: every object would look absent,
        and new ones would land on the wrong disk.
        """
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            raise StorageUnavailable("the folder of the datastore is gone: is its disk mounted?") from error
        if inode != self.inode:
            raise StorageUnavailable(
                "another folder stands where the datastore was: mount its disk again, or restart if this is meant"
            )

    def absence(self, key: str) -> StorageError:
        """What it means that the file system says "no such file": absent, or only out of reach."""
        try:
            self.check_present()
        except StorageUnavailable as error:
            return error
        place = self.path
        for segment in key.split("/"):
            place = f"{place}/{segment}"
            if os.path.islink(place) and not os.path.exists(place):
                return StorageUnavailable(f"{key}: a symbolic link on the way to it leads nowhere")
        return ObjectNotFound(key)


def unavailable(key: str, error: OSError) -> StorageUnavailable:
    """What an `OSError` becomes: its words and number, and the key instead of the path."""
    return StorageUnavailable(f"{key}: {os.strerror(error.errno or 0)} (errno {error.errno})")


def _real_path(descriptor: int) -> str:
    """Where an open file really lies; asked of the descriptor, since its path may have been changed meanwhile."""
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    else:
        return os.readlink(f"/proc/self/fd/{descriptor}")
