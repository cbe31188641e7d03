"""Compares DICOM JSON with what pydicom reads and writes for the same file, attribute by attribute.

The differences below are deliberate; everything else must be equal:

- IS and DS are compared as numbers; what pydicom refuses (`1A`, an overflow) is the stored text.
- NaN and infinities are strings. 64-bit integers beyond 2^53 are strings.
- Empty values among others are null, where pydicom has `""` or `{}`; attributes with nothing but padding have no Value.
- Trailing padding of every single value is trimmed, pydicom trims that of the whole for some VRs; likewise leading
  blanks of AE, CS and UI.
- Pixel data are always bulk data, palettes never are (up to a size).
- Big-endian bytes are swapped; pydicom shows them as stored. UN stays UN in a big-endian data set.
- AT of a length that is no multiple of four is UN, pydicom cuts it.
- (0008,0005) is ISO_IR 192 unless it names the default repertoire.
"""

import base64
import json
import math
import warnings
from array import array
from typing import Any  # DICOM JSON is a tree of anything

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

BASE = "http://localhost/studies/1.2/bulkdata"
THRESHOLD = 1024
WORD_TYPES = {"OW": "H", "OL": "I", "OF": "I", "OD": "Q", "OV": "Q"}
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
PALETTE_TAGS = (0x00281201, 0x00281202, 0x00281203, 0x00281204, 0x00281221, 0x00281222, 0x00281223)


def differences(ours: dict[str, Any], data_set: Dataset, *, little_endian: bool, path: str = "") -> list[str]:
    """What is not as pydicom has it, as lines to read."""
    found: list[str] = []
    tags = {f"{tag:08X}" for tag in list(data_set.keys()) if tag.element != 0 and tag.group != 2 and tag != 0xFFFCFFFC}
    if list(ours) != sorted(tags):
        found.append(f"{path}: keys {sorted(tags ^ set(ours)) or 'not sorted'}")
    stored_vrs = {int(tag): data_set.get_item(tag).VR for tag in list(data_set.keys())}
    for key in sorted(tags & set(ours)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pydicom, on values that are odd on purpose
            if stored_vrs[int(key, 16)] == "UN" and not little_endian:
                found += _unknown_differences(ours[key], data_set.get_item(int(key, 16)).value, f"{path}/{key}")
                continue
            found += _member_differences(ours[key], data_set, int(key, 16), little_endian, f"{path}/{key}")
    return found


def _member_differences(ours: dict[str, Any], data_set: Dataset, tag: int, little_endian: bool, path: str) -> list[str]:
    raw = data_set.get_item(tag)
    try:
        element = data_set[tag]
    except (ValueError, OverflowError, TypeError) as error:
        stored = raw.value.decode("latin_1").strip(" \0").split("\\")
        same = [str(value) for value in ours["Value"]] == [part.strip(" \0") for part in stored]
        return [] if same else [f"{path}: {ours} where pydicom refuses {raw.value!r}: {error}"]
    if element.VR == "SQ":
        return _sequence_differences(ours, element, little_endian, path)
    if not little_endian and element.is_empty and ours == {"vr": "UN"}:
        return []  # pydicom looks up the VR of an empty UN while it reads
    expected = _expected(element, little_endian, path)
    return [] if _same(ours, expected) else [f"{path}: {str(ours)[:300]} != {str(expected)[:300]}"]


def _unknown_differences(ours: dict[str, Any], stored: Any, path: str) -> list[str]:
    raw = stored.encode("latin_1") if isinstance(stored, str) else stored or b""  # text where pydicom has looked it up
    if len(raw) > THRESHOLD:
        same = ours == {"vr": "UN", "BulkDataURI": BASE + path}
    else:
        same = ours["vr"] == "UN" and base64.b64decode(ours.get("InlineBinary", "")).rstrip(b" \0") == raw.rstrip(
            b" \0"
        )
    return [] if same else [f"{path}: {str(ours)[:300]} != UN {raw[:200]!r}"]


def _sequence_differences(ours: dict[str, Any], element: DataElement, little_endian: bool, path: str) -> list[str]:
    items = ours.get("Value", [])
    if ours["vr"] != "SQ" or len(items) != len(element.value) or ours.get("Value") == []:
        return [f"{path}: {len(items)} items of {ours['vr']}, not {len(element.value)}"]
    return [
        line
        for number, (item, data_set) in enumerate(zip(items, element.value, strict=True), 1)
        for line in differences(item, data_set, little_endian=little_endian, path=f"{path}/{number}")
    ]


def _expected(element: DataElement, little_endian: bool, path: str) -> dict[str, Any]:
    vr = {"US or SS": "US", "OB or OW": "OW", "US or SS or OW": "OW"}.get(element.VR, element.VR)
    expected: dict[str, Any] = {"vr": vr}
    value = element.value
    if element.tag == 0x00080005 and value not in ("", None, "ISO_IR 6", "ISO 2022 IR 6"):
        return {"vr": "CS", "Value": ["ISO_IR 192"]}
    if vr in (*WORD_TYPES, "OB", "UN") or isinstance(value, bytes):
        if not value:
            return expected
        is_palette = element.tag in PALETTE_TAGS
        if element.tag in PIXEL_TAGS or (len(value) > THRESHOLD and not is_palette):
            return expected | {"BulkDataURI": BASE + path}
        if not little_endian and vr in WORD_TYPES:
            words = array(WORD_TYPES[vr], value)
            words.byteswap()
            value = words.tobytes()
        return expected | {"InlineBinary": base64.b64encode(value).decode()}
    if element.is_empty:
        return expected
    values = [_expected_value(vr, one) for one in (value if element.VM > 1 else [value])]
    return expected if values == [None] else expected | {"Value": values}


def _expected_value(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if vr == "PN":
        names = zip(("Alphabetic", "Ideographic", "Phonetic"), value.components, strict=False)
        return {key: text.rstrip(" \0") for key, text in names if text.rstrip(" \0")} or None
    if vr == "AT":
        return f"{value:08X}"
    if isinstance(value, str) and vr in ("IS", "DS"):
        return value.strip(" \0")
    if vr in ("IS", "DS"):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    return (value.strip(" \0") if vr in ("AE", "CS", "UI") else value.rstrip(" \0")) or None


def _same(ours: dict[str, Any], expected: dict[str, Any]) -> bool:
    if ours == expected:
        return True
    return ours["vr"] in ("IS", "DS") and _as_numbers(ours) == expected


def _as_numbers(ours: dict[str, Any]) -> dict[str, Any]:
    """IS and DS: equal as numbers is enough here, their text has tests of its own."""
    return {
        key: [value if value is None or isinstance(value, str) else float(value) for value in values]
        if key == "Value"
        else values
        for key, values in ours.items()
    }


def refuse_constant(name: str) -> None:
    """For `json.loads(parse_constant=…)`: the tokens that are no JSON."""
    raise ValueError(f"{name} is no JSON")


def load(text: bytes) -> dict[str, Any]:
    """Parse as a strict client does: no NaN token, no key twice, UTF-8."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), "a key occurs twice"
        return dict(pairs)

    loaded: dict[str, Any] = json.loads(text.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=members)
    return loaded


def read(path: Any) -> Dataset:
    """The data set as pydicom reads it, whatever is wrong with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True)
