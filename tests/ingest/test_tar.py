"""The tar layout against two independent readers (Python's tarfile, the system's tar) and one independent writer."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.cod.tar import HEADER_BYTES, TarLayout, lay_out, member_header, member_name, padding_bytes, read_members
from storage.errors import CorruptSeries

uids = st.text(alphabet="0123456789.abcXYZ-", min_size=2, max_size=128).filter(lambda uid: uid.strip(".") != "")
mtimes = st.floats(min_value=-1e9, max_value=2e10, allow_nan=False)


def write(layout: TarLayout, contents: list[bytes]) -> bytes:
    parts = []
    for member, content in zip(layout.members, contents, strict=True):
        parts += [member_header(member), content, bytes(padding_bytes(len(content)))]
    return b"".join(parts) + layout.end_of_archive


@given(st.lists(st.tuples(uids, st.binary(max_size=1500), mtimes), max_size=8, unique_by=lambda file: file[0]))
def test_tarfile_finds_every_member_where_the_layout_says(files: list[tuple[str, bytes, float]]) -> None:
    layout = lay_out([(uid, len(content), mtime) for uid, content, mtime in files])

    tar = write(layout, [content for _, content, _ in files])

    assert len(tar) == layout.size
    assert layout.size % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
        assert [(m.name, m.offset_data, m.size, m.mtime) for m in members] == [
            (f"instances/{uid}.dcm", placed.start, len(content), mtime)
            for (uid, content, mtime), placed in zip(files, layout.members, strict=True)
        ]
    for placed, (_, content, _) in zip(layout.members, files, strict=True):
        assert tar[placed.start : placed.stop] == content
        assert placed.start == placed.header_start + 1536


def test_our_reader_walks_what_tarfile_wrote() -> None:
    """GNU and PAX formats, with the names of the published library and with others."""
    for archive_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=archive_format) as archive:
            for name, size in (("instances/1.2.3.dcm", 700), ("instances/4.dcm", 0), ("instances", None)):
                entry = tarfile.TarInfo(name)
                entry.type = tarfile.DIRTYPE if size is None else tarfile.REGTYPE
                entry.size = size or 0
                archive.addfile(entry, io.BytesIO(bytes(size or 0)))
        tar = buffer.getvalue()

        members = list(read_members(lambda start, stop, tar=tar: tar[start:stop], len(tar)))

        assert [(member.name, member.size) for member in members] == [
            ("instances/1.2.3.dcm", 700),
            ("instances/4.dcm", 0),
        ]


def test_our_reader_walks_the_stores_of_the_published_library(data_folder: Path) -> None:
    tars = sorted((data_folder / "cod").rglob("*.tar"))
    assert len(tars) > 20
    for path in tars:
        data = path.read_bytes()
        with tarfile.open(path) as archive:
            expected = [(m.name, m.offset, m.offset_data, m.size, m.mtime) for m in archive.getmembers()]

        members = list(read_members(lambda start, stop, data=data: data[start:stop], len(data)))

        assert [(m.name, m.header_start, m.start, m.size, m.mtime) for m in members] == expected


@pytest.mark.parametrize("size", [0, 1, 512, 8**11 - 1])
def test_header_is_byte_for_byte_what_tarfile_writes(size: int) -> None:
    """The published library writes with tarfile."""
    entry = tarfile.TarInfo("instances/1.2.826.0.1.dcm")
    entry.size, entry.mtime, entry.mode = size, 1795221090.2235746, 0o644
    layout = lay_out([("1.2.826.0.1", size, entry.mtime)])

    assert member_header(layout.members[0]) == entry.tobuf(tarfile.PAX_FORMAT)


def test_file_beyond_eight_gibibytes_keeps_the_header_length_and_its_size() -> None:
    size = 8**11 + 5

    layout = lay_out([("1.2.826.0.1", size, 1.5), ("1.2.826.0.2", 3, 1.5)])
    header = member_header(layout.members[0])

    assert len(header) == HEADER_BYTES
    assert tarfile.TarInfo.frombuf(header[:512], "utf-8", "strict").type == tarfile.XHDTYPE
    assert b"size=%d\n" % size in header[512:1024]
    assert layout.members[1].header_start == (1536 + size + 511) // 512 * 512


def test_system_tar_lists_completely(tmp_path: Path) -> None:
    layout = lay_out([(f"1.2.3.{number}", number * 100, 1.7e9) for number in range(30)])
    path = tmp_path / "series.tar"
    path.write_bytes(write(layout, [bytes([number]) * number * 100 for number in range(30)]))

    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)

    assert listed.stdout.splitlines() == [member.name for member in layout.members]
    assert listed.stderr == ""


@pytest.mark.parametrize("uid", ["", ".", "..", "1/2", "1\0", "é", "x" * 129])
def test_member_name_that_could_lead_elsewhere_is_refused(uid: str) -> None:
    with pytest.raises(ValueError):
        member_name(uid)


@given(st.binary(max_size=3000), st.integers(0, 4))
def test_damaged_tar_ends_in_members_or_corrupt_series(noise: bytes, members: int) -> None:
    layout = lay_out([(f"1.2.{number}", 600, 1.0) for number in range(members)])
    tar = write(layout, [bytes(600)] * members)[: layout.members[-1].next_start if members else 0] + noise

    try:
        found = list(read_members(lambda start, stop: tar[start:stop], len(tar)))
    except CorruptSeries:
        return
    assert all(member.stop <= len(tar) for member in found)


@given(st.integers(0, 1535), st.integers(1, 255))
def test_flipped_header_byte_never_moves_the_data(position: int, flip: int) -> None:
    """A ustar block has a checksum; the PAX records have none, so their size must agree with the tar."""
    layout = lay_out([("1.2.3", 600, 1.0)])
    tar = bytearray(write(layout, [b"x" * 600]))
    tar[position] ^= flip

    try:
        found = list(read_members(lambda start, stop: bytes(tar[start:stop]), len(tar)))
    except CorruptSeries:
        return
    assert all(member.stop <= len(tar) for member in found)


def test_member_past_the_end_is_corrupt() -> None:
    layout = lay_out([("1.2.3", 6000, 1.0)])
    tar = write(layout, [b"x" * 6000])[:4096]

    with pytest.raises(CorruptSeries, match="6000 bytes do not fit"):
        list(read_members(lambda start, stop: tar[start:stop], len(tar)))
