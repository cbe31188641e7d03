"""Tars as sources: read in place, judged by Python's tarfile, and hostile ones built by hand."""

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import CorruptSeries
from storage.ingest.sources.archives.entry import ArchiveRefused, Left, Member
from storage.ingest.sources.archives.tar import tar_entries
from tests.ingest.sources.conftest import p10
from tests.ingest.sources.finding import find, names_and_bytes

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_of(files: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT, mtime: float = 1e9) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(name: str, kind: bytes, *, link: str = "x", size: int = 0) -> bytes:
    """The header of a member, by tarfile, without the end of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def walk(data: bytes) -> tuple[list[tuple[str, bytes]], str]:
    """The members of a tar, and why it was refused in the end."""
    members = []
    try:
        for entry in tar_entries(lambda start, stop: data[start:stop], len(data)):
            if isinstance(entry, Member):
                members.append((entry.name, data[entry.start : entry.stop]))
    except ArchiveRefused as refusal:
        return members, str(refusal)
    return members, ""


@pytest.mark.parametrize("format", FORMATS)
async def test_every_member_is_found_with_its_bytes(
    tmp_path: Path, files: list[tuple[str, bytes]], format: str
) -> None:
    files = [*files, ("deep/" * 19 + "IM", p10(b"long name"))]
    (tmp_path / "cd.tar").write_bytes(tar_of(files, FORMATS[format]))

    found = await find(tmp_path, tmp_path / "cd.tar")

    assert found.contents == 2 * names_and_bytes(files, below="cd.tar")
    assert (found.refused, found.skipped) == ([], [])
    with found.places[0].open() as source:
        assert source.mtime == 1e9


@given(
    files=st.lists(
        st.tuples(st.text("abé/.", min_size=1, max_size=130).filter(lambda name: name.strip("/.")), st.binary(max_size=1200)),
        max_size=5,
    ),
    format=st.sampled_from(sorted(FORMATS)),
    mtime=st.sampled_from([0, 1.5, 1e9, 5e10]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_members_are_those_that_tarfile_finds(files: list[tuple[str, bytes]], format: str, mtime: float) -> None:
    try:
        data = tar_of(files, FORMATS[format], mtime if format == "pax" else 0)
    except ValueError:
        return  # a name that ustar cannot hold
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        oracle = [(each.offset_data, each.size, each.mtime) for each in tar if not each.isdir()]
        named = [each.isreg() for each in tar]

    entries = list(tar_entries(lambda start, stop: data[start:stop], len(data)))

    members = [(each.start, each.size, each.mtime) for each in entries if isinstance(each, Member)]
    if all(named) and not any(name.endswith("/") for name, _ in files):
        assert members == oracle
    assert set(members) <= set(oracle)


def test_a_tar_cut_anywhere_gives_the_members_before_the_cut_and_is_refused() -> None:
    files = [("a", p10(b"1" * 700)), ("b", p10(b"2" * 1300)), ("é" * 120, p10(b"3"))]
    whole = tar_of(files)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        stops = [each.offset_data + each.size for each in tar]
        end = stops[-1] + -stops[-1] % 512

    for cut in [*range(0, end, 100), *stops, end]:
        members, refusal = walk(whole[:cut])

        assert members == [file for file, stop in zip(files, stops, strict=True) if stop <= cut]
        assert refusal
    assert walk(whole[: end + 512]) == (files, "")


@given(data=st.binary(max_size=4), at=st.integers(0, 6000))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_tar_is_read_or_refused_and_nothing_else(data: bytes, at: int) -> None:
    files = [("a" * 120, p10(b"1" * 700)), ("b", p10(b"2"))]
    whole = bytearray(tar_of(files))
    whole[at : at + len(data)] = data

    members, refusal = walk(bytes(whole))

    assert len(members) <= 2  # it ends, and raises nothing else
    assert members == files or refusal or bytes(whole) != tar_of(files)


async def test_links_devices_and_folders_are_skipped(tmp_path: Path) -> None:
    data = b"".join([
        special("folder/", tarfile.DIRTYPE),
        special("soft", tarfile.SYMTYPE, link="/etc/passwd"),
        special("hard", tarfile.LNKTYPE, size=100),
        special("tty", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ])  # fmt: skip
    (tmp_path / "cd.tar").write_bytes(data + tar_of([("IM", p10(b"x"))]))

    found = await find(tmp_path)

    assert found.contents == [("cd.tar/IM", p10(b"x"))]
    assert found.refused == []
    assert set(found.skips) == {"soft", "hard", "tty", "disk", "pipe"}


async def test_names_never_lead_out_of_the_archive(tmp_path: Path) -> None:
    names = ["../../../etc/passwd", "/etc/shadow", "a/../../b", "C:\\windows\\x", "\x1b[31mred", ".."]
    (tmp_path / "cd.tar").write_bytes(tar_of([(name, p10(b"x")) for name in names]))

    found = await find(tmp_path)

    assert found.shown == [
        f"cd.tar/{name}"
        for name in ["etc/passwd", "etc/shadow", "a/b", "windows/x", "\N{REPLACEMENT CHARACTER}[31mred", "unnamed"]
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cd.tar"]


async def test_sparse_and_unknown_members_are_refused(tmp_path: Path) -> None:
    sparse = tarfile.TarInfo("pax-sparse")
    sparse.size = 512
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    data = sparse.tobuf(tarfile.PAX_FORMAT) + bytes(512) + special("old", b"S") + special("odd", b"Z")
    (tmp_path / "cd.tar").write_bytes(data + tar_of([("IM", p10(b"x"))]))

    found = await find(tmp_path)

    assert found.shown == ["cd.tar/IM"]
    assert found.reasons == {
        "pax-sparse": "a sparse member: unpack the archive first",
        "old": "a sparse member: unpack the archive first",
        "odd": "a tar member of unknown type b'Z'",
    }


def test_an_extended_sparse_header_does_not_hide_what_follows() -> None:
    header = bytearray(special("old", b"S", size=512))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + bytes(504) + b"\1" + bytes(7) + bytes(512) + bytes(512) + tar_of([("IM", b"x")])

    entries = list(tar_entries(lambda start, stop: data[start:stop], len(data)))

    assert [type(each) for each in entries] == [Left, Member]


@pytest.mark.parametrize(
    "record",
    [b"99999999999999999999 path=x\n", b"20 size=-1\n\n\n\n\n\n\n\n\n\n", b"0 path=x\n", b"-5 path=x\n",
     b"13 size=9e99\n", b"30 size=99999999999999999999\n", b"17 size=99999999\n", b"x" * 200],
)  # fmt: skip
def test_hostile_extended_headers_are_refused(record: bytes) -> None:
    data = special("x", b"x", size=len(record)) + padded(record) + tar_of([("IM", p10(b"x"))])

    members, refusal = walk(data)

    assert members == []
    assert refusal


def test_an_extended_header_of_a_gigabyte_is_not_read() -> None:
    asked = []

    def read(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return special("x", b"x", size=1 << 30)

    with pytest.raises(ArchiveRefused, match="extended header of 1073741824 bytes"):
        list(tar_entries(read, 4 << 30))
    assert sum(asked) == 512


def test_negative_and_huge_sizes_are_refused() -> None:
    for size in (b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"-1" + bytes(10)):
        header = bytearray(special("x", tarfile.REGTYPE))
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)

        members, refusal = walk(bytes(header) + tar_of([("IM", b"x")]))

        assert members == []
        assert refusal


async def test_a_time_that_is_none_is_that_of_the_archive(tmp_path: Path) -> None:
    header = bytearray(tar_of([("a", p10(b"x"))], tarfile.GNU_FORMAT))
    header[136:148] = b"\x80" + b"\xff" * 11
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 0x20 + sum(header[156:512]))
    (tmp_path / "t").write_bytes(header)

    (place,) = (await find(tmp_path)).places

    with place.open() as source:
        assert source.mtime == pytest.approx((tmp_path / "t").stat().st_mtime, abs=1e-6)


async def test_tars_joined_with_their_ends_left_in_are_read_on(tmp_path: Path) -> None:
    """`cat a.tar b.tar`, and stores whose appends left zero blocks between: nothing may be lost."""
    first, second = [("a", p10(b"1"))], [("b", p10(b"2"))]
    (tmp_path / "joined.tar").write_bytes(tar_of(first) + tar_of(second))

    found = await find(tmp_path)

    assert found.contents == names_and_bytes(first + second, below="joined.tar")


def test_what_follows_the_end_and_is_no_tar_is_left_alone() -> None:
    files = [("a", p10(b"1"))]

    assert walk(tar_of(files) + b"something else" * 1000) == (files, "")


async def test_archives_and_dicomdirs_inside_an_archive_are_not_opened(tmp_path: Path) -> None:
    inner = tar_of([("IM", p10(b"x"))])
    directory = p10(b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10")
    (tmp_path / "cd.tar").write_bytes(tar_of([("inner.dcm", inner), ("DICOMDIR", directory), ("IM", p10(b"y"))]))

    found = await find(tmp_path)

    assert found.shown == ["cd.tar/IM"]
    assert found.reasons == {"inner.dcm": "an archive inside an archive: unpack the outer one first"}
    assert found.skips == {"DICOMDIR": "a DICOMDIR: it lists other files and holds no instance"}


async def test_a_tar_that_changes_is_noticed(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    path = tmp_path / "cd.tar"
    path.write_bytes(tar_of(files))
    place = (await find(path)).places[1]
    again = (await find(path)).places[1]
    path.write_bytes(tar_of(files[::-1]))

    assert (place.stamp, place.size) == (again.stamp, again.size)
    assert (await find(path)).places[1].stamp != place.stamp
    with pytest.raises(Exception, match="changed while it was being ingested"):
        with pickle.loads(pickle.dumps(place)).open():
            pass


def test_the_reader_of_our_own_tars_finds_the_same(files: list[tuple[str, bytes]]) -> None:
    from storage.cod.tar import read_members

    data = tar_of(files)
    try:
        ours = [(each.name, each.start, each.size) for each in read_members(lambda a, b: data[a:b], len(data))]
    except CorruptSeries as error:
        raise AssertionError from error

    entries = tar_entries(lambda start, stop: data[start:stop], len(data))
    assert [(each.name, each.start, each.size) for each in entries if isinstance(each, Member)] == ours
