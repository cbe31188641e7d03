"""Addresses of single objects: which bucket is opened for them, and what is no such address."""

import pytest

from storage.library.addresses import split


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_objects_of_one_bucket_are_reached_by_one_address_whatever_their_folders(scheme: str) -> None:
    """A client is kept open for each address: thousands of folders must not be thousands of clients."""
    assert split(f"{scheme}://raw/2024/one/slice") == (f"{scheme}://raw", "2024/one/slice")
    assert split(f"{scheme}://raw/slice") == (f"{scheme}://raw", "slice")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://raw", "s3://raw/", "s3://raw/folder/", "s3:///slice", "http://raw/slice"]
)
def test_what_names_no_object_is_told(url: str) -> None:
    with pytest.raises(ValueError, match=r"names no object|is no address"):
        split(url)
