"""An ultrasound sector with a beating heart: a multi-frame image (PS3.3 §A.7) in RLE (PS3.5 §G)."""

import struct
from collections.abc import Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless, UltrasoundMultiFrameImageStorage

from app.demo.identity import US_CINE, new_instance
from app.demo.noise import Floats

ROWS, COLUMNS = 480, 640
FRAMES = 30
"""One heartbeat."""
FRAME_TIME_MS = 33.3
DEPTH_CM = 15.0
PIXELS_PER_CM = 30.0
APEX_ROW, APEX_COLUMN = 12, COLUMNS // 2
HALF_ANGLE = 0.66
"""Half of the sector, in radians."""


def cine() -> Iterator[Dataset]:
    """One instance of FRAMES frames."""
    instance = new_instance(US_CINE, UltrasoundMultiFrameImageStorage, 1, RLELossless)
    instance.ImageType = ["ORIGINAL", "PRIMARY", "CARDIAC"]
    instance.BodyPartExamined = US_CINE.body_part
    instance.LossyImageCompression = "00"
    instance.SequenceOfUltrasoundRegions = [_sector_region()]
    instance.NumberOfFrames = FRAMES
    instance.FrameTime = FRAME_TIME_MS
    instance.FrameIncrementPointer = 0x00181063  # FrameTime
    instance.CineRate = 30
    instance.RecommendedDisplayFrameRate = 30
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows, instance.Columns = ROWS, COLUMNS
    instance.BitsAllocated = instance.BitsStored = 8
    instance.HighBit = 7
    instance.PixelRepresentation = 0
    instance.PixelData = encapsulate([rle_frame(frame) for frame in _frames()], has_bot=True)
    instance["PixelData"].VR = "OB"
    yield instance


def rle_frame(frame: NDArray[np.uint8]) -> bytes:
    """One 8-bit monochrome frame in DICOM's RLE: a header that counts one segment, and PackBits row by row."""
    segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in frame)
    return struct.pack("<16I", 1, 64, *[0] * 14) + segment + bytes(len(segment) % 2)


def _frames() -> Iterator[NDArray[np.uint8]]:
    """The frames of one beat: chambers that widen and narrow, seen through speckle that lies on the beam's own grid."""
    row, column = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    y = (row - APEX_ROW) / PIXELS_PER_CM
    x = (column - APEX_COLUMN) / PIXELS_PER_CM
    depth = np.hypot(x, y)
    angle = np.arctan2(x, y)
    sector = (depth < DEPTH_CM) & (depth > 0.4) & (np.abs(angle) < HALF_ANGLE)
    place = (
        (depth / DEPTH_CM * 599).astype(np.intp).clip(0, 599),
        ((angle + HALF_ANGLE) * 150).astype(np.intp).clip(0, 199),
    )
    random = np.random.default_rng(31)
    lasting, passing = _speckle(random), [_speckle(random) for _ in range(3)]
    attenuation = np.exp(-depth / 28) * np.clip(depth / 1.5, 0.4, 1)
    for index in range(FRAMES):
        speckle = (0.75 * lasting + 0.25 * passing[index % 3])[place]
        echo = _tissue(x, y, beat=index / FRAMES) * speckle * attenuation
        shown = np.where(sector, 255 * np.clip(echo, 0, 1) ** 0.7, 0).astype(np.uint8)
        shown[~sector] = 0
        _draw_trace(shown, index)
        yield shown


def _speckle(random: np.random.Generator) -> Floats:
    """Magnitude of complex noise, smeared along the arc: 600 depths by 200 angles, mean about 1."""
    noise = random.standard_normal((2, 600, 204)).astype(np.float32)
    smeared = noise[:, :, :-4] + 2 * noise[:, :, 1:-3] + 3 * noise[:, :, 2:-2] + 2 * noise[:, :, 3:-1] + noise[:, :, 4:]
    result: Floats = np.hypot(smeared[0], smeared[1]) / 5.5
    return result


