"""The thumbnail of a series: a picture of its one frame, or a film of all of them, and the anchors that belong to it.

A picture has 128 by 128 points: the longer side of the frame fills it, the shorter one lies between black bars. What
`metadata.json` says of it maps points of the thumbnail to pixels of frames.

Source: the published COD library, `thumbnail.py`, and the stores that it wrote (tests/data/cod/thumbs).
"""

import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal  # the anchors are plain JSON

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from storage.dicom.nesting import PIXEL_DATA
from storage.dicom.p10 import open_p10, read_header
from storage.dicom.window import MissingBytes, Window
from storage.errors import InstanceUnreadable
from storage.pixels.rendering import Picture, render_frame
from storage.pixels.source import PixelSource

SIDE: Final = 128
FRAMES_PER_SECOND: Final = 4
JPEG_QUALITY: Final = 85
MAX_FRAMES: Final = 20_000
"""Of a film: more than an hour of it is no thumbnail."""
FFMPEG_SECONDS: Final = 600
"""How long the program may take once it has all frames."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """`thumbnail.<kind>`, and the `thumbnail` field of metadata.json as JSON."""

    kind: Literal["jpg", "mp4"]
    data: bytes
    metadata: bytes


@dataclass(frozen=True, slots=True)
class NoThumbnail:
    """None can be made."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame of the thumbnail; `anchors` as the format has them."""

    instance_uid: str
    frame_index: int
    picture: Picture
    anchors: dict[str, Any]


def make_thumbnail(
    instances: Iterable[tuple[str, bytes | memoryview]], series_uri: str, *, ffmpeg: str | None = None
) -> Thumbnail | NoThumbnail:
    """Make the thumbnail of a series.

    Instances without pixels, or with pixels that cannot be decoded, are left out. One instance at a time is held.

    Args:
        instances: key and file of each, in the order in which they are shown.
        series_uri: of the folder `…/series/<series>`, where the thumbnail will lie.
        ffmpeg: the program that makes films; without it, the one that is found on PATH.
    """
    shown = chain.from_iterable(_frames(instance_uid, data) for instance_uid, data in instances)
    first = list(islice(shown, 2))
    if not first:
        return NoThumbnail("no instance has a frame that can be shown")
    if len(first) == 1:
        picture = imagecodecs.jpeg8_encode(first[0].picture, level=JPEG_QUALITY)
        return Thumbnail("jpg", bytes(picture), _metadata(first, f"{series_uri}/thumbnail.jpg"))
    program = ffmpeg or shutil.which("ffmpeg")
    if program is None:
        return NoThumbnail("a film needs the program ffmpeg, which is not on PATH")
    noted: list[_Shown] = []
    try:
        data = _film(program, chain(first, shown), noted)
    except _NoFilm as error:
        return NoThumbnail(str(error))
    return Thumbnail("mp4", data, _metadata(noted, f"{series_uri}/thumbnail.mp4"))


def _frames(instance_uid: str, data: bytes | memoryview) -> Iterator[_Shown]:
    """The frames of one instance, up to the first that cannot be shown."""
    try:
        p10 = open_p10(Window.of(data))
        header = read_header(p10)
        if header.pixels is None or header.pixels.tag != PIXEL_DATA:
            return
        source = PixelSource.of(p10, header)
        data_set = _header(data)
        for index, samples in enumerate(source.frames()):
            picture = render_frame(samples, source.description, data_set, index)
            yield _fitted(instance_uid, index, picture)
    except (InstanceUnreadable, MissingBytes):
        return


