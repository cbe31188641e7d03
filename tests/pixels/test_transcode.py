"""What is transcoded loses nothing and changes nothing else; what is kept says why."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import UID

from storage.dicom.p10 import open_p10, read_header
from storage.dicom.window import Window
from storage.pixels.description import PixelDescription
from storage.pixels.encode import Target, encode_frame
from storage.pixels.source import PixelSource
from storage.pixels.transcode import Kept, Transcoded, transcode
from tests.dicom.builders import element, p10, sequence, text
from tests.pixels.images import (
    Image,
    assert_same_attributes,
    attributes,
    decoded_elsewhere,
    encapsulated,
    native,
    payloads,
    read,
)

pytestmark = pytest.mark.long

SMALLER, SAME_SYNTAX, SIGN = "not smaller", "is in the target syntax already", "disagree about the sign"
YES = ""

CHANGED: dict[str, tuple[str, str, str]] = {
    # name: what becomes of it as j2k, htj2k and jls: transcoded (YES), or kept for a reason
    "693_J2KR": (SAME_SYNTAX, SMALLER, YES),
    "CT_small": (YES, YES, YES),
    "ExplVR_BigEnd": (YES, YES, YES),
    "GDCMJ2K_TextGBR": (SAME_SYNTAX, YES, YES),
    "J2K_pixelrep_mismatch": (SAME_SYNTAX, SIGN, SIGN),
    "JPEG-LL": (YES, YES, YES),
    "MR_small": (YES, YES, YES),
    "MR_small_RLE": (YES, YES, YES),
    "MR_small_jp2klossless": (SAME_SYNTAX, SMALLER, SMALLER),
    "MR_small_jpeg_ls_lossless": (YES, SMALLER, SAME_SYNTAX),
    "OBXXXX1A_rle_2frame": (YES, YES, YES),
    "SC_rgb_2frame": (YES, YES, YES),
    "SC_rgb_rle_16bit_2frame": (SMALLER, SMALLER, YES),
    "SC_rgb_rle_2frame": (SMALLER, SMALLER, YES),
    "bad_sequence": (YES, YES, YES),
    "emri_small": (YES, YES, YES),
    "emri_small_RLE": (YES, YES, YES),
    "emri_small_big_endian": (YES, YES, YES),
    "emri_small_jpeg_2k_lossless": (SAME_SYNTAX, SMALLER, YES),
    "emri_small_jpeg_ls_lossless": (YES, YES, SAME_SYNTAX),
    "syn_native_mf16": (YES, SMALLER, YES),
    "syn_native_mf16_implicit": (YES, SMALLER, YES),
    "zp_CT_small": (YES, YES, YES),
    "zp_MR_small": (YES, YES, YES),
    "zp_MR_small_RLE": (YES, YES, YES),
    **{f"syn_ct_{number}": (YES, YES, YES) for number in ("1", "1_diffhash", "2", "3", "4", "5", "6")},
    **{
        f"syn_j2k_{name}": (SAME_SYNTAX, SMALLER, YES)
        for name in ("bot_1frag", "bot_3frag", "eot", "nf1", "nobot_1frag", "nobot_2frag", "nobot_mixedfrag")
    },
    "syn_j2k_single_3frag": (SAME_SYNTAX, SMALLER, YES),
    "syn_j2k_bot_short": (SAME_SYNTAX, "disagree about frame 3", "disagree about frame 3"),
}
KEPT: dict[str, tuple[str, ...]] = {
    # reason, whatever the target: names
    "no pixel data": (
        *("UN_sequence", "no_meta", "reportsi", "reportsi_with_empty_number_tags", "rtplan", "rtplan_truncated"),
        *("rtstruct", "syn_bad_uid", "syn_charset_iso2022_jp", "syn_charset_iso2022_kr", "syn_charset_latin1"),
        *("syn_charset_utf8", "syn_encapsulated_pdf", "syn_invalid_values", "syn_nested_sequences", "syn_nonfinite"),
        "test-SR",
    ),
    "is not known as lossless": (
        *("693_J2KI", "JPEG2000-embedded-sequence-delimiter", "JPGExtended", "SC_rgb_jpeg_dcmtk"),
        *("SC_rgb_small_odd_jpeg", "examples_ybr_color"),
    ),
    "bytes of pixel data": ("MR_truncated", "zp_MR_truncated"),
    "YBR_FULL_422": ("SC_ybr_full_422_uncompressed",),
    "NumberOfFrames": ("badVR",),
    "words of 1 bits": ("liver", "liver_expb", "syn_seg_1bit_unaligned"),
    "words of 32 bits": ("rtdose", "rtdose_expb", "rtdose_rle"),
    "floating point": ("syn_double_float_pixels", "syn_float_pixels"),
    SMALLER: (
        *("SC_rgb_small_odd", "SC_rgb_small_odd_big_endian", "image_dfl", "syn_bulk_elements", "syn_deflated_mf"),
        *("syn_empty_instance_number_1", "syn_empty_instance_number_2", "syn_len512_1", "syn_len512_2"),
        *("syn_native_odd3", "syn_native_rgb_mf", "syn_overlong_ds", "syn_preamble_mate1", "syn_preamble_mate2"),
        *("syn_preamble_nonzero", "syn_small_pixels"),
    ),
}
OUTCOMES = CHANGED | {name: (reason,) * 3 for reason, names in KEPT.items() for name in names}

RANDOM = np.random.default_rng(5)
TARGETS = list(Target)


def smooth(rows: int, columns: int, bits: int, *, signed: bool = False) -> Image:
    """An image that compresses, and that holds the least and the greatest value of so many bits."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    ramp = np.linspace(low, high, rows * columns).astype(np.int64).reshape(rows, columns)
    size = 1 if bits <= 8 else 2
    noisy: Image = np.clip(ramp + RANDOM.integers(-1, 2, (rows, columns)), low, high)
    return noisy.astype(f"{'i' if signed else 'u'}{size}")


