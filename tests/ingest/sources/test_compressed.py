"""Compressed tars: unpacked once, into a folder that is gone with the ingest, and within bounds."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from storage.ingest.report import RefusedFile
from storage.ingest.sources import Place, Scratch, find_places
from storage.ingest.sources.archives.compressed import unpack
from storage.ingest.sources.archives.entry import ArchiveRefused
from storage.ingest.sources.archives.zip import inflate_limit
from storage.ingest.sources.form import Form
from tests.ingest.sources.conftest import p10
from tests.ingest.sources.finding import content_of, find, names_and_bytes
from tests.ingest.sources.test_tar import tar_of

Compress = Callable[[bytes], bytes]
FORMS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
every_form = pytest.mark.parametrize("compress", FORMS.values(), ids=FORMS)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@every_form
async def test_every_member_is_found_with_its_bytes(
    tmp_path: Path, temporary: Path, files: list[tuple[str, bytes]], compress: Compress
) -> None:
    data = tar_of(files)
    (tmp_path / "cd.tgz").write_bytes(compress(data[:3000]) + compress(data[3000:]))

    found = await find(tmp_path / "cd.tgz")

    assert found.contents == names_and_bytes(files, below="cd.tgz")
    assert (found.refused, found.skipped) == ([], [])
    assert list(temporary.iterdir()) == []


async def test_it_is_unpacked_once_into_a_folder_of_its_own(
    tmp_path: Path, temporary: Path, files: list[tuple[str, bytes]]
) -> None:
    (tmp_path / "cd.tgz").write_bytes(gzip.compress(tar_of(files)))
    with Scratch() as scratch:
        places = [place async for place in find_places([tmp_path / "cd.tgz"], [], [], scratch=scratch)]

        (folder,) = temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(list(folder.iterdir())) == 1
        assert [content_of(place) for place in places] == [data for _, data in files]
    assert list(temporary.iterdir()) == []
    with pytest.raises(FileNotFoundError), places[0].open():
        pass


async def test_its_places_have_the_same_stamps_in_the_next_run(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    (tmp_path / "cd.tgz").write_bytes(gzip.compress(tar_of(files)))

    def stamps(places: list[Place]) -> list[tuple[str, int]]:
        return [(place.stamp, place.size) for place in places]

    first = stamps((await find(tmp_path)).places)
    assert first == stamps((await find(tmp_path)).places)
    os.utime(tmp_path / "cd.tgz", (1, 1))
    assert not set(first) & set(stamps((await find(tmp_path)).places))


@every_form
async def test_a_cut_one_gives_the_members_that_are_whole_and_is_refused(
    tmp_path: Path, temporary: Path, compress: Compress
) -> None:
    files = [(str(number), p10(os.urandom(200_000))) for number in range(7)]
    data = compress(tar_of(files))
    (tmp_path / "cd.tgz").write_bytes(data[: len(data) * 3 // 4])

    found = await find(tmp_path / "cd.tgz")

    assert found.contents == names_and_bytes(files[: len(found.contents)], below="cd.tgz")
    assert 1 <= len(found.contents) < 7
    (reason,) = found.reasons.values()
    assert reason.startswith("an archive: ")
    assert "cut off" in reason
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("form", [Form.GZIP, Form.BZIP2, Form.XZ, Form.ZSTD])
def test_a_bomb_is_stopped_at_its_limit(form: Form) -> None:
    bomb = io.BytesIO(FORMS[form.name.lower()](bytes(9 << 20)))
    made = 0

    with pytest.raises(ArchiveRefused, match="it unpacks to more than 3000000 bytes"):
        for chunk in unpack(bomb, form, limit=3_000_000):
            made += len(chunk)

    assert 0 < made <= 3_000_000


def test_the_limit_grows_with_the_archive() -> None:
    """T3: 200 times its size, and for small ones a gibibyte."""
    assert inflate_limit(1000) == 1 << 30
    assert inflate_limit(1 << 30) == 200 << 30


async def test_an_xz_that_asks_for_gigabytes_of_memory_is_left_packed(tmp_path: Path) -> None:
    """A dictionary of 4 GiB: its size is a byte of the block header (xz file format 1.2.1, section 5.3.1)."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]
    data = bytearray(lzma.compress(tar_of([("IM", p10(b"x"))]), filters=filters))
    at = 12  # behind the stream header: size, flags, filter id, size of properties, dictionary size
    assert data[at + 2 : at + 4] == b"\x21\x01"
    data[at + 4] = 40
    size = (data[at] + 1) * 4
    data[at + size - 4 : at + size] = zlib.crc32(data[at : at + size - 4]).to_bytes(4, "little")
    (tmp_path / "x").write_bytes(data)

    found = await find(tmp_path)

    assert found.shown == ["x"]  # a file, refused by who reads it: it is no DICOM file


async def test_what_is_compressed_and_no_tar_is_a_file(tmp_path: Path) -> None:
    for name, compress in FORMS.items():
        (tmp_path / name).write_bytes(compress(p10(b"x" * 1000)))

    found = await find(tmp_path)

    assert found.shown == sorted(FORMS)
    assert found.refused == []


async def test_unpacking_stops_when_the_ingest_ends(tmp_path: Path, temporary: Path) -> None:
    """Ctrl+C while a large archive is unpacked in a thread, which nobody can interrupt from outside."""
    path = tmp_path / "cd.tgz"
    path.write_bytes(gzip.compress(tar_of([("IM", p10(bytes(100 << 20)))]), 1))
    refused: list[RefusedFile] = []
    with Scratch() as scratch:
        finding = asyncio.create_task(anext(find_places([path], refused, [], scratch=scratch), None))
        while not list(temporary.rglob("1")):  # noqa: ASYNC110 -- a thread makes it
            await asyncio.sleep(0.001)

    assert await finding is None
    assert [each.reason for each in refused] == ["cannot be read: the ingest has ended"]
    assert list(temporary.iterdir()) == []


async def test_nothing_is_unpacked_for_an_ingest_that_has_ended(tmp_path: Path) -> None:
    (tmp_path / "cd.tgz").write_bytes(gzip.compress(tar_of([("IM", p10(b"x"))])))
    refused: list[RefusedFile] = []
    with Scratch() as scratch:
        pass

    places = [place async for place in find_places([tmp_path], refused, [], scratch=scratch)]

    assert places == []
    assert [each.reason for each in refused] == ["cannot be read: the ingest has ended"]
