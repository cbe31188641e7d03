"""Data sets of other encodings become explicit VR little endian with the values that pydicom reads in either."""

from struct import pack

import numpy as np
import pytest

from storage.pixels.encode import Target
from storage.pixels.transcode import Kept, Transcoded, transcode
from tests.dicom.builders import EXPLICIT_BE, IMPLICIT_LE, UNDEFINED, element, implicit, item, p10, text
from tests.dicom.builders import SEQUENCE_END as END
from tests.pixels.images import assert_same_attributes, attributes, read

SAMPLES = (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) // 7).astype(np.int16)


def implicit_attributes(*, signed: bool) -> bytes:
    numbers = {0x00280002: 1, 0x00280010: 64, 0x00280011: 64, 0x00280100: 16, 0x00280101: 16, 0x00280102: 15}
    parts = [implicit(tag, pack("<H", value)) for tag, value in numbers.items()]
    parts.append(implicit(0x00280103, pack("<H", signed)))
    return b"".join(sorted([*parts, implicit(0x00280004, b"MONOCHROME2 ")]))


def implicit_file(before: bytes = b"", after: bytes = b"", *, signed: bool = False) -> bytes:
    pixels = implicit(0x7FE00010, SAMPLES.astype("<i2").tobytes())
    uids = implicit(0x00080016, text("1.2.840.10008.5.1.4.1.1.7", b"\0")) + implicit(0x00080018, text("2.25.1", b"\0"))
    return p10(uids + before + implicit_attributes(signed=signed) + after + pixels, IMPLICIT_LE)


def rewritten(data: bytes) -> bytes:
    result = transcode(data, Target.HTJ2K)
    assert isinstance(result, Transcoded), result
    assert_same_attributes(data, result.data)
    return result.data


@pytest.mark.parametrize("signed", [False, True])
def test_a_vr_that_the_dictionary_leaves_open_follows_pixel_representation(signed: bool) -> None:
    """Smallest Image Pixel Value is US or SS (PS3.5 §A.1)."""
    data = rewritten(implicit_file(after=implicit(0x00280106, pack("<h", -5 if signed else 5)), signed=signed))

    assert ("SS" if signed else "US") == read(data)[0x00280106].VR
    assert read(data)[0x00280106].value == (-5 if signed else 5)


def test_sequences_are_written_anew_at_any_depth() -> None:
    """Of defined and of undefined length."""
    inner = implicit(0x00081155, text("2.25.77", b"\0"))
    deep = implicit(0x00081199, item(inner, length=UNDEFINED) + item(inner), length=None)
    open_ended = implicit(0x00081140, item(deep + implicit(0x00081150, text("2.25.78", b"\0"))), length=UNDEFINED) + END

    data = rewritten(implicit_file(before=open_ended + implicit(0x00082112, b"")))

    (outer,) = read(data).ReferencedImageSequence
    assert [str(each.ReferencedSOPInstanceUID) for each in outer.ReferencedSOPSequence] == ["2.25.77", "2.25.77"]
    assert outer.ReferencedSOPClassUID == "2.25.78"
    assert len(read(data).SourceImageSequence) == 0


def test_private_elements_keep_their_bytes() -> None:
    """Those of no dictionary as UN (PS3.5 §6.2.2)."""
    private = implicit(0x00090010, b"CODWEB") + implicit(0x00091001, bytes(range(20)))

    data = rewritten(implicit_file(before=private))

    assert element(0x00091001, "UN", bytes(range(20))) in data


def test_a_value_too_long_for_a_short_header_becomes_un() -> None:
    """PS3.5 §6.2.2: VR UN, and the value as it was."""
    words = b"1\\" * 40000

    result = transcode(implicit_file(before=implicit(0x00181310, words)), Target.HTJ2K)

    assert isinstance(result, Transcoded)
    assert element(0x00181310, "UN", words) in result.data


def test_group_lengths_of_the_old_encoding_are_counted_anew() -> None:
    """An explicit header is no shorter than an implicit one."""
    length = implicit(0x00090000, pack("<I", 14 + 16))
    private = length + implicit(0x00090010, b"CODWEB") + implicit(0x00091001, bytes(8))

    data = rewritten(implicit_file(before=private))

    group = element(0x00090010, "LO", b"CODWEB") + element(0x00091001, "UN", bytes(8))
    assert element(0x00090000, "UL", pack("<I", len(group))) + group in data


def big_endian_file(before: bytes) -> bytes:
    pixels = element(0x7FE00010, "OW", SAMPLES.astype(">i2").tobytes(), order=">")
    return p10(attributes(SAMPLES, stored=16, order=">") + before + pixels, EXPLICIT_BE)


def test_big_endian_values_are_swapped_as_their_vr_asks() -> None:
    """PS3.5 §7.3."""
    values = [
        element(0x00280106, "US", pack(">H", 513), order=">"),
        element(0x00289110, "SQ", b"", order=">"),
        element(0x00409094, "OW", pack(">4H", 1, 2, 3, 4), order=">"),
        element(0x00720026, "AT", pack(">HH", 0x0010, 0x0020), order=">"),
        element(0x00720074, "FD", pack(">d", -1.5), order=">"),
        element(0x00720078, "UL", pack(">II", 70000, 5), order=">"),
    ]

    result = transcode(big_endian_file(b"".join(values)), Target.HTJ2K)

    assert isinstance(result, Transcoded)
    data_set = read(result.data)
    assert (data_set[0x00280106].value, data_set[0x00720074].value) == (513, -1.5)
    assert data_set[0x00720026].value == 0x00100020
    assert list(data_set[0x00720078].value) == [70000, 5]
    assert data_set[0x00409094].value == pack("<4H", 1, 2, 3, 4)


def test_unknown_values_of_a_big_endian_file_keep_it_as_it_is() -> None:
    """Nobody knows which of their bytes belong together."""
    result = transcode(big_endian_file(element(0x00291001, "UN", bytes(8), order=">")), Target.HTJ2K)

    assert isinstance(result, Kept)
    assert result.reason == "not certain: element 00291001 has no byte order that is certain"