def colors(rows: int, columns: int) -> Image:
    planes = [smooth(rows, columns, 8), smooth(columns, rows, 8).T, smooth(rows, columns, 8)[::-1]]
    return np.ascontiguousarray(np.stack(planes, axis=2))


def transcoded(data: bytes, target: Target) -> Transcoded:
    result = transcode(data, target)
    if isinstance(result, Kept) and "needs the package pyjpegls" in result.reason:
        pytest.skip("pyjpegls is not installed: JPEG-LS is written of 8 and 16 bits only")
    assert isinstance(result, Transcoded), result
    return result


def kept(data: bytes, target: Target = Target.J2K) -> str:
    result = transcode(data, target)
    assert isinstance(result, Kept)
    return result.reason


def decoded(data: bytes) -> Iterator[Image]:
    opened = open_p10(Window.of(data))
    yield from PixelSource.of(opened, read_header(opened)).frames()


def test_the_table_tells_of_every_file(data_folder: Path) -> None:
    assert sorted(OUTCOMES) == sorted(path.stem for path in (data_folder / "p10").iterdir())


@pytest.mark.parametrize("name", sorted(OUTCOMES))
@pytest.mark.parametrize("target", TARGETS)
def test_what_becomes_of_a_file(name: str, target: Target, data_folder: Path) -> None:
    """Transcoded, and then smaller, with the same frames and the same attributes; or kept, for the reason that is told.

    Samples are compared with those of the source, whose decoding `test_decode` proves; attributes by pydicom.
    """
    data = (data_folder / "p10" / f"{name}.dcm").read_bytes()
    expected = OUTCOMES[name][TARGETS.index(target)]

    result = transcode(data, target)

    if isinstance(result, Kept) and "needs the package pyjpegls" in result.reason:
        pytest.skip("pyjpegls is not installed: JPEG-LS is written of 8 and 16 bits only")
    if expected:
        assert isinstance(result, Kept)
        assert expected in result.reason
        return
    assert isinstance(result, Transcoded)
    assert len(result.data) < len(data)
    sources, frames = list(decoded(data)), decoded_elsewhere(result.data)
    assert result.frame_count == len(frames) == len(sources)
    mask = (1 << read(data).BitsStored) - 1
    for source, frame in zip(sources, frames, strict=True):
        assert np.array_equal(source.astype(np.int64) & mask, frame.astype(np.int64) & mask)
    assert_same_attributes(data, result.data)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (10, False), (12, True), (15, False), (16, True)])
