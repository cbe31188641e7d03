"""Stored DICOM JSON of one instance → DICOM JSON as PS3.18 Annex F wants it: the quick road, without touching the tar.

The published writer stores what pydicom makes: unsorted, with group 0002 and group lengths, `BulkDataURI` objects that
name a bucket and quote the value, empty arrays, original character sets, NaN tokens. All of that is mended here.

What the writer dropped (values that pydicom finds invalid) cannot be seen from here, except where the SOP class
requires it: see `lacks_required`. Faithful metadata comes from the P10 itself.
Sources: PS3.18 §F.2 (DICOM JSON Model), §10.4.1.1.2 (metadata: no group 0002).
"""

from collections.abc import Collection, Mapping

import msgspec

from storage.cod.data_set import NOTHING, Place, finished_data_set, only_text
from storage.cod.json_text import strict_json
from storage.cod.values import Malformed, MapUid
from storage.errors import InstanceUnreadable

TRANSFER_SYNTAX_UID = "00020010"
SOP_CLASS_UID = 0x00080016
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009

_IMAGE_PLANE = (0x00200032, 0x00200037, 0x00280030)
"""ImagePositionPatient, ImageOrientationPatient, PixelSpacing."""
_ANY_PIXELS = (0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100)
"""SamplesPerPixel, PhotometricInterpretation, Rows, Columns, BitsAllocated."""
_INTEGER_PIXELS = (0x00280101, 0x00280103)
"""BitsStored, PixelRepresentation."""
_IN_IMAGE_PLANE = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image
        "1.2.840.10008.5.1.4.1.1.128",  # Positron Emission Tomography Image
    }
)

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Normalised(msgspec.Struct, frozen=True, gc=False):
    """One instance's attributes, ready to send."""

    json: bytes
    """One object of PS3.18 Annex F in UTF-8: sorted, without group 0002."""
    transfer_syntax_uid: str | None
    """(0002,0010), which the object itself may not hold."""
    kept: dict[int, bytes]
    """The attributes of `storage.levels.KEPT_TAGS` that are present, each as finished JSON."""
    lacks: tuple[int, ...]
    """Outcome of `lacks_required`: not empty means that the P10 itself must be read."""


def normalise(
    stored: bytes, *, bulkdata_base: str, extra: Mapping[int, bytes] = NOTHING, map_uid: MapUid | None = None
) -> Normalised:
    """Make the stored JSON of one instance a DICOM JSON Model object.

    Args:
        stored: from `Entry.attributes_json`.
        bulkdata_base: what links of bulk data begin with; `/7FE00010`, or `/00400275/1/00091010` for an attribute of
            the first item of a sequence, follows. What the store says of their place is never sent.
        extra: finished JSON of attributes to add, or to put in the place of stored ones.
        map_uid: applied to every value of VR UI at any depth; values of VR UN, which may hold UIDs, become links.

    Raises:
        InstanceUnreadable: no JSON, or not the shape of a data set.
    """
    try:
        members = _members(stored)
        data_set = finished_data_set(members, Place(bulkdata_base, map_uid), extra)
    except Malformed as error:
        raise InstanceUnreadable(f"{bulkdata_base}: stored JSON: {error}") from error
    except RecursionError:
        raise InstanceUnreadable(f"{bulkdata_base}: stored JSON: nested too deeply") from None
    return Normalised(
        json=data_set.json,
        transfer_syntax_uid=only_text(members.get(TRANSFER_SYNTAX_UID)),
        kept=data_set.kept,
        lacks=lacks_required(data_set.present, only_text(data_set.kept.get(SOP_CLASS_UID))),
    )


def lacks_required(present: Collection[int], sop_class_uid: str | None) -> tuple[int, ...]:
    """Attributes that the SOP class requires and that are not among those `present`, ascending.

    The published writer drops values it finds invalid, ImagePositionPatient with 17 characters for one, and nothing in
    metadata.json tells. An image that lacks these cannot be shown, so its header has to be read from the tar.

    Source: PS3.3 §C.7.6.2 (Image Plane), §C.7.6.3 (Image Pixel), §C.7.6.24, §C.7.6.25 (Floating Point Image Pixel).
    """
    required: tuple[int, ...] = ()
    if sop_class_uid in _IN_IMAGE_PLANE:
        required = _IMAGE_PLANE + _ANY_PIXELS + _INTEGER_PIXELS
    elif PIXEL_DATA in present:
        required = _ANY_PIXELS + _INTEGER_PIXELS
    elif FLOAT_PIXEL_DATA in present or DOUBLE_FLOAT_PIXEL_DATA in present:
        required = _ANY_PIXELS
    return tuple(sorted(tag for tag in required if tag not in present))


def _members(stored: bytes) -> dict[str, msgspec.Raw]:
    """The members of the data set; what is no strict JSON is mended once and tried again."""
    try:
        if not stored.isascii():
            stored.decode()
        try:
            return _MEMBERS.decode(stored)
        except msgspec.DecodeError:
            return _MEMBERS.decode(strict_json(stored))
    except (ValueError, RecursionError):  # msgspec's and Unicode's are ValueErrors, and may quote values: not chained
        raise Malformed("no object that can be read") from None
