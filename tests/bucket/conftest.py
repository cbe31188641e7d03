"""An empty folder as a datastore, and the bucket over it."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.bucket.folder import FolderBucket


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "datastore"
    folder.mkdir()
    return folder


@pytest.fixture
async def bucket(root: Path) -> AsyncIterator[FolderBucket]:
    bucket = FolderBucket(root)
    yield bucket
    await bucket.close()


@pytest.fixture
def no_descriptor_is_lost() -> Iterator[None]:
    """No more open descriptors after the test than before; fewer where another test's garbage was collected."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    before = len(os.listdir(folder))
    yield
    assert len(os.listdir(folder)) <= before