@pytest.mark.parametrize("shape", [(64, 48), (5, 700), (31, 17)])
def test_samples_of_any_precision_and_sign_survive(
    target: Target, bits: int, signed: bool, shape: tuple[int, int]
) -> None:
    """And the codestream is of the precision and sign of the data set (PS3.5 §8.2.3, §8.2.4)."""
    samples = smooth(*shape, bits, signed=signed)

    result = transcoded(native(samples, stored=bits, signed=signed), target)

    (payload,) = payloads(result.data)
    if target is Target.JLS:
        assert payload[payload.index(b"\xff\xf7") + 4] == bits
        words = samples.astype(np.int64) & ((1 << bits) - 1)
        assert np.array_equal(imagecodecs.jpegls_decode(payload), words)
    else:
        assert payload[payload.index(b"\xff\x51", 2) + 40] == (bits - 1) | signed << 7
        assert np.array_equal(imagecodecs.jpeg2k_decode(payload), samples)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(
    ("target", "photometric", "becomes", "component_transform"),
    [
        (Target.J2K, "RGB", "YBR_RCT", 1),
        (Target.HTJ2K, "RGB", "YBR_RCT", 1),
        (Target.JLS, "RGB", "RGB", None),
        (Target.J2K, "YBR_FULL", "YBR_FULL", 0),
        (Target.HTJ2K, "YBR_FULL", "YBR_FULL", 0),
        (Target.JLS, "YBR_FULL", "YBR_FULL", None),
    ],
)
def test_colours_are_transformed_only_where_the_data_set_says_so(
    target: Target, photometric: str, becomes: str, component_transform: int | None, planar: int
) -> None:
    """RCT is for RGB, and then Photometric Interpretation is YBR_RCT and Planar Configuration 0 (PS3.5 §8.2.4)."""
    samples = colors(40, 56)

    result = transcoded(native(samples, stored=8, photometric=photometric, planar=planar), target)

    data_set = read(result.data)
    assert (data_set.PhotometricInterpretation, data_set.PlanarConfiguration) == (becomes, 0)
    assert np.array_equal(decoded_elsewhere(result.data)[0], samples)
    if component_transform is not None:
        (payload,) = payloads(result.data)
        assert payload[payload.index(b"\xff\x52") + 8] == component_transform


def test_colours_of_jpeg_2000_become_rgb_in_jpeg_ls() -> None:
    samples = colors(64, 64)
    payload = imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k", reversible=True, mct=True)
    data = encapsulated(samples, payload + bytes(4000), "1.2.840.10008.1.2.4.90", stored=8, photometric="YBR_RCT")

    result = transcoded(data, Target.JLS)

    assert read(result.data).PhotometricInterpretation == "RGB"
    assert np.array_equal(decoded_elsewhere(result.data)[0], samples)


@pytest.mark.parametrize(("photometric", "transform"), [("YBR_FULL", True), ("YBR_RCT", False)])
def test_a_component_transform_that_contradicts_the_data_set_is_kept(photometric: str, transform: bool) -> None:
    samples = colors(64, 64)
    payload = imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k", reversible=True, mct=transform)
    data = encapsulated(samples, payload + bytes(4000), "1.2.840.10008.1.2.4.90", stored=8, photometric=photometric)

    assert "the codestream says otherwise" in kept(data, Target.JLS)


@pytest.mark.parametrize("target", [Target.J2K, Target.JLS])
def test_a_lossy_stream_under_a_lossless_name_is_kept(target: Target) -> None:
    """It must not be called lossless once more."""
    samples = smooth(64, 64, 8)
    lossy = imagecodecs.jpeg2k_encode(samples, level=30, codecformat="j2k", reversible=False)
    data = encapsulated(samples, lossy + bytes(9000), "1.2.840.10008.1.2.4.201", stored=8)

    assert kept(data, target) == "a lossy JPEG 2000 codestream, mislabelled"