def _header(data: bytes | memoryview) -> Dataset:
    """The data set without its pixels, as pydicom reads it.

    Raises:
        InstanceUnreadable: pydicom does not read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in a header has been told elsewhere
            return dcmread(BytesIO(data), force=True, stop_before_pixels=True)
    except Exception as error:
        raise InstanceUnreadable(f"the header cannot be read: {type(error).__name__}") from error


def _fitted(instance_uid: str, frame_index: int, picture: Picture) -> _Shown:
    """The frame, scaled into the middle of a black square."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    rows, columns = max(1, SIDE * height // longer), max(1, SIDE * width // longer)
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    scaled = _scaled(picture, rows, columns)
    square[top : top + rows, left : left + columns] = scaled if scaled.ndim == 3 else scaled[..., None]
    anchors = {
        "original_size": {"width": width, "height": height},
        "thumbnail_upper_left": {"row": top, "col": left},
        "thumbnail_bottom_right": {"row": top + rows, "col": left + columns},
        "scale_factor": width / columns,
    }
    return _Shown(instance_uid, frame_index, square, anchors)


def _scaled(picture: Picture, rows: int, columns: int) -> Picture:
    """The means over the area that each new point covers; this enlarges too."""
    down, across = _coverage(picture.shape[0], rows), _coverage(picture.shape[1], columns)
    planes = np.moveaxis(np.atleast_3d(picture), 2, 0).astype(np.float32)
    scaled = np.stack([down @ plane @ across.T for plane in planes], axis=-1)
    result: Picture = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return result if picture.ndim == 3 else result[..., 0]


def _coverage(old: int, new: int) -> NDArray[np.float32]:
    """Row by row, how much of each old point a new one covers; the rows sum to one."""
    edges = np.linspace(0.0, old, new + 1)
    points = np.arange(old)
    overlap = np.minimum(edges[1:, None], points + 1) - np.maximum(edges[:-1, None], points)
    return np.asarray(np.clip(overlap, 0.0, 1.0) * (new / old), np.float32)


def _metadata(shown: Iterable[_Shown], uri: str) -> bytes:
    """The `thumbnail` field."""
    order: list[tuple[str, int]] = []
    instances: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for each in shown:
        frame = {"thumbnail_index": len(order), "anchors": each.anchors}
        order.append((each.instance_uid, each.frame_index))
        instances.setdefault(each.instance_uid, {"frames": []})["frames"].append(frame)
    field = {"uri": uri, "thumbnail_index_to_instance_frame": order, "instances": instances}
    return json.dumps(field).encode("ascii")


class _NoFilm(Exception):
    """The program made none, or must not."""


def _film(program: str, shown: Iterable[_Shown], noted: list[_Shown]) -> bytes:
    """The film of all frames; they are added to `noted` without their pictures as they go by."""
    with tempfile.TemporaryDirectory(prefix="codweb-thumbnail-") as folder, tempfile.TemporaryFile() as complaints:
        target = Path(folder) / "thumbnail.mp4"
        with _started(program, target, complaints.fileno()) as process:
            assert process.stdin is not None
            try:
                for each in shown:
                    if len(noted) == MAX_FRAMES:
                        raise _NoFilm(f"more than {MAX_FRAMES} frames")
                    process.stdin.write(each.picture.tobytes())
                    noted.append(_Shown(each.instance_uid, each.frame_index, _NOTHING, each.anchors))
                process.stdin.close()
                code = process.wait(FFMPEG_SECONDS)
            except BrokenPipeError:
                code = process.wait(FFMPEG_SECONDS) or -1
            except subprocess.TimeoutExpired as error:
                raise _NoFilm(f"ffmpeg did not end within {FFMPEG_SECONDS} s") from error
            finally:
                process.kill()
        if code != 0 or not target.is_file():
            complaints.seek(0)
            words = complaints.read(400).decode("utf-8", "replace").replace(folder, "…").strip()
            raise _NoFilm(f"ffmpeg ended with {code}: {words or 'it said nothing'}")
        return target.read_bytes()


_NOTHING: Final = np.zeros((0, 0, 3), np.uint8)


def _started(program: str, target: Path, complaints: int) -> subprocess.Popen[bytes]:
    command = [program, "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}", "-r", str(FRAMES_PER_SECOND), "-i", "-"]
    command += ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-threads", "1"]
    try:
        return subprocess.Popen(
            [*command, str(target)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints
        )
    except OSError as error:
        raise _NoFilm(f"{program} cannot be started: {error.strerror or error}") from error
