"""A synthetic slide: one instance of many JPEG tiles, with a filled Basic Offset Table or with an empty one (PS3.5 §A.4).

Tiles are few pictures, each made different from all others by a comment in its JPEG stream: quick to make, and a wrong
tile is seen.
"""

import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import imagecodecs
import msgspec
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID, JPEGBaseline8Bit

from benchmarks.header import synthetic_uid

TILE_PIXELS = 256
PICTURES = 32
"""Different ones; a tile is one of them with a comment of its own."""
JPEG_QUALITY = 80
_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
_ITEM, _ITEMS_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_PIXEL_DATA = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"


class Slide(msgspec.Struct, frozen=True):
    """One series of one instance, and the SHA-256 of each tile as it is sent."""

    study_uid: str
    series_uid: str
    uid: str
    bytes: int
    sha256: str
    has_table: bool
    tiles: list[str]

    @property
    def path(self) -> str:
        """Below the service root."""
        return f"/studies/{self.study_uid}/series/{self.series_uid}"


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """A slide to be made: all its bytes depend on these values alone."""

    seed: int
    across: int
    """Tiles in each direction."""
    has_table: bool

    @property
    def study_uid(self) -> str:
        return synthetic_uid(self.seed, "slide")

    @property
    def series_uid(self) -> str:
        return synthetic_uid(self.seed, "slide", self.has_table)

    @property
    def uid(self) -> str:
        return synthetic_uid(self.seed, "slide", self.has_table, 0)


def make_slide(folder: Path, plan: SlidePlan) -> Slide:
    """Write its file into a folder of its own below `folder`."""
    place = folder / plan.series_uid
    place.mkdir()
    pictures = _pictures(plan.seed)
    tiles = [_commented(pictures[n % PICTURES], f"{plan.uid}/{n}") for n in range(plan.across**2)]
    offsets, position = [], 0
    for tile in tiles:
        offsets.append(position)
        position += 8 + len(tile)
    table = struct.pack(f"<{len(offsets)}I", *offsets) if plan.has_table else b""
    digest, count = sha256(), 0
    with (place / "slide.dcm").open("wb") as file:
        for piece in (_beginning(plan), _PIXEL_DATA, *map(_item, (table, *tiles)), _ITEMS_END):
            file.write(piece)
            digest.update(piece)
            count += len(piece)
    return Slide(
        plan.study_uid,
        plan.series_uid,
        plan.uid,
        count,
        digest.hexdigest(),
        plan.has_table,
        [sha256(tile).hexdigest() for tile in tiles],
    )


def _pictures(seed: int) -> list[bytes]:
    """JPEG streams of tissue-like pictures, about 14 kB each."""
    random = np.random.default_rng([seed, 77])
    y, x = np.mgrid[:TILE_PIXELS, :TILE_PIXELS].astype(np.float32)
    pictures = []
    for number in range(PICTURES):
        cells = np.sin(x / (7 + number % 5)) * np.sin(y / (9 + number % 7)) > 0.4
        base = np.where(cells[..., None], (120, 60, 140), (230, 190, 215)).astype(np.int16)
        noise = random.integers(-18, 18, (TILE_PIXELS, TILE_PIXELS, 1), dtype=np.int16)
        pictures.append(bytes(imagecodecs.jpeg8_encode(np.clip(base + noise, 0, 255).astype(np.uint8), JPEG_QUALITY)))
    return pictures


def _commented(picture: bytes, text: str) -> bytes:
    """The picture with a comment segment after its start (ITU-T T.81 §B.2.4.5), of even length."""
    comment = text.encode()
    stream = picture[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + picture[2:]
    return stream + b"\0" * (len(stream) % 2)


def _item(content: bytes) -> bytes:
    return _ITEM + struct.pack("<I", len(content)) + content


def _beginning(plan: SlidePlan) -> bytes:
    """Everything before Pixel Data."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASS)
    meta.MediaStorageSOPInstanceUID = UID(plan.uid)
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.ImplementationClassUID = UID(synthetic_uid("implementation"))
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, _header(plan))
    return bytes(128) + b"DICM" + buffer.getvalue()


def _header(plan: SlidePlan) -> Dataset:
    """A tiled full image (PS3.3 §C.7.6.17.3), as little of it as readers need."""
    header = Dataset()
    for keyword, value in {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        "SOPClassUID": _SOP_CLASS,
        "SOPInstanceUID": plan.uid,
        "StudyInstanceUID": plan.study_uid,
        "SeriesInstanceUID": plan.series_uid,
        "StudyDate": "20240102",
        "ContentDate": "20240102",
        "StudyTime": "101500",
        "ContentTime": "101500",
        "AcquisitionDateTime": "20240102101500",
        "AccessionNumber": "BNSLIDE",
        "Modality": "SM",
        "Manufacturer": "Synthetic Scanners",
        "PatientName": "Slide^Synthetic",
        "PatientID": "BENCH-slide",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "ReferringPhysicianName": "",
        "StudyID": "1",
        "SeriesNumber": 1 + plan.has_table,
        "InstanceNumber": 1,
        "FrameOfReferenceUID": synthetic_uid(plan.seed, "slide", "frame of reference"),
        "VolumetricProperties": "VOLUME",
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0],
        "ImagedVolumeWidth": 15.0,
        "ImagedVolumeHeight": 15.0,
        "ImagedVolumeDepth": 0.001,
        "TotalPixelMatrixColumns": plan.across * TILE_PIXELS,
        "TotalPixelMatrixRows": plan.across * TILE_PIXELS,
        "TotalPixelMatrixFocalPlanes": 1,
        "NumberOfOpticalPaths": 1,
        "DimensionOrganizationType": "TILED_FULL",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0,
        "NumberOfFrames": plan.across**2,
        "Rows": TILE_PIXELS,
        "Columns": TILE_PIXELS,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "14",
        "LossyImageCompressionMethod": "ISO_10918_1",
        "ContainerIdentifier": "SLIDE-1",
        "SpecimenLabelInImage": "NO",
    }.items():
        setattr(header, keyword, value)
    origin, measures, shared = Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20.0, 20.0
    measures.PixelSpacing, measures.SliceThickness = [0.0005, 0.0005], 0.001
    shared.PixelMeasuresSequence = Sequence([measures])
    path, light = Dataset(), Dataset()
    light.CodeValue, light.CodingSchemeDesignator, light.CodeMeaning = "111744", "DCM", "Brightfield illumination"
    path.OpticalPathIdentifier, path.IlluminationTypeCodeSequence = "1", Sequence([light])
    header.OpticalPathSequence = Sequence([path])
    header.TotalPixelMatrixOriginSequence = Sequence([origin])
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    return header