def _tissue(x: Floats, y: Floats, *, beat: float) -> Floats:
    """How strongly each place echoes: muscle round four chambers, valves between them, the bright sac outside."""
    contraction = 0.5 - 0.5 * np.cos(2 * np.pi * beat)
    squeeze = 1 - 0.24 * contraction
    fill = 0.86 + 0.2 * contraction
    heart = _ellipse(x, y, 0.0, 8.0, 4.6 - 0.25 * contraction, 5.9)
    ventricles = np.minimum(
        _ellipse(x, y, 1.75, 6.2 + 0.25 * contraction, 1.55 * squeeze, 2.9 * squeeze),
        _ellipse(x, y, -1.75, 6.4 + 0.25 * contraction, 1.25 * squeeze, 2.5 * squeeze),
    )
    atria = np.minimum(
        _ellipse(x, y, 1.7, 11.2, 1.5 * fill, 1.45 * fill), _ellipse(x, y, -1.7, 11.2, 1.45 * fill, 1.4 * fill)
    )
    chambers = np.minimum(ventricles, atria)
    echo = np.full(x.shape, 0.3, np.float32)
    echo[heart < 1.08] = 0.75
    echo[heart < 1.0] = 0.46
    echo[chambers < 1.12] = 0.62
    echo[chambers < 1.0] = 0.05
    opening = 0.15 + 1.1 * max(0.0, float(np.cos(2 * np.pi * beat)))
    for middle in (1.7, -1.7):
        for side in (-1, 1):
            hinge = middle + side * 1.35
            along = np.clip((hinge - x) / (side * 1.25), 0, 1)
            leaflet = np.abs(y - (9.5 - opening * along)) < 0.09
            echo[leaflet & (np.abs(x - middle) < 1.35) & ((x - middle) * side > 0.06)] = 0.9
    return echo


def _ellipse(x: Floats, y: Floats, centre_x: float, centre_y: float, radius_x: float, radius_y: float) -> Floats:
    result: Floats = np.hypot((x - centre_x) / radius_x, (y - centre_y) / radius_y)
    return result


def _draw_trace(frame: NDArray[np.uint8], index: int) -> None:
    """A heart trace along the bottom, drawn up to this frame, and a scale of centimetres on the right."""
    t = np.arange(COLUMNS) / COLUMNS
    beat = (
        10 * np.exp(-(((t - 0.18) / 0.03) ** 2)) - 8 * np.exp(-(((t - 0.27) / 0.01) ** 2))
        + 46 * np.exp(-(((t - 0.30) / 0.012) ** 2)) - 14 * np.exp(-(((t - 0.335) / 0.012) ** 2))
        + 14 * np.exp(-(((t - 0.55) / 0.05) ** 2))
    )  # fmt: skip
    heights = np.round(ROWS - 18 - 0.6 * beat).astype(int)
    for column in range(1, int(COLUMNS * (index + 1) / FRAMES)):
        low, high = sorted((heights[column - 1], heights[column]))
        frame[low : high + 1, column] = 200
    for centimetre in range(int(DEPTH_CM) + 1):
        row = APEX_ROW + int(centimetre * PIXELS_PER_CM)
        width = 14 if centimetre % 5 == 0 else 7
        frame[row, COLUMNS - 12 - width : COLUMNS - 12] = 220


def _sector_region() -> Dataset:
    """How large a pixel is inside the sector (PS3.3 §C.8.5.5)."""
    region = Dataset()
    region.RegionSpatialFormat = 1  # 2D
    region.RegionDataType = 1  # tissue
    region.RegionFlags = 0
    region.RegionLocationMinX0 = 0
    region.RegionLocationMinY0 = APEX_ROW
    region.RegionLocationMaxX1 = COLUMNS - 1
    region.RegionLocationMaxY1 = ROWS - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX = region.PhysicalDeltaY = 1 / PIXELS_PER_CM
    region.ReferencePixelX0 = APEX_COLUMN
    region.ReferencePixelY0 = 0
    return region
