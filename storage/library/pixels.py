"""Whether two files show the same picture, whatever else their headers say."""

import io
import warnings

from pydicom import dcmread
from pydicom.dataset import FileDataset

_PIXEL_DATA = "PixelData"
_MEANING = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
)  # fmt: skip
"""What gives the bytes of Pixel Data their meaning, besides the transfer syntax. Source: PS3.3 §C.7.6.3, §C.7.9."""


def shows_the_same(left: bytes, right: bytes) -> bool:
    """Whether the Pixel Data of two P10 files is equal byte for byte and means the same; without any it never is."""
    one, other = _read(left), _read(right)
    if one is None or other is None or one.get(_PIXEL_DATA) is None or one.get(_PIXEL_DATA) != other.get(_PIXEL_DATA):
        return False
    return _syntax(one) == _syntax(other) and all(one.get(name) == other.get(name) for name in _MEANING)


def _read(data: bytes) -> FileDataset | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(data), force=True, specific_tags=[_PIXEL_DATA, *_MEANING])
            for name in (_PIXEL_DATA, *_MEANING):
                dataset.get(name)  # values are read when they are asked for
            return dataset
    except Exception:  # noqa: BLE001 -- pydicom raises what it likes at a broken file, which then is no twin
        return None


def _syntax(dataset: FileDataset) -> object:
    return dataset.file_meta.get("TransferSyntaxUID")
