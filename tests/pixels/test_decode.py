"""Frames become the samples that pydicom and its plugins decode; what is broken is an error, and a cheap one."""

import hashlib
from pathlib import Path
from typing import Any  # the manifest is a tree of anything

import imagecodecs
import numpy as np
import pytest

from storage.dicom.p10 import open_p10, read_header
from storage.dicom.window import Window
from storage.errors import InstanceUnreadable
from storage.pixels.decode import signed_view
from storage.pixels.source import PixelSource
from tests.pixels.images import HTJ2K_LOSSLESS, encapsulated, native

JPEG_2000 = "1.2.840.10008.1.2.4.90"
JPEG_LS = "1.2.840.10008.1.2.4.80"
RANDOM = np.random.default_rng(7)


def opened(data: bytes) -> PixelSource:
    p10 = open_p10(Window.of(data))
    return PixelSource.of(p10, read_header(p10))


@pytest.mark.parametrize(
    "name",
    [
        *("CT_small", "ExplVR_BigEnd", "JPEG-LL", "GDCMJ2K_TextGBR", "693_J2KR", "693_J2KI", "MR_small_RLE"),
        *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "OBXXXX1A_rle_2frame", "SC_rgb_2frame"),
        *("SC_rgb_rle_16bit_2frame", "SC_rgb_rle_2frame", "SC_rgb_small_odd", "SC_rgb_small_odd_big_endian"),
        *("bad_sequence", "emri_small_RLE", "emri_small_big_endian", "emri_small_jpeg_2k_lossless"),
        *("emri_small_jpeg_ls_lossless", "image_dfl", "syn_deflated_mf", "syn_j2k_nobot_2frag", "syn_native_rgb_mf"),
    ],
)
def test_frames_are_the_samples_of_the_oracle(name: str, data_folder: Path, manifest: dict[str, Any]) -> None:
    """The manifest holds the hashes of what pydicom's plugins decoded; of big endian words those in either order."""
    source = opened((data_folder / "p10" / f"{name}.dcm").read_bytes())

    samples = [frame.astype(frame.dtype.newbyteorder("<")).tobytes() for frame in source.frames()]

    hashes = [hashlib.sha256(frame).hexdigest() for frame in samples]
    entry = manifest["p10"][f"{name}.dcm"]
    little = [frame["sha256_le"] for frame in entry["frames"] if "sha256_le" in frame]
    assert hashes == (little or entry["decoded_raw_sha256"])


@pytest.mark.parametrize("planar", [0, 1])
def test_planes_of_native_colours_are_put_together(planar: int) -> None:
    colors = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)

    (frame,) = opened(native(colors, stored=8, photometric="RGB", planar=planar)).frames()

    assert np.array_equal(frame, colors)


def test_signed_samples_of_jpeg_ls_get_the_sign_of_bits_stored() -> None:
    """PS3.5 §8.2.3: the codestream does not know of signs."""
    values = RANDOM.integers(-(1 << 15), 1 << 15, (9, 11)).astype(np.int16)
    data = encapsulated(values, imagecodecs.jpegls_encode(values.view(np.uint16)), JPEG_LS, stored=16, signed=True)
    source = opened(data)

    (frame,) = source.frames()

    assert np.array_equal(signed_view(frame, source.description), values)


def test_irreversible_htj2k_is_clamped_and_not_wrapped_around() -> None:
    """OpenJPH wraps from 0 to 255 where a lossy stream overshoots; the decoder for such streams is OpenJPEG."""
    edges = np.kron(RANDOM.integers(0, 2, (16, 16)), np.ones((4, 4))).astype(np.uint8) * 255
    payload = imagecodecs.htj2k_encode(edges, level=0.2, reversible=False)
    source = opened(encapsulated(edges, payload, "1.2.840.10008.1.2.4.203", stored=8))

    (frame,) = source.frames()

    assert np.abs(frame.astype(int) - edges).max() < 200
    assert np.array_equal(frame, imagecodecs.jpeg2k_decode(payload))


@pytest.mark.parametrize("syntax", [JPEG_2000, HTJ2K_LOSSLESS, JPEG_LS])
@pytest.mark.parametrize("said", [(8, 9), (9, 8), (4000, 4000)])
def test_a_frame_of_another_size_than_the_data_set_says_is_refused(syntax: str, said: tuple[int, int]) -> None:
    """Before a decoder is asked to make room for it."""
    samples = RANDOM.integers(0, 256, (8, 8), dtype=np.uint8)
    encoders = {
        JPEG_2000: lambda: imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k"),
        HTJ2K_LOSSLESS: lambda: imagecodecs.htj2k_encode(samples, reversible=True),
        JPEG_LS: lambda: imagecodecs.jpegls_encode(samples, out=1000),
    }
    source = opened(encapsulated(np.zeros(said, np.uint8), encoders[syntax](), syntax, stored=8))

    with pytest.raises(InstanceUnreadable, match="a frame of 8 x 8 x 1, the data set says"):
        list(source.frames())


def test_a_geometry_of_gigabytes_is_refused() -> None:
    """A few runs of RLE may stand for any number of bytes."""
    source = opened(encapsulated(np.zeros((60000, 60000), np.uint8), bytes(64), "1.2.840.10008.1.2.5", stored=8))

    with pytest.raises(InstanceUnreadable, match="a frame of 3600000000 bytes is not decoded"):
        list(source.frames())


@pytest.mark.parametrize(
    "name", ["GDCMJ2K_TextGBR", "JPEG-LL", "MR_small_RLE", "MR_small_jpeg_ls_lossless", "SC_rgb_jpeg_dcmtk"]
)
def test_broken_frames_raise_nothing_but_our_own_error(name: str, data_folder: Path) -> None:
    """Bytes of the coded frame are changed, and it is cut, at random places."""
    data = (data_folder / "p10" / f"{name}.dcm").read_bytes()
    source = opened(data)
    start = source.locator.span_starts[0] + 8
    random = np.random.default_rng(11)
    outcomes: set[bool | None] = set()
    for _ in range(40):
        broken = bytearray(data)
        for place in random.integers(start, min(start + 400, len(data) - 8), 3):
            broken[place] = random.integers(0, 256)
        try:
            outcomes.add(all(frame.shape == source.description.shape for frame in opened(bytes(broken)).frames()))
        except InstanceUnreadable:
            outcomes.add(None)

    assert None in outcomes
    assert False not in outcomes
