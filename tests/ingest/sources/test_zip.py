"""Zips as sources: judged by the bytes that went in, and hostile ones built by hand (D. Fifield's bombs, forged sizes, cuts)."""

import io
import pickle
import stat
import struct
import tracemalloc
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import InstanceUnreadable
from storage.ingest.sources import Place, Scratch, SourceChanged, find_places
from storage.ingest.sources.archives.zip import MAX_MEMBER_BYTES
from tests.ingest.sources.conftest import p10
from tests.ingest.sources.finding import content_of, find, names_and_bytes

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
MIB = 1 << 20


def zip_of(files: list[tuple[str, bytes]], method: int = DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6)), data, method)
    return out.getvalue()


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


@dataclass
class Forged:
    """A member and what a zip says of it; what is None is the truth."""

    name: str = "IM"
    packed: bytes = deflated(p10(b"x" * 1000))
    method: int = DEFLATED
    flags: int = 0
    size: int = 1132
    packed_size: int | None = None
    crc32: int = zlib.crc32(p10(b"x" * 1000))
    mode: int = 0
    offset: int | None = None


def forged(*members: Forged) -> bytes:
    """A zip by APPNOTE.TXT 4.3.7, 4.3.12 and 4.3.16 alone."""
    body, directory = b"", b""
    for each in members:
        packed_size = len(each.packed) if each.packed_size is None else each.packed_size
        name = each.name.encode()
        offset = len(body) if each.offset is None else each.offset
        fields = (each.flags, each.method, 0, 0x5000, each.crc32, packed_size, each.size, len(name), 0)
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, *fields) + name + each.packed
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 3 << 8 | 20, 20, *fields, 0, 0, 0, each.mode << 16, offset
        ) + name  # fmt: skip
    count = len(members)
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


@pytest.mark.parametrize("method", [STORED, DEFLATED])
async def test_every_member_is_found_with_its_bytes(
    tmp_path: Path, files: list[tuple[str, bytes]], method: int
) -> None:
    (tmp_path / "cd").write_bytes(zip_of([*files, ("folder/", b"")], method))

    found = await find(tmp_path, tmp_path / "cd")

    assert found.contents == 2 * names_and_bytes(files, below="cd")
    assert (found.refused, found.skipped) == ([], [])
    with found.places[0].open() as source:
        assert source.mtime == 1580702706  # 2020-02-03T04:05:06Z


@pytest.mark.parametrize("cut", [0, 22], ids=["whole", "without its directory"])
async def test_a_member_without_a_name_is_found_and_hides_no_other(tmp_path: Path, cut: int) -> None:
    data = p10(b"x" * 1000)
    nameless = forged(Forged(""), Forged("IM"))
    (tmp_path / "z").write_bytes(nameless[: len(nameless) - cut])

    found = await find(tmp_path)

    assert found.contents == [("z/unnamed", data), ("z/IM", data)]


async def test_a_zip_behind_a_program_and_one_with_a_comment_are_zips(
    tmp_path: Path, files: list[tuple[str, bytes]]
) -> None:
    (tmp_path / "viewer.exe").write_bytes(b"MZ" + bytes(5000) + zip_of(files))
    (tmp_path / "z").write_bytes(zip_of(files)[:-2] + b"\5\0hello")

    found = await find(tmp_path)

    assert found.contents == names_and_bytes(files, below="viewer.exe") + names_and_bytes(files, below="z")


async def test_a_dicom_file_with_a_zip_for_a_preamble_is_a_dicom_file(tmp_path: Path) -> None:
    """PS3.10 §7.1: the preamble may hold anything, and `DICM` behind it counts."""
    data = b"PK\3\4".ljust(128, b"\0") + b"DICM" + zip_of([("IM", p10(b"x"))])
    (tmp_path / "slice").write_bytes(data)

    assert (await find(tmp_path)).contents == [("slice", data)]