def test_a_stream_of_another_family_than_its_name_is_kept() -> None:
    samples = smooth(64, 64, 8)
    data = encapsulated(samples, imagecodecs.jpegls_encode(samples) + bytes(9000), "1.2.840.10008.1.2.4.90", stored=8)

    assert kept(data, Target.HTJ2K) == "a lossless JPEG-LS codestream, mislabelled"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("word", [0x1000, 0x8000, 0xF000])
def test_overlays_in_the_unused_bits_are_kept(target: Target, word: int) -> None:
    """The words could not be had back: a decoder makes zeros, or the sign, of the bits above Bits Stored."""
    samples = smooth(64, 64, 12)
    samples[20, 30] |= word

    assert kept(native(samples, stored=12), target) == "bits above Bits Stored hold something"


def test_signed_words_that_are_not_extended_are_kept() -> None:
    samples = smooth(64, 64, 12, signed=True).astype(np.uint16) & 0x0FFF

    assert kept(native(samples, stored=12, signed=True)) == "bits above Bits Stored hold something"


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"stored": 12, "high_bit": 15}, "12 bits up to bit 15"),
        ({"stored": 8}, "8 bits up to bit 7 in words of 16"),
        ({"stored": 16, "photometric": "PALETTE COLOR", "signed": True}, "signed indices"),
        ({"stored": 16, "photometric": "Doe^John"}, "1 samples of unknown photometric interpretation"),
        ({"stored": 16, "frames": "0"}, "NumberOfFrames"),
    ],
)
def test_a_doubtful_description_is_kept(described: dict[str, Any], reason: str) -> None:
    """And no value of the file gets into the reason."""
    assert reason in kept(native(smooth(64, 64, 16), **described))


@pytest.mark.parametrize("signature", [0x4FFE0001, 0xFFFAFFFA])
def test_a_signed_file_is_kept(signature: int) -> None:
    """PS3.15 §C: a digital signature may be about the pixels as they are encoded."""
    place = "before" if signature < 0x7FE00010 else "after"

    data = native(smooth(64, 64, 16), stored=16, **{place: sequence(signature, [])})

    assert kept(data) == "digitally signed"


@pytest.mark.parametrize("wrong_frame", [0, 3])
def test_an_encoder_that_loses_one_bit_of_one_sample_is_caught(wrong_frame: int) -> None:
    """What was written is decoded and compared before it is given out."""
    calls = count()

    def careless(samples: Image, description: PixelDescription, target: Target, *, color_transform: bool) -> bytes:
        if next(calls) == wrong_frame:
            samples = samples.copy()
            samples[-1, -1] ^= 1
        return encode_frame(samples, description, target, color_transform=color_transform)

    result = transcode(native(smooth(64, 64, 12), stored=12, frames="4"), Target.HTJ2K, encode=careless)

    assert result == Kept(f"frame {wrong_frame + 1} does not decode to the same samples")


@pytest.mark.parametrize("payload", [b"", b"no codestream", b"\xff\x4f\xff\x51\x00"])
def test_an_encoder_that_writes_nonsense_is_caught(payload: bytes) -> None:
    data = native(smooth(64, 64, 12), stored=12)

    result = transcode(data, Target.J2K, encode=lambda *_, **__: payload)

    assert isinstance(result, Kept)
    assert result.reason.startswith("not certain")


def test_cut_and_overlong_pixel_data_are_kept() -> None:
    data = native(smooth(64, 64, 16), stored=16)

    assert "bytes of pixel data" in kept(data[:-2])
    longer = native(smooth(66, 64, 16), stored=16).replace(pack("<H", 66), pack("<H", 64), 1)
    assert "8448 bytes of pixel data, 8192 were expected" in kept(longer)


def test_the_same_attribute_twice_is_kept() -> None:
    again = element(0x00280010, "US", pack("<H", 64))

    assert "is there twice" in kept(native(smooth(64, 64, 16), stored=16, before=again))


