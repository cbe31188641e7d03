"""A decoded frame as a picture that a screen can show: eight bits, grey or RGB, at full size.

The order is that of the standard: Modality LUT or rescaling, VOI LUT or window, then the inversion of MONOCHROME1.
Without a window the values of the frame itself are spread from black to white.

Source: PS3.3 §C.7.6.3.1.2 (photometric interpretation), §C.11.1 (Modality LUT), §C.11.2 (VOI LUT), §C.7.6.16.2.
"""

import warnings
from typing import Any, Final, TypeAlias  # numpy's dtype is a parameter nobody needs here

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, convert_color_space

from storage.errors import InstanceUnreadable
from storage.pixels.decode import Samples, signed_view
from storage.pixels.description import PixelDescription

Picture: TypeAlias = NDArray[np.uint8]
"""(rows, columns) or (rows, columns, 3)."""
_Values: TypeAlias = NDArray[Any]

_FRAME_GROUPS: Final = (
    ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept")),
    ("FrameVOILUTSequence", ("WindowCenter", "WindowWidth", "VOILUTFunction")),
)
"""Functional groups that tell of each frame, or of all, what other objects say at the top level."""


def render_frame(samples: Samples, description: PixelDescription, data_set: Dataset, frame_index: int) -> Picture:
    """Render one frame.

    Args:
        data_set: the header as pydicom reads it; its pixels are not needed.

    Raises:
        InstanceUnreadable: a photometric interpretation, palette or table that cannot be shown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom reads values, and complains of them, when they are asked for
            if description.samples == 3:
                return _color(samples, description)
            if description.photometric == "PALETTE COLOR":
                return _palette(samples, description, data_set)
            return _gray(_stored_values(samples, description), description, _of_frame(data_set, frame_index))
    except InstanceUnreadable:
        raise
    except Exception as error:
        raise InstanceUnreadable(f"a frame cannot be shown: {type(error).__name__}") from error


def _color(samples: Samples, description: PixelDescription) -> Picture:
    if description.bits_stored > 8:
        samples = samples >> (description.bits_stored - 8)
    picture = samples.astype(np.uint8)
    if description.photometric in ("RGB", "YBR_RCT", "YBR_ICT"):  # the codec undoes RCT and ICT
        return picture
    if description.photometric in ("YBR_FULL", "YBR_FULL_422"):  # and the subsampling of the latter
        return np.asarray(convert_color_space(picture, "YBR_FULL", "RGB"), np.uint8)
    raise InstanceUnreadable(f"colours of {description.photometric} are not shown")


def _palette(samples: Samples, description: PixelDescription, data_set: Dataset) -> Picture:
    colors = apply_color_lut(_stored_values(samples, description), data_set)[..., :3]
    return np.asarray(colors >> 8 if colors.dtype.itemsize == 2 else colors, np.uint8)


def _stored_values(samples: Samples, description: PixelDescription) -> _Values:
    """The values without what lies in the bits above Bits Stored: overlays of old."""
    gap = description.bits_allocated - description.high_bit - 1
    unused = description.bits_allocated - description.bits_stored
    if not 0 <= gap <= unused < description.bits_allocated:
        raise InstanceUnreadable(f"{description.bits_stored} bits up to bit {description.high_bit}")
    return signed_view(samples << gap, description) >> unused


def _of_frame(data_set: Dataset, frame_index: int) -> Dataset:
    """Rescaling and window of one frame: those of its functional groups, where there are such."""
    found = Dataset()
    for keyword in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "PixelRepresentation"):
        if keyword in data_set:
            found[keyword] = data_set[keyword]
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction", "BitsStored", "BitsAllocated"):
        if keyword in data_set:
            found[keyword] = data_set[keyword]
    shared = data_set.get("SharedFunctionalGroupsSequence") or []
    single = data_set.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *single[frame_index : frame_index + 1]):
        for sequence, keywords in _FRAME_GROUPS:
            for item in (groups.get(sequence) or [])[:1]:
                for keyword in keywords:
                    if keyword in item:
                        found[keyword] = item[keyword]
    return found


def _gray(values: _Values, description: PixelDescription, header: Dataset) -> Picture:
    values = apply_modality_lut(values, header)
    if header.get("VOILUTSequence"):
        descriptor = header.VOILUTSequence[0].LUTDescriptor
        white = (1 << int(descriptor[2])) - 1
        shown: _Values = apply_voi(values.astype(np.int32), header) * (255.0 / white)
    elif (window := _window(header)) is not None:
        shown = 255.0 * _windowed(values.astype(np.float32), *window, str(header.get("VOILUTFunction") or "LINEAR"))
    else:
        low, high = float(values.min()), float(values.max())
        shown = (values.astype(np.float32) - low) * (255.0 / ((high - low) or 1.0))
    picture = np.clip(np.rint(shown), 0, 255).astype(np.uint8)
    return 255 - picture if description.photometric == "MONOCHROME1" else picture


def _window(header: Dataset) -> tuple[float, float] | None:
    """Centre and width of the first window; None where there is none that means anything."""
    pair: list[float] = []
    for keyword in ("WindowCenter", "WindowWidth"):
        value = header.get(keyword)
        first = value[0] if isinstance(value, list) or hasattr(value, "append") else value
        if first is None or first == "":
            return None
        pair.append(float(first))
    center, width = pair
    return (center, width) if np.isfinite(center) and np.isfinite(width) and width > 0 else None


def _windowed(values: _Values, center: float, width: float, function: str) -> _Values:
    """From 0 (black) to 1. Source: PS3.3 §C.11.2.1.2 and §C.11.2.1.3."""
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -80.0, 80.0))))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width <= 1:
        return np.asarray(values > center - 0.5, np.float32)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)