async def test_links_are_skipped_and_what_cannot_be_unpacked_is_refused(tmp_path: Path) -> None:
    (tmp_path / "z").write_bytes(
        forged(
            Forged("soft", b"/etc/passwd", STORED, size=11, mode=stat.S_IFLNK | 0o777),
            Forged("secret", flags=1),
            Forged("lzma", method=14),
            Forged("strange", method=77),
            Forged("two sizes", p10(b"x"), STORED, size=4),
            Forged("huge", size=0xFFFFFFFE, packed_size=None),
            Forged("ok"),
        )
    )

    found = await find(tmp_path)

    assert found.skips == {"soft": "a link"}
    assert found.reasons == {
        "secret": "encrypted: unpack the archive first",
        "lzma": "compressed by LZMA: unpack the archive first",
        "strange": "compressed by method 77: unpack the archive first",
        "two sizes": "the archive is damaged here: a stored member of two sizes",
        "z": "an archive: its members would inflate to more than 1073741824 bytes",
    }
    assert found.places == []


async def test_a_member_of_more_than_16_gib_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", DEFLATED) as archive:
        archive.writestr("IM", p10(b"x"))
        archive.writestr("huge", b"")
        archive.infolist()[1].file_size = MAX_MEMBER_BYTES + 1
    (tmp_path / "z").write_bytes(out.getvalue())

    found = await find(tmp_path)

    assert found.shown == ["z/IM"]
    assert found.reasons == {"huge": f"larger than {MAX_MEMBER_BYTES} bytes"}


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Forged(size=100), "the archive says 100 bytes, and it inflates to more"),
        (Forged(size=5000), "the archive says 5000 bytes, and it inflates to 1132"),
        (Forged(crc32=1), "the CRC-32 of its directory is another one"),
        (Forged(packed=deflated(p10(b"x" * 1000))[:-5]), "its DEFLATE stream is cut"),
        (Forged(packed=deflated(p10(b"x" * 1000)) + b"more"), "bytes behind the DEFLATE stream"),
        (Forged(packed=b"\xff" * 50), "no DEFLATE stream"),
        (Forged(packed=p10(b"x" * 1000), method=STORED, crc32=1), "the CRC-32 of its directory is another one"),
    ],
)
async def test_a_member_that_is_not_what_its_zip_says_is_not_read(tmp_path: Path, member: Forged, message: str) -> None:
    (tmp_path / "z").write_bytes(forged(member, Forged("ok")))

    found = await find(tmp_path)

    assert found.unreadable == ["z/IM"]
    assert found.contents == [("z/ok", p10(b"x" * 1000))]
    with pytest.raises(InstanceUnreadable, match=message), found.places[0].open():
        pass


async def test_members_that_share_their_bytes_are_a_bomb(tmp_path: Path) -> None:
    """D. Fifield, "A better zip bomb": one kernel, quoted by many members."""
    kernel = deflated(p10(bytes(MIB)))
    one = Forged("kernel", kernel, size=MIB + 132, crc32=zlib.crc32(p10(bytes(MIB))))
    (tmp_path / "same").write_bytes(forged(one, *[Forged(f"{n}", b"", size=MIB, offset=0) for n in range(1000)]))
    quoted = Forged("quoting", packed_size=30 + 6 + len(kernel) + 10)
    (tmp_path / "quoted").write_bytes(forged(quoted, one))

    found = await find(tmp_path)

    assert found.places == []
    assert found.reasons == dict.fromkeys(("same", "quoted"), "an archive: its members overlap: hostile or damaged")


async def test_a_member_may_not_reach_into_the_directory_or_past_the_end(tmp_path: Path) -> None:
    for name, offset, packed_size in (("a", None, 10_000), ("b", None, 0xFFFFFFF0), ("c", 10_000, 5), ("d", 60, None)):
        (tmp_path / name).write_bytes(forged(Forged(offset=offset, packed_size=packed_size)))

    found = await find(tmp_path)

    assert found.places == []
    assert found.reasons == dict.fromkeys("abcd", "an archive: its members overlap: hostile or damaged")


async def test_all_members_together_are_bounded_before_one_is_read(tmp_path: Path) -> None:
    """42.zip, without its nesting: each member alone is allowed."""
    data = b"".join(
        [forged(*[Forged(str(number), deflated(bytes(100)), size=400 * MIB) for number in range(5)])]
    )  # fmt: skip
    (tmp_path / "z").write_bytes(data)

    found = await find(tmp_path)

    assert len(found.places) == 2  # and none of them is what it says
    assert len(found.unreadable) == 2
    assert found.reasons == {"z": "an archive: its members would inflate to more than 1073741824 bytes"}


