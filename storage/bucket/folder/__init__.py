"""A folder as a bucket: keys are relative paths, versions come from the file system.

FolderBucket (bucket.py)
├── Root (root.py)            where the folder is, and that a file lies in it
├── OpenFile (file.py)        one file: size, version, exact ranges
├── Directory (directory.py)  one directory, opened to be changed, under its lock
├── Draft (draft.py)          a new object beside its place, not visible yet
├── walk (walk.py)            listing in the order of keys
└── DiskThreads (threads.py)  where calls wait that may wait for a disk
"""

from storage.bucket.folder.bucket import FolderBucket

__all__ = ["FolderBucket"]
