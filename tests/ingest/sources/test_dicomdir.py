"""A DICOMDIR means the files that it lists; pydicom says which those are."""

import os
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.dicom.builders import element, item, p10, sequence
from tests.ingest.sources.finding import find

MEDIA_DIRECTORY = element(0x00020002, "UI", b"1.2.840.10008.1.3.10")


def medium() -> Path:
    """The files of a CD, among pydicom's own test data."""
    path = get_testdata_file("dicomdirtests/DICOMDIR")
    assert path is not None
    return Path(path).parent


def listed(path: Path) -> list[Path]:
    records = pydicom.dcmread(path).DirectoryRecordSequence
    return [
        path.parent.joinpath(*each.ReferencedFileID)
        if isinstance(each.ReferencedFileID, pydicom.multival.MultiValue)
        else path.parent / each.ReferencedFileID
        for each in records
        if "ReferencedFileID" in each
    ]


def dicomdir(*file_ids: str) -> bytes:
    records = [item(element(0x00041500, "CS", (text + " " * (len(text) % 2)).encode())) for text in file_ids]
    whole = p10(sequence(0x00041220, records))
    cut = whole.index(b"\x02\x00\x10\x00UI")
    return whole[:cut] + MEDIA_DIRECTORY + whole[cut:]


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-implicit", "DICOMDIR-bigEnd", "TINY_ALPHA/DICOMDIR"])
async def test_the_files_that_it_lists_are_found_in_its_order(name: str) -> None:
    path = medium() / name

    found = await find(path)

    expected = listed(path)
    assert len(expected) > 10
    assert [path.parent / shown for shown in found.shown] == expected
    assert [data for _, data in found.contents] == [each.read_bytes() for each in expected]
    assert (found.refused, found.skipped) == ([], [])


async def test_in_a_folder_it_is_skipped_and_the_files_count(tmp_path: Path) -> None:
    shutil.copytree(medium() / "TINY_ALPHA", tmp_path / "cd")

    found = await find(tmp_path / "cd")

    assert found.skips == {"DICOMDIR": "a DICOMDIR: it lists other files and holds no instance"}
    listing = set(listed(tmp_path / "cd" / "DICOMDIR"))
    assert {tmp_path / "cd" / shown for shown in found.shown} == listing | {tmp_path / "cd" / "README"}


async def test_names_on_the_disk_may_have_other_cases_and_ends(tmp_path: Path) -> None:
    """PS3.10 §8.2 writes capitals; a copied CD has what its file system made of them."""
    (tmp_path / "images").mkdir()
    for name in ("im1", "IM2.;1", "Im3."):
        (tmp_path / "images" / name).write_bytes(p10(name.encode()))
    (tmp_path / "DICOMDIR").write_bytes(dicomdir("IMAGES\\IM1", "IMAGES\\IM2", "IMAGES\\IM3", "IMAGES\\IM1"))

    found = await find(tmp_path / "DICOMDIR")

    assert found.shown == ["images/im1", "images/IM2.;1", "images/Im3."]


async def test_what_is_missing_or_outside_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "cd"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(p10(b"secret"))
    (inside / "LINK").symlink_to(tmp_path / "secret")
    (inside / "OK").write_bytes(p10(b"ok"))
    os.mkfifo(inside / "FIFO")
    (inside / "DICOMDIR").write_bytes(
        dicomdir("..\\SECRET", "LINK", "GONE\\IM1", str(tmp_path / "secret"), "OK\\IM1", "FIFO", "OK")
    )

    found = await find(inside / "DICOMDIR")

    assert found.contents == [("OK", p10(b"ok"))]
    assert [each.reason for each in found.refused] == [
        "cannot be read: no File ID of a DICOMDIR",
        "cannot be read: a link leads out of the folder of the DICOMDIR",
        "the DICOMDIR lists it, and it is not there",
        "cannot be read: no File ID of a DICOMDIR",
        "the DICOMDIR lists it, and it is not there",
        "cannot be read: not a regular file",
    ]


@pytest.mark.parametrize(
    "damaged",
    [
        dicomdir("OK")[:-6] + b"\xff" * 6,
        dicomdir("A" * 300),
        dicomdir("OK").replace(b"SQ\0\0", b"??\0\0"),
        p10(b"")[:150] + MEDIA_DIRECTORY,
    ],
)
async def test_a_damaged_one_never_ends_the_search(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "OK").write_bytes(p10(b"ok"))
    (tmp_path / "cd").write_bytes(damaged)

    found = await find(tmp_path / "cd", tmp_path / "OK")

    assert "OK" in found.shown
    assert found.shown == ["OK", "OK"] or len(found.refused) <= 1