async def test_names_never_lead_out_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "z").write_bytes(zip_of([("../../x", p10(b"x")), ("/y", p10(b"y")), ("..\\..\\w", p10(b"w"))]))

    found = await find(tmp_path)

    assert found.shown == ["z/x", "z/y", "z/w"]
    assert [path.name for path in tmp_path.iterdir()] == ["z"]


async def test_a_zip_cut_anywhere_gives_the_members_before_the_cut_and_is_refused(tmp_path: Path) -> None:
    files = [("a", p10(b"1" * 700)), ("b", p10(b"2" * 900)), ("c", p10(b"3"))]
    whole = zip_of(files, STORED)
    stops = [whole.index(data) + len(data) for _, data in files]
    for cut in [*range(200, len(whole), 101), *stops]:
        path = tmp_path / str(cut)
        path.write_bytes(whole[:cut])

        found = await find(path)

        expected = [file for file, stop in zip(files, stops, strict=True) if stop <= cut]
        assert found.contents == names_and_bytes(expected, below=str(cut))
        assert found.reasons == {str(cut): "an archive: its directory at the end is missing or damaged: cut off"}


async def test_a_cut_zip_whose_sizes_follow_the_members_is_refused(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    out = Pipe()
    with zipfile.ZipFile(out, "w", DEFLATED) as archive:
        archive.writestr("IM", p10(b"x"))
    (tmp_path / "whole").write_bytes(out.getvalue())
    (tmp_path / "cut").write_bytes(out.getvalue()[:-30])

    found = await find(tmp_path)

    assert found.contents == [("whole/IM", p10(b"x"))]
    assert set(found.reasons) == {"cut"}


async def test_a_directory_of_too_many_members_is_refused(tmp_path: Path) -> None:
    directory = (b"PK\1\2" + bytes(42)) * 1_000_001
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, len(directory), 0, 0)
    (tmp_path / "z").write_bytes(b"PK\3\4" + directory + end)

    assert (await find(tmp_path / "z")).reasons == {"z": "an archive: more than 1000000 members"}


@given(data=st.data(), method=st.sampled_from([STORED, DEFLATED]))
@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
async def test_a_zip_with_changed_bytes_gives_the_true_bytes_or_none(
    tmp_path: Path, data: st.DataObject, method: int
) -> None:
    files = [("a", p10(b"1" * 300)), ("b", p10(bytes(range(200))))]
    whole = bytearray(zip_of(files, method))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "z"
    path.write_bytes(whole)

    found = await find(path)

    for shown, content in found.contents:
        assert content in [b"", *(each for _, each in files)] or (shown, content) == ("z", bytes(whole))


@pytest.mark.long
@pytest.mark.parametrize(("size", "peak_mib"), [(300 * MIB, 8), (60 * MIB, 130)])
async def test_a_large_deflated_member_takes_bounded_memory(tmp_path: Path, size: int, peak_mib: int) -> None:
    """Beyond 64 MiB it lies in a file without a name, which is gone with the context."""
    path = tmp_path / "z"
    with zipfile.ZipFile(path, "w", DEFLATED, compresslevel=1) as archive, archive.open("IM", "w") as member:
        member.write(p10(b""))
        for _ in range(size // MIB):
            member.write(bytes(MIB))
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("IM").file_size == size + 132
    tracemalloc.start()
    try:
        found = await _places_only(path)
        with found.open() as source:
            assert source.size == size + 132
            total = sum(len(chunk) for chunk in source.chunks())
            assert source.read(total - 5, total) == bytes(5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert total == size + 132
    assert peak < peak_mib * MIB


async def _places_only(path: Path) -> Place:
    with Scratch() as scratch:
        (place,) = [place async for place in find_places([path], [], [], scratch=scratch)]
    return place


async def test_a_zip_that_changes_is_noticed(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    path = tmp_path / "z"
    for method in (STORED, DEFLATED):
        path.write_bytes(zip_of(files, method))
        place = (await find(path)).places[1]
        assert content_of(place) == files[1][1]
        path.write_bytes(zip_of(files[::-1], method))

        with pytest.raises(SourceChanged), pickle.loads(pickle.dumps(place)).open():
            pass
