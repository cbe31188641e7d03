"""The slide: VL Whole Slide Microscopy (PS3.3 §A.32.8), tiled fully, in three resolutions, each tile a JPEG."""

from collections.abc import Iterator

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from app.demo.codes import code
from app.demo.identity import SM_SLIDE, demo_uid, new_instance
from app.demo.tissue import Picture, tissue

SIDE = 4096
"""Columns and rows of the finest level."""
TILE = 256
MM_PER_PIXEL = 0.0005
SHRINK = 4
LEVELS = 3
JPEG_QUALITY = 82


def slide() -> Iterator[Dataset]:
    """The levels from fine to coarse: 256 tiles, 16 tiles, one tile."""
    picture = tissue(SIDE, seed=51)
    for level in range(LEVELS):
        if level > 0:
            picture = _shrink(picture)
        yield _level(picture, level)


def tiles_of(picture: Picture) -> Iterator[Picture]:
    """The tiles from left to right, then from top to bottom: the order that TILED_FULL implies (PS3.3 §C.7.6.17.3)."""
    for top in range(0, len(picture), TILE):
        for left in range(0, len(picture), TILE):
            yield np.ascontiguousarray(picture[top : top + TILE, left : left + TILE])


def _shrink(picture: Picture) -> Picture:
    """The mean of each block of SHRINK by SHRINK pixels."""
    side = len(picture) // SHRINK
    total = np.full((side, side, 3), SHRINK * SHRINK // 2, np.uint16)  # half, so that the division rounds
    for row in range(SHRINK):
        for column in range(SHRINK):
            total += picture[row::SHRINK, column::SHRINK]
    return (total // (SHRINK * SHRINK)).astype(np.uint8)


def _level(picture: Picture, level: int) -> Dataset:
    instance = new_instance(SM_SLIDE, VLWholeSlideMicroscopyImageStorage, level + 1, JPEGBaseline8Bit)
    instance.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level > 0 else "NONE"]
    instance.FrameOfReferenceUID = SM_SLIDE.study.frame_of_reference_uid
    instance.PositionReferenceIndicator = "SLIDE_CORNER"
    instance.AcquisitionDateTime = SM_SLIDE.study.date + SM_SLIDE.study.time
    instance.AcquisitionDuration = 60.0
    instance.VolumetricProperties = "VOLUME"
    instance.SpecimenLabelInImage = "NO"
    instance.BurnedInAnnotation = "NO"
    instance.FocusMethod = "AUTO"
    instance.ExtendedDepthOfField = "NO"
    _set_specimen(instance)
    _set_optical_path(instance)
    _set_total_matrix(instance, len(picture), MM_PER_PIXEL * SHRINK**level)
    _set_tiles(instance, picture)
    return instance


def _set_tiles(instance: Dataset, picture: Picture) -> None:
    frames = [
        bytes(imagecodecs.jpeg8_encode(tile, level=JPEG_QUALITY, subsampling="422")) for tile in tiles_of(picture)
    ]
    instance.NumberOfFrames = len(frames)
    instance.Rows = instance.Columns = TILE
    instance.SamplesPerPixel = 3
    instance.PhotometricInterpretation = "YBR_FULL_422"
    instance.PlanarConfiguration = 0
    instance.BitsAllocated = instance.BitsStored = 8
    instance.HighBit = 7
    instance.PixelRepresentation = 0
    instance.LossyImageCompression = "01"
    instance.LossyImageCompressionMethod = "ISO_10918_1"
    instance.LossyImageCompressionRatio = round(picture.nbytes / sum(map(len, frames)), 2)
    instance.PixelData = encapsulate(frames, has_bot=True)
    instance["PixelData"].VR = "OB"


def _set_total_matrix(instance: Dataset, side: int, mm_per_pixel: float) -> None:
    """The whole slide microscopy image module (PS3.3 §C.8.12.4): how the tiles lie on the glass."""
    instance.ImagedVolumeWidth = instance.ImagedVolumeHeight = side * mm_per_pixel
    instance.ImagedVolumeDepth = 0.001
    instance.TotalPixelMatrixColumns = instance.TotalPixelMatrixRows = side
    instance.TotalPixelMatrixFocalPlanes = 1
    instance.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = 20
    origin.YOffsetInSlideCoordinateSystem = 40
    instance.TotalPixelMatrixOriginSequence = [origin]
    instance.DimensionOrganizationType = "TILED_FULL"
    organisation = Dataset()
    organisation.DimensionOrganizationUID = demo_uid("dimension organization", SM_SLIDE.study.name)
    instance.DimensionOrganizationSequence = [organisation]
    measures = Dataset()
    measures.PixelSpacing = [mm_per_pixel, mm_per_pixel]
    measures.SliceThickness = 0.001
    frame_type = Dataset()
    frame_type.FrameType = list(instance.ImageType)
    identification = Dataset()
    identification.OpticalPathIdentifier = "1"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    shared.OpticalPathIdentificationSequence = [identification]
    instance.SharedFunctionalGroupsSequence = [shared]


def _set_optical_path(instance: Dataset) -> None:
    """Bright field in white light (PS3.3 §C.8.12.5)."""
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.OpticalPathDescription = "Bright field"
    path.IlluminationTypeCodeSequence = [code("111744", "DCM", "Brightfield illumination")]
    path.IlluminationColorCodeSequence = [code("414298005", "SCT", "Full Spectrum")]
    path.ObjectiveLensPower = 20
    path.ICCProfile = imagecodecs.cms_profile("srgb")
    instance.OpticalPathSequence = [path]
    instance.NumberOfOpticalPaths = 1


def _set_specimen(instance: Dataset) -> None:
    """The specimen module (PS3.3 §C.7.6.22): one section on one slide."""
    instance.ContainerIdentifier = "DEMO-SLIDE-1"
    instance.IssuerOfTheContainerIdentifierSequence = []
    instance.ContainerTypeCodeSequence = [code("433466003", "SCT", "Microscope slide")]
    specimen = Dataset()
    specimen.SpecimenIdentifier = "DEMO-SPECIMEN-1"
    specimen.SpecimenUID = demo_uid("specimen", SM_SLIDE.study.name)
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    instance.SpecimenDescriptionSequence = [specimen]
    instance.AcquisitionContextSequence = []
