"""Thumbnails show what a viewer would show, and their anchors are those of the published library."""

import gzip
import json
import os
import shutil
import sys
from pathlib import Path
from struct import pack
from typing import Any  # metadata.json is a tree of anything

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from storage.pixels.thumbnail import NoThumbnail, Thumbnail, make_thumbnail
from tests.dicom.builders import element, item, sequence, text
from tests.pixels.images import native

SERIES = "gs://cod/store/dicomweb/studies/1.2/series/1.3"
FFMPEG = os.environ.get("FFMPEG") or shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")


def picture(data: bytes) -> NDArray[np.int64]:
    """The decoded thumbnail of one file."""
    result = make_thumbnail([("2.25.1", data)], SERIES)
    assert isinstance(result, Thumbnail), result
    assert result.kind == "jpg"
    return imagecodecs.jpeg8_decode(result.data).astype(np.int64)


def ramp(low: int, high: int, word: str = "u2") -> NDArray[np.generic]:
    """Values that rise from left to right."""
    return np.tile(np.linspace(low, high, 128).astype(word), (128, 1))


def middle(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first sample along the middle row."""
    return image[64, :, 0]


def decimal(tag: int, value: str) -> bytes:
    return element(tag, "DS", text(value))


def test_anchors_are_those_of_the_published_library(data_folder: Path) -> None:
    """For every thumbnail that it wrote into the fixture stores: sizes from its metadata, anchors from ours."""
    checked = 0
    for path in (data_folder / "cod" / "thumbs").rglob("metadata.json"):
        written: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes())).get("thumbnail") or {"instances": {}}
        for instance_uid, told in written["instances"].items():
            for frame in told["frames"]:
                size = frame["anchors"]["original_size"]
                samples = np.arange(size["height"] * size["width"], dtype=np.uint16)
                data = native(samples.reshape(size["height"], size["width"]), stored=16)
                result = make_thumbnail([(instance_uid, data)], SERIES)
                assert isinstance(result, Thumbnail)
                ours = json.loads(result.metadata)
                assert ours["instances"][instance_uid]["frames"][0]["anchors"] == frame["anchors"]
                assert ours.keys() == written.keys()
                checked += 1
    assert checked > 10


def test_the_shorter_side_lies_between_black_bars() -> None:
    bright = np.full((64, 256), 255, np.uint8)
    bright[:, 0] = 0

    result = make_thumbnail([("2.25.1", native(bright, stored=8))], SERIES)

    assert isinstance(result, Thumbnail)
    image = imagecodecs.jpeg8_decode(result.data)
    assert image.shape == (128, 128, 3)
    assert image[:44].max() < 40
    assert image[84:].max() < 40
    assert image[52:76, 8:].min() > 215
    assert json.loads(result.metadata) == {
        "uri": f"{SERIES}/thumbnail.jpg",
        "thumbnail_index_to_instance_frame": [["2.25.1", 0]],
        "instances": {
            "2.25.1": {
                "frames": [
                    {
                        "thumbnail_index": 0,
                        "anchors": {
                            "original_size": {"width": 256, "height": 64},
                            "thumbnail_upper_left": {"row": 48, "col": 0},
                            "thumbnail_bottom_right": {"row": 80, "col": 128},
                            "scale_factor": 2.0,
                        },
                    }
                ]
            }
        },
    }


def test_without_a_window_the_frame_spreads_from_black_to_white() -> None:
    values = middle(picture(native(ramp(1000, 1100), stored=16)))

    assert values[0] < 10
    assert values[-1] > 245
    assert abs(int(values[64]) - 128) < 10


def test_a_window_is_applied_to_rescaled_values() -> None:
    """PS3.3 §C.11.2.1.2: stored 0..2000 is -1000..1000; a window of width 400 around 0 is black until -200."""
    before = decimal(0x00281050, "0") + decimal(0x00281051, "401")
    before += decimal(0x00281052, "-1000") + decimal(0x00281053, "1")

    values = middle(picture(native(ramp(0, 2000), stored=16, before=before)))

    stored = np.linspace(-1000, 1000, 128)
    assert values[stored < -230].max() < 12
    assert values[stored > 230].min() > 243
    assert np.abs(values - np.clip((stored + 200) / 400, 0, 1) * 255).max() < 12


def test_signed_values_are_seen_as_such() -> None:
    values = middle(picture(native(ramp(-500, 500, "i2"), stored=16, signed=True)))

    assert values[0] < 10
    assert values[-1] > 245


def test_monochrome1_is_shown_inverted() -> None:
    """PS3.3 §C.7.6.3.1.2: its least value is white."""
    values = middle(picture(native(ramp(0, 255, "u1"), stored=8, photometric="MONOCHROME1")))

    assert values[0] > 245
    assert values[-1] < 10


def test_a_palette_gives_the_colours() -> None:
    """PS3.3 §C.7.6.3.1.5, with entries of 16 bits."""
    reds, zeros = np.zeros(256, "<u2"), np.zeros(256, "<u2")
    reds[200] = 0xFFFF
    before = b""
    for index in range(3):
        before += element(0x00281101 + index, "US", pack("<3H", 256, 0, 16))
    for index, table in enumerate((reds, zeros, zeros)):
        before += element(0x00281201 + index, "OW", table.tobytes())
    image = picture(native(np.full((64, 64), 200, np.uint8), stored=8, photometric="PALETTE COLOR", before=before))

    assert np.abs(image[20:108, 20:108] - np.array([255, 0, 0])).max() < 12


@pytest.mark.parametrize(("photometric", "planar"), [("RGB", 0), ("RGB", 1), ("YBR_FULL", 0)])
def test_colours_are_shown_as_rgb(photometric: str, planar: int) -> None:
    """Green is 150, 44, 21 in YBR_FULL (PS3.3 §C.7.6.3.1.2)."""
    color = (0, 255, 0) if photometric == "RGB" else (150, 44, 21)
    samples = np.broadcast_to(np.array(color, np.uint8), (64, 64, 3))

    image = picture(native(samples, stored=8, photometric=photometric, planar=planar))

    assert np.abs(image - np.array([0, 255, 0])).max() < 12


def test_a_window_of_the_functional_groups_is_found() -> None:
    """PS3.3 §C.7.6.16.2.10: Frame VOI LUT, shared by all frames."""
    window = item(decimal(0x00281050, "500") + decimal(0x00281051, "101"))
    groups = sequence(0x52009229, [item(sequence(0x00289132, [window]))])

    values = middle(picture(native(ramp(0, 1000), stored=16, before=groups)))

    assert values[:50].max() < 12
    assert values[78:].min() > 243


def test_overlays_in_unused_bits_are_not_shown() -> None:
    samples = ramp(0, 4095)
    marked = samples | np.where(np.arange(128) % 16 == 0, 0xF000, 0).astype(np.uint16)

    plain, other = picture(native(samples, stored=12)), picture(native(marked, stored=12))

    assert np.array_equal(plain, other)


def test_reducing_takes_the_mean_of_the_area() -> None:
    """A chess board of single pixels is an even grey: none of them is passed over."""
    board = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)

    image = picture(native(board, stored=8))

    assert np.abs(image - 128).max() < 4


@pytest.mark.parametrize("name", ["rtplan.dcm", "syn_float_pixels.dcm", "liver.dcm", "MR_truncated.dcm"])
def test_a_series_that_cannot_be_shown_has_none_and_says_so(name: str, data_folder: Path) -> None:
    data = (data_folder / "p10" / name).read_bytes()

    assert make_thumbnail([("2.25.1", data)], SERIES) == NoThumbnail("no instance has a frame that can be shown")


def test_instances_without_pixels_are_left_out(data_folder: Path) -> None:
    files = [(name, (data_folder / "p10" / f"{name}.dcm").read_bytes()) for name in ("rtplan", "CT_small", "reportsi")]

    result = make_thumbnail(files, SERIES)

    assert isinstance(result, Thumbnail)
    assert json.loads(result.metadata)["thumbnail_index_to_instance_frame"] == [["CT_small", 0]]


def test_no_file_of_the_fixtures_raises(data_folder: Path) -> None:
    shown = 0
    for path in sorted((data_folder / "p10").iterdir()):
        result = make_thumbnail([("2.25.1", path.read_bytes())], SERIES, ffmpeg="/nowhere/ffmpeg")
        shown += isinstance(result, Thumbnail) or "cannot be started" in result.reason

    assert shown > 50


def two_slices() -> list[tuple[str, bytes]]:
    return [("2.25.1", native(ramp(0, 900), stored=16)), ("2.25.2", native(ramp(0, 800)[:64], stored=16, frames="2"))]


def program(folder: Path, body: str) -> str:
    """A program of our own in the place of ffmpeg."""
    path = folder / "ffmpeg"
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_several_frames_go_to_the_film_in_order(tmp_path: Path) -> None:
    """As raw RGB, four a second; the metadata counts them through."""
    echo = program(tmp_path, "open(sys.argv[-1], 'wb').write(' '.join(sys.argv).encode() + sys.stdin.buffer.read())")

    result = make_thumbnail(two_slices(), SERIES, ffmpeg=echo)

    assert isinstance(result, Thumbnail)
    assert result.kind == "mp4"
    words, frames = result.data.split(b"thumbnail.mp4", 1)
    assert len(frames) == 3 * 128 * 128 * 3
    assert b"-pix_fmt rgb24 -s 128x128 -r 4 -i -" in words
    assert b"-c:v libx264 -pix_fmt yuv420p" in words
    metadata = json.loads(result.metadata)
    assert metadata["uri"] == f"{SERIES}/thumbnail.mp4"
    assert metadata["thumbnail_index_to_instance_frame"] == [["2.25.1", 0], ["2.25.2", 0], ["2.25.2", 1]]
    assert [frame["thumbnail_index"] for frame in metadata["instances"]["2.25.2"]["frames"]] == [1, 2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.exit('no such codec')", "ffmpeg ended with 1: no such codec"),
        ("sys.stdin.buffer.read()", "ffmpeg ended with 0: it said nothing"),
    ],
)
def test_a_film_that_fails_is_no_thumbnail(body: str, reason: str, tmp_path: Path) -> None:
    many = [(uid, data) for number in range(20) for uid, data in [(f"2.25.{number}", two_slices()[0][1])]]

    assert make_thumbnail(many, SERIES, ffmpeg=program(tmp_path, body)) == NoThumbnail(reason)


def test_a_film_without_the_program_is_no_thumbnail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    result = make_thumbnail(two_slices(), SERIES)

    assert result == NoThumbnail("a film needs the program ffmpeg, which is not on PATH")


@needs_ffmpeg
def test_the_film_is_h264_that_browsers_play() -> None:
    """The sample entry avc1, four frames a second, the index in front."""
    result = make_thumbnail(two_slices(), SERIES, ffmpeg=FFMPEG)

    assert isinstance(result, Thumbnail)
    assert result.data[4:8] == b"ftyp"
    assert b"avc1" in result.data
    assert result.data.index(b"moov") < result.data.index(b"mdat")