def test_what_is_copied_is_copied_byte_for_byte() -> None:
    """Private elements, values of odd VRs, lengths of sequences; behind the pixels too."""
    private = element(0x00290010, "LO", b"CODWEB") + element(0x00291001, "UN", b"\1\2\3\4\5\6")
    nested = sequence(0x00291002, [], undefined=True)
    tail = element(0x7FE10010, "LO", b"behind") + element(0xFFFCFFFC, "OB", bytes(64))
    data = native(smooth(64, 64, 16), stored=16, before=private + nested, after=tail)

    result = transcoded(data, Target.J2K)

    start = data.index(element(0x00080016, "UI", text("1.2.840.10008.5.1.4.1.1.7", b"\0")))
    stop = data.index(b"\xe0\x7f\x10\x00")
    assert data[start:stop] in result.data
    assert result.data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0" + tail)


def test_group_lengths_tell_the_truth_again() -> None:
    """Of the file meta information, and the retired ones of a data set (PS3.5 §7.2)."""
    samples = colors(64, 64)
    described = attributes(samples, stored=8, photometric="RGB")
    group_28 = described.index(pack("<HH", 0x0028, 0x0002))
    pixels = element(0x7FE00010, "OB", samples.tobytes())
    described = (
        described[:group_28]
        + element(0x00280000, "UL", pack("<I", len(described) - group_28))
        + described[group_28:]
        + element(0x7FE00000, "UL", pack("<I", len(pixels)))
    )

    data = transcoded(p10(described + pixels), Target.J2K).data

    def stated(tag: int) -> int:
        start = data.index(pack("<HH", tag >> 16, 0) + b"UL\4\0") + 8
        return start + 4 + int.from_bytes(data[start : start + 4], "little")

    assert data[stated(0x00020000) :].startswith(pack("<HH", 0x0008, 0x0016))
    assert data[stated(0x00280000) :].startswith(pack("<HH", 0x7FE0, 0x0000))
    assert stated(0x7FE00000) == len(data)


def test_many_frames_are_listed_in_the_offset_table() -> None:
    samples = smooth(32, 32, 12)

    result = transcoded(native(samples, stored=12, frames="50"), Target.HTJ2K)

    assert result.frame_count == 50
    assert int.from_bytes(bytes(read(result.data).PixelData)[4:8], "little") == 200
    assert all(np.array_equal(frame, samples) for frame in decoded_elsewhere(result.data))


def test_an_extended_offset_table_takes_over_where_the_basic_one_ends() -> None:
    samples = smooth(64, 64, 12)

    result = transcode(native(samples, stored=12, frames="6"), Target.J2K, max_basic_offset=1000)

    assert isinstance(result, Transcoded)
    assert len(read(result.data).ExtendedOffsetTable) == 48
    assert all(np.array_equal(frame, samples) for frame in decoded_elsewhere(result.data))


def test_the_transfer_syntax_is_the_one_of_the_target() -> None:
    data = native(smooth(64, 64, 16), stored=16)

    names = {target: UID(transcoded(data, target).transfer_syntax_uid).name for target in TARGETS}

    assert names == {
        Target.J2K: "JPEG 2000 Image Compression (Lossless Only)",
        Target.HTJ2K: "High-Throughput JPEG 2000 Image Compression (Lossless Only)",
        Target.JLS: "JPEG-LS Lossless Image Compression",
    }
    for target in TARGETS:
        result = transcoded(data, target)
        assert read(result.data).file_meta.TransferSyntaxUID == result.transfer_syntax_uid


def test_broken_files_are_kept_whatever_is_broken(data_folder: Path) -> None:
    """Random bytes of real files are changed; nothing is raised, and what is transcoded all the same decodes alike."""
    random = np.random.default_rng(3)
    results = set()
    for name in ("emri_small_RLE", "syn_native_mf16_implicit", "emri_small_jpeg_ls_lossless", "ExplVR_BigEnd"):
        data = (data_folder / "p10" / f"{name}.dcm").read_bytes()
        for _ in range(40):
            broken = bytearray(data[: random.integers(len(data) // 2, len(data) + 1)])
            for place in random.integers(132, len(broken), 4):
                broken[place] = random.integers(0, 256)
            result = transcode(bytes(broken), Target.HTJ2K)
            results.add(type(result))
            if isinstance(result, Transcoded):
                pairs = zip(decoded(bytes(broken)), decoded(result.data), strict=True)
                assert all(np.array_equal(before, after) for before, after in pairs)

    assert Kept in results
