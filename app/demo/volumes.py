"""CT and MR of the phantom: series of single frames (PS3.3 §A.3, §A.4) and one enhanced multi-frame MR (§A.36)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, MRImageStorage

from app.demo.identity import CT_HEAD, MR_ENHANCED, MR_T1, MR_T2, DemoSeries, demo_uid, new_instance
from app.demo.noise import Floats
from app.demo.phantom import LESION_CENTRE, Grid, Tissue, head, smooth_noise

HOUNSFIELD = {
    Tissue.AIR: -1000, Tissue.SKIN: 30, Tissue.FAT: -90, Tissue.MUSCLE: 52, Tissue.BONE: 1100, Tissue.MARROW: 420,
    Tissue.CSF: 8, Tissue.GREY: 39, Tissue.WHITE: 29, Tissue.EYE: 12, Tissue.LENS: 80, Tissue.LESION: 70,
    Tissue.LESION_RIM: 62, Tissue.OEDEMA: 19, Tissue.CALCIUM: 320,
}  # fmt: skip
T1_SIGNAL = {
    Tissue.AIR: 2, Tissue.SKIN: 420, Tissue.FAT: 880, Tissue.MUSCLE: 330, Tissue.BONE: 40, Tissue.MARROW: 480,
    Tissue.CSF: 130, Tissue.GREY: 400, Tissue.WHITE: 580, Tissue.EYE: 120, Tissue.LENS: 300, Tissue.LESION: 300,
    Tissue.LESION_RIM: 840, Tissue.OEDEMA: 350, Tissue.CALCIUM: 60,
}  # fmt: skip
T2_SIGNAL = {
    Tissue.AIR: 2, Tissue.SKIN: 300, Tissue.FAT: 520, Tissue.MUSCLE: 200, Tissue.BONE: 30, Tissue.MARROW: 300,
    Tissue.CSF: 960, Tissue.GREY: 480, Tissue.WHITE: 330, Tissue.EYE: 980, Tissue.LENS: 160, Tissue.LESION: 700,
    Tissue.LESION_RIM: 420, Tissue.OEDEMA: 720, Tissue.CALCIUM: 40,
}  # fmt: skip

RESCALE_INTERCEPT = -1024
CT_SLICES = 72
CT_SLICE_MM = 2.0
CT_GRID = Grid.centred(counts=(256, 256, CT_SLICES), steps_mm=(0.9, 0.9, CT_SLICE_MM), z_middle=5.0)
MR_SLICES = 64
T1_SLICE_MM = 2.2
T2_SLICE_MM = 2.25
ENHANCED_FRAMES = 40
ENHANCED_SLICE_MM = 3.5

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


def ct_head() -> Iterator[Dataset]:
    """The head as CT, from below to above: stored values are Hounsfield units + 1024."""
    values = _soften(_map_tissues(CT_GRID, HOUNSFIELD)) + 8.0 * _white_noise(CT_GRID, seed=11)
    values = np.maximum(values, _head_rest(CT_GRID))
    stored = np.clip(np.rint(values) - RESCALE_INTERCEPT, 0, 4095).astype("<u2")
    for index in range(CT_SLICES):
        z = float(CT_GRID.z[index])
        instance = new_instance(CT_HEAD, CTImageStorage, index + 1)
        instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        instance.KVP = 120
        instance.SliceLocation = f"{z:.4f}"
        _set_plane(instance, CT_HEAD, AXIAL, [float(CT_GRID.x[0]), float(CT_GRID.y[0]), z], 0.9, CT_SLICE_MM)
        _set_pixels(instance, stored[index], window=(40, 100))
        instance.RescaleIntercept = RESCALE_INTERCEPT
        instance.RescaleSlope = 1
        instance.RescaleType = "HU"
        yield instance


def ct_slice_of_lesion() -> int:
    """InstanceNumber of the CT slice through the middle of the lesion."""
    return int(np.abs(CT_GRID.z - LESION_CENTRE[2]).argmin()) + 1


def mr_t1() -> Iterator[Dataset]:
    """The head as a T1-weighted volume in sagittal slices, from right to left."""
    grid = Grid.centred(counts=(MR_SLICES, 256, 256), steps_mm=(T1_SLICE_MM, 0.9, 0.9), z_middle=-12.0)
    stored = _magnitude(_map_tissues(grid, T1_SIGNAL), grid, seed=21)
    for index in range(MR_SLICES):
        x = float(grid.x[index])
        instance = _new_mr(MR_T1, index + 1, sequence="GR", repetition_ms=9.4, echo_ms=4.6)
        instance.InversionTime = 900
        instance.SliceLocation = f"{x:.4f}"
        _set_plane(instance, MR_T1, SAGITTAL, [x, float(grid.y[0]), float(grid.z[-1])], 0.9, T1_SLICE_MM)
        _set_pixels(instance, stored[::-1, :, index], window=(450, 900))
        yield instance


def mr_t2() -> Iterator[Dataset]:
    """The head as T2-weighted axial slices, in the frame of reference of the T1 volume."""
    grid = Grid.centred(counts=(256, 256, MR_SLICES), steps_mm=(0.9, 0.9, T2_SLICE_MM), z_middle=5.0)
    stored = _magnitude(_map_tissues(grid, T2_SIGNAL), grid, seed=22)
    for index in range(MR_SLICES):
        z = float(grid.z[index])
        instance = _new_mr(MR_T2, index + 1, sequence="SE", repetition_ms=4200.0, echo_ms=98.0)
        instance.SliceLocation = f"{z:.4f}"
        _set_plane(instance, MR_T2, AXIAL, [float(grid.x[0]), float(grid.y[0]), z], 0.9, T2_SLICE_MM)
        _set_pixels(instance, stored[index], window=(500, 1000))
        yield instance


def mr_enhanced() -> Iterator[Dataset]:
    """A coarse T2-weighted volume as one enhanced multi-frame object: its geometry is in the functional groups."""
    pixel_mm = 1.8
    grid = Grid.centred(
        counts=(128, 128, ENHANCED_FRAMES), steps_mm=(pixel_mm, pixel_mm, ENHANCED_SLICE_MM), z_middle=5.0
    )
    stored = _magnitude(_map_tissues(grid, T2_SIGNAL), grid, seed=23)
    instance = new_instance(MR_ENHANCED, EnhancedMRImageStorage, 1)
    instance.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    instance.FrameOfReferenceUID = MR_ENHANCED.study.frame_of_reference_uid
    instance.PositionReferenceIndicator = None
    instance.BodyPartExamined = MR_ENHANCED.body_part
    instance.PatientPosition = "HFS"
    instance.AcquisitionDateTime = MR_ENHANCED.study.date + MR_ENHANCED.study.time
    instance.MagneticFieldStrength = 3
    instance.ResonantNucleus = "1H"
    instance.PixelPresentation = "MONOCHROME"
    instance.VolumetricProperties = "VOLUME"
    instance.VolumeBasedCalculationTechnique = "NONE"
    instance.ComplexImageComponent = "MAGNITUDE"
    instance.AcquisitionContrast = "T2"
    instance.ContentQualification = "RESEARCH"
    instance.BurnedInAnnotation = "NO"
    instance.LossyImageCompression = "00"
    instance.PresentationLUTShape = "IDENTITY"
    instance.NumberOfFrames = ENHANCED_FRAMES
    _set_dimensions(instance)
    instance.SharedFunctionalGroupsSequence = [_shared_groups(pixel_mm)]
    instance.PerFrameFunctionalGroupsSequence = [
        _frame_groups(index + 1, [float(grid.x[0]), float(grid.y[0]), float(grid.z[index])])
        for index in range(ENHANCED_FRAMES)
    ]
    _set_pixels(instance, stored, window=None)
    yield instance


def _map_tissues(grid: Grid, table: dict[Tissue, int]) -> Floats:
    values = np.array([table[tissue] for tissue in Tissue], np.float32)
    return values[head(grid)]


def _soften(volume: Floats) -> Floats:
    """Blur within the slice by one pixel, as a scanner does, so that borders between tissues are not stairs."""
    padded = np.pad(volume, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    result: Floats = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return result


def _white_noise(grid: Grid, *, seed: int) -> Floats:
    return _soften(np.random.default_rng(seed).standard_normal(grid.shape, dtype=np.float32))


def _head_rest(grid: Grid) -> Floats:
    """The shell of carbon under the head, in Hounsfield units; far below air elsewhere."""
    radius = np.sqrt((grid.x[None, :] / 100) ** 2 + ((grid.y[:, None] - 2) / 105) ** 2)
    shell = (radius > 1) & (radius < 1.03) & (grid.y[:, None] > 62)
    result: Floats = np.where(shell, np.float32(-350), np.float32(-2000))[None]
    return result


def _magnitude(signal: Floats, grid: Grid, *, seed: int) -> NDArray[np.uint16]:
    """What an MR coil would show of a signal: uneven sensitivity, and noise whose magnitude is taken."""
    sensitivity = 1 + 0.12 * smooth_noise(grid, 70.0, seed=seed)
    real = _soften(signal) * sensitivity + 26 * _white_noise(grid, seed=seed)
    imaginary = 26 * _white_noise(grid, seed=seed + 100)
    return np.clip(np.rint(np.hypot(real, imaginary)), 0, 4095).astype("<u2")


def _new_mr(
    series: DemoSeries, instance_number: int, *, sequence: str, repetition_ms: float, echo_ms: float
) -> Dataset:
    instance = new_instance(series, MRImageStorage, instance_number)
    instance.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    instance.ScanningSequence = sequence
    instance.SequenceVariant = "SK"
    instance.ScanOptions = None
    instance.MRAcquisitionType = "3D" if sequence == "GR" else "2D"
    instance.RepetitionTime = repetition_ms
    instance.EchoTime = echo_ms
    instance.EchoTrainLength = 1
    instance.MagneticFieldStrength = 3
    return instance


def _set_plane(
    instance: Dataset,
    series: DemoSeries,
    orientation: list[float],
    position: list[float],
    pixel_mm: float,
    slice_mm: float,
) -> None:
    """The image plane and frame of reference modules (PS3.3 §C.7.6.2, §C.7.4.1)."""
    instance.FrameOfReferenceUID = series.study.frame_of_reference_uid
    instance.PositionReferenceIndicator = None
    instance.BodyPartExamined = series.body_part
    instance.PatientPosition = "HFS"
    instance.ImageOrientationPatient = orientation
    instance.ImagePositionPatient = _decimals(position)
    instance.PixelSpacing = [pixel_mm, pixel_mm]
    instance.SliceThickness = slice_mm
    instance.SpacingBetweenSlices = slice_mm
    instance.AcquisitionNumber = 1


def _set_pixels(instance: Dataset, stored: NDArray[np.uint16], *, window: tuple[int, int] | None) -> None:
    """The image pixel module (PS3.3 §C.7.6.3) of 12 bits in 16, and the window to open with."""
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows, instance.Columns = stored.shape[-2:]
    instance.BitsAllocated = 16
    instance.BitsStored = 12
    instance.HighBit = 11
    instance.PixelRepresentation = 0
    if window is not None:
        instance.WindowCenter, instance.WindowWidth = window
    instance.PixelData = stored.tobytes()


def _set_dimensions(instance: Dataset) -> None:
    """One dimension: the position in the stack (PS3.3 §C.7.6.17)."""
    organisation_uid = demo_uid("dimension organization", MR_ENHANCED.study.name)
    organisation = Dataset()
    organisation.DimensionOrganizationUID = organisation_uid
    instance.DimensionOrganizationSequence = [organisation]
    position = Dataset()
    position.DimensionOrganizationUID = organisation_uid
    position.DimensionIndexPointer = 0x00209057  # InStackPositionNumber
    position.FunctionalGroupPointer = 0x00209111  # FrameContentSequence
    instance.DimensionIndexSequence = [position]
    instance.DimensionOrganizationType = "3D"


def _shared_groups(pixel_mm: float) -> Dataset:
    """What all frames have in common (PS3.3 §C.7.6.16.2)."""
    measures = Dataset()
    measures.PixelSpacing = [pixel_mm, pixel_mm]
    measures.SliceThickness = ENHANCED_SLICE_MM
    measures.SpacingBetweenSlices = ENHANCED_SLICE_MM
    orientation = Dataset()
    orientation.ImageOrientationPatient = AXIAL
    rescale = Dataset()
    rescale.RescaleIntercept = 0
    rescale.RescaleSlope = 1
    rescale.RescaleType = "US"
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 500, 1000
    frame_type = Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    frame_type.PixelPresentation = "MONOCHROME"
    frame_type.VolumetricProperties = "VOLUME"
    frame_type.VolumeBasedCalculationTechnique = "NONE"
    frame_type.ComplexImageComponent = "MAGNITUDE"
    frame_type.AcquisitionContrast = "T2"
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [orientation]
    groups.PixelValueTransformationSequence = [rescale]
    groups.FrameVOILUTSequence = [window]
    groups.MRImageFrameTypeSequence = [frame_type]
    return groups


def _frame_groups(frame_number: int, position: list[float]) -> Dataset:
    """What only one frame has: its place in the stack and in the patient."""
    content = Dataset()
    content.StackID = "1"
    content.InStackPositionNumber = frame_number
    content.DimensionIndexValues = [frame_number]
    content.FrameAcquisitionNumber = 1
    plane = Dataset()
    plane.ImagePositionPatient = _decimals(position)
    groups = Dataset()
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [plane]
    return groups


def _decimals(values: list[float]) -> list[str]:
    """Decimal strings of at most 16 characters (PS3.5 §6.2): the repr of a 32-bit value as a double is longer."""
    return [f"{value:.4f}" for value in values]
