"""A folder keeps the contract of a bucket, and is found under one address."""

import re
from pathlib import Path

import pytest

from storage.bucket import Bucket, open_bucket
from storage.bucket.folder import FolderBucket
from storage.errors import (
    StorageUnavailable,
)
from tests.bucket.contract import DATA, KEY, BucketContract, Place


class FolderPlace:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._bucket = FolderBucket(root)

    @property
    def bucket(self) -> Bucket:
        return self._bucket

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(data)
        beside.replace(path)

    def get(self, key: str) -> bytes | None:
        path = self.root / key
        return path.read_bytes() if path.is_file() else None

    def keys(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()]

    def broken(self, key: str) -> Bucket:
        """A link to itself: open(2) fails with ELOOP, for root too, whom no permission stops."""
        path = self.root / key
        path.unlink()
        path.symlink_to(path.name)
        return FolderBucket(self.root)


class TestFolderBucket(BucketContract):
    def make_place(self, folder: Path) -> Place:
        return FolderPlace(folder)


@pytest.mark.parametrize("name", ["plain", "with space", "100%25", "q?x#y", "ü"])
async def test_the_url_of_a_folder_opens_the_same_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    first = open_bucket(folder, create=True)
    await first.write(KEY, DATA)

    for address in (first.url, str(folder), folder):
        again = open_bucket(address)
        assert again.url == first.url
        assert bytes((await again.read(KEY)).data) == DATA
    assert first.url.startswith("file:///")


async def test_a_folder_has_one_url_whatever_links_lead_to_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)

    assert open_bucket(tmp_path / "link").url == open_bucket(root).url


def test_a_missing_folder_is_refused_with_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="mount or create it"):
        open_bucket(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_file_is_refused_as_a_datastore(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageUnavailable, match="is a file"):
        open_bucket(tmp_path / "file")
    with pytest.raises(StorageUnavailable, match="cannot be made"):
        open_bucket(tmp_path / "file", create=True)


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("ftp://host/x", "or a folder"),
        ("file://host/x", "file:///absolute/path"),
        ("file://relative", "file:///absolute/path"),
        ("file:///a?b", "%3F"),
        ("", "name a folder"),
    ],
)
def test_an_address_that_this_release_does_not_read_is_refused_with_advice(address: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        open_bucket(address)
