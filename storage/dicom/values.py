"""Value encoders: from the bytes of one value to the inside of `"Value": […]` of the DICOM JSON Model.

One encoder for each VR whose values JSON can show. An encoder answers `b""` for a value that is empty but for padding,
and None for a binary number of the wrong length: nobody knows what those bytes mean, so they are sent as UN.

- Text of numbers (DS, IS) stays the text that is stored wherever JSON's grammar allows, so `1.10` keeps its zero.
- What no JSON number can say (NaN, infinities, integers that JavaScript would round, `1A`) becomes a JSON string.
- Padding is dropped: trailing spaces and NULs of each value; leading spaces too where PS3.5 §6.2 calls them
  non-significant and pydicom drops them or compares without (AE, CS, UI, numbers).

Source: PS3.18 §F.2.2, §F.2.3 and Table F.2.3-1; PS3.5 §6.2 (VRs), §6.4 (value multiplicity).
"""

import math
import re
import struct
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

from storage.dicom.text import DEFAULT_CHARACTER_SET, CharacterSet
from storage.links import ROOT

Encoder = Callable[[bytes, CharacterSet], bytes | None]

MAX_SAFE_INTEGER = 2**53 - 1  # beyond it a JavaScript number is no longer exact (RFC 8259 §6)
MAX_NUMBER_CHARACTERS = 256  # a longer DS or IS is not a number anybody wrote; the limit keeps int() and float() cheap
BATCH_VALUES = 8192  # binary numbers turned into Python objects at once

_PAD = b" \0"
_PLAIN = bytes(sorted(set(range(0x20, 0x7F)) - set(b'"\\:')))  # without the colon: see `_stored_string`
_NULL = b"null"
_ROOT_LINK = ROOT.encode() + b"/"

_JSON_DECIMAL = rb"-?(?:0|[1-9][0-9]{0,99}+)(?:\.[0-9]++)?+"
_JSON_DECIMALS = re.compile(_JSON_DECIMAL + rb"(?:\\" + _JSON_DECIMAL + rb")*+")
_JSON_INTEGER = rb"-?(?:0|[1-9][0-9]{0,14}+)"
_JSON_INTEGERS = re.compile(_JSON_INTEGER + rb"(?:\\" + _JSON_INTEGER + rb")*+")
_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([eE][+-]?)([0-9]+))?", re.ASCII)

_encode_string = msgspec.json.Encoder().encode


def json_string(text: str) -> bytes:
    """A JSON string in UTF-8 with its quotes; control characters escaped, everything else as it is."""
    try:
        return _encode_string(text)
    except UnicodeEncodeError:  # a lone surrogate: our codecs make none, a caller's text might hold one
        return _encode_string(text.encode("utf-8", "replace").decode())


def _stored_string(text: str) -> bytes:
    """Text of a data set. What looks like one of our own links (`storage.links`) is written `codweb-root:\\/…`:
    JSON reads it as the same text, and the filling in of links passes it by.
    """
    return json_string(text).replace(_ROOT_LINK, _ROOT_LINK[:-1] + b"\\/")


@lru_cache(maxsize=8)
def _encoders(little_endian: bool) -> dict[str, Encoder]:
    table: dict[str, Encoder] = dict.fromkeys(("AE", "CS", "UI"), _codes)
    table |= dict.fromkeys(("AS", "DA", "DT", "TM"), _strings)
    table |= dict.fromkeys(("LO", "SH", "UC"), _texts)
    table |= dict.fromkeys(("LT", "ST", "UT"), _long_text)
    table |= {"UR": _locator, "PN": _person_names, "DS": _decimals, "IS": _integers}
    order = "<" if little_endian else ">"
    table |= {vr: _binary_integers(order, code) for vr, code in (("SS", "h"), ("US", "H"), ("SL", "i"), ("UL", "I"))}
    table |= {vr: _binary_integers(order, code) for vr, code in (("SV", "q"), ("UV", "Q"))}
    table |= {vr: _binary_floats(order, code) for vr, code in (("FL", "f"), ("FD", "d"))}
    table["AT"] = _attribute_tags(order)
    return table


def encoders(*, little_endian: bool, map_uid: Callable[[str], str] | None = None) -> dict[str, Encoder]:
    """The encoder of each VR but SQ and those of bytes (OB, OD, OF, OL, OV, OW, UN).

    Args:
        little_endian: byte order of the binary numbers.
        map_uid: applied to each value of VR UI that is not empty.
    """
    table = _encoders(little_endian)
    if map_uid is None:
        return table
    return {**table, "UI": _mapped_uids(map_uid)}


# --- strings ----------------------------------------------------------------------------------------------------------


def _codes(raw: bytes, _: CharacterSet) -> bytes:
    raw = raw.strip(_PAD)
    if not raw.translate(None, _PLAIN):
        return b'"%b"' % raw if raw else b""
    return b",".join([_string_or_null(part.strip(_PAD)) for part in raw.split(b"\\")])


def _strings(raw: bytes, _: CharacterSet) -> bytes:
    raw = raw.rstrip(_PAD)
    if not raw.translate(None, _PLAIN):
        return b'"%b"' % raw if raw else b""
    return b",".join([_string_or_null(part.rstrip(_PAD)) for part in raw.split(b"\\")])


def _string_or_null(part: bytes) -> bytes:
    if not part:
        return _NULL
    if part.translate(None, _PLAIN):
        return _stored_string(DEFAULT_CHARACTER_SET.decode(part))
    return b'"%b"' % part


def _texts(raw: bytes, characters: CharacterSet) -> bytes:
    raw = raw.rstrip(_PAD)
    odd = raw.translate(None, _PLAIN)
    if not odd:
        return b'"%b"' % raw if raw else b""
    if not odd.strip(b"\\"):
        return b",".join([_string_or_null(part.rstrip(_PAD)) for part in raw.split(b"\\")])
    parts = [part.rstrip(" \0") for part in characters.decode(raw).split("\\")]
    return b"" if parts == [""] else b",".join([_stored_string(part) if part else _NULL for part in parts])


def _long_text(raw: bytes, characters: CharacterSet) -> bytes:
    raw = raw.rstrip(_PAD)
    if not raw.translate(None, _PLAIN):
        return b'"%b"' % raw if raw else b""
    text = characters.decode(raw).rstrip(" \0")
    return _stored_string(text) if text else b""


def _locator(raw: bytes, _: CharacterSet) -> bytes:
    raw = raw.rstrip(_PAD)
    return _stored_string(DEFAULT_CHARACTER_SET.decode(raw)) if raw else b""


def _mapped_uids(map_uid: Callable[[str], str]) -> Encoder:
    def encode(raw: bytes, _: CharacterSet) -> bytes:
        raw = raw.strip(_PAD)
        if not raw:
            return b""
        parts = [part.strip(_PAD).decode("latin_1") for part in raw.split(b"\\")]
        return b",".join([json_string(map_uid(part)) if part else _NULL for part in parts])

    return encode


def _person_names(raw: bytes, characters: CharacterSet) -> bytes:
    """PS3.18 §F.2.2: an object of the component groups that are not empty."""
    raw = raw.rstrip(_PAD)
    if not raw:
        return b""
    if not raw.translate(None, _PLAIN) and b"=" not in raw:
        return b'{"Alphabetic":"%b"}' % raw
    names = [_person_name(name) for name in characters.decode(raw).split("\\")]
    return b"" if names == [_NULL] else b",".join(names)


def _person_name(name: str) -> bytes:
    groups = [group.rstrip(" \0") for group in name.split("=")]
    keys = (b'"Alphabetic":', b'"Ideographic":', b'"Phonetic":')
    members = [key + _stored_string(group) for key, group in zip(keys, groups, strict=False) if group]
    return b"{%b}" % b",".join(members) if members else _NULL


# --- numbers as text --------------------------------------------------------------------------------------------------


def _decimals(raw: bytes, _: CharacterSet) -> bytes:
    raw = raw.strip(_PAD)
    if _JSON_DECIMALS.fullmatch(raw):
        return raw.replace(b"\\", b",")
    if not raw:
        return b""
    return b",".join([_decimal(part.strip()) for part in raw.decode("latin_1").replace("\0", " ").split("\\")])


def _decimal(text: str) -> bytes:
    if not text:
        return _NULL
    return _json_number(text) or _stored_string(text)


def _integers(raw: bytes, _: CharacterSet) -> bytes:
    raw = raw.strip(_PAD)
    if _JSON_INTEGERS.fullmatch(raw):
        return raw.replace(b"\\", b",")
    if not raw:
        return b""
    return b",".join([_integer(part.strip()) for part in raw.decode("latin_1").replace("\0", " ").split("\\")])


def _integer(text: str) -> bytes:
    """An IS, of which real files also make `007`, `+5`, `1.0` and `1.5`."""
    if not text:
        return _NULL
    number = _json_number(text)
    if number is None:
        return _stored_string(text)
    whole, _, fraction = number.partition(b".")
    if b"e" in number.lower():
        value = float(number)
        if not (value.is_integer() and abs(value) <= MAX_SAFE_INTEGER):
            return _stored_string(text)
        return b"%d" % int(value)
    if abs(int(whole)) > MAX_SAFE_INTEGER:
        return _stored_string(text)
    return number if fraction.strip(b"0") else whole


def _json_number(text: str) -> bytes | None:
    """The same number by JSON's grammar, digit for digit; None if there is none, or none that is finite."""
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARACTERS else None
    if match is None or not (match[2] or match[3]):
        return None
    sign = "-" if match[1] == "-" else ""
    fraction = f".{match[3]}" if match[3] else ""
    exponent = f"{match[4]}{match[5]}" if match[5] else ""
    number = f"{sign}{match[2].lstrip('0') or '0'}{fraction}{exponent}"
    return number.encode() if math.isfinite(float(number)) else None


# --- binary numbers ---------------------------------------------------------------------------------------------------


def _binary_integers(order: str, code: str) -> Encoder:
    single = struct.Struct(order + code)
    size = single.size
    text = str if size < 8 else _safe_integer

    def encode(raw: bytes, _: CharacterSet) -> bytes | None:
        if len(raw) == size:
            return text(single.unpack(raw)[0]).encode()
        if len(raw) % size:
            return None
        return ",".join([",".join(map(text, batch)) for batch in _batches(raw, order, code)]).encode()

    return encode


def _safe_integer(value: int) -> str:
    return str(value) if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else f'"{value}"'


def _binary_floats(order: str, code: str) -> Encoder:
    size = struct.calcsize(order + code)

    def encode(raw: bytes, _: CharacterSet) -> bytes | None:
        if len(raw) % size:
            return None
        return ",".join([",".join(map(_float, batch)) for batch in _batches(raw, order, code)]).encode()

    return encode


def _float(value: float) -> str:
    """PS3.18 §F.2.3 Note: JSON has no NaN and no infinities; they are sent by name, as strings."""
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return '"NaN"'
    return '"Infinity"' if value > 0 else '"-Infinity"'


def _attribute_tags(order: str) -> Encoder:
    pair = struct.Struct(order + "HH")

    def encode(raw: bytes, _: CharacterSet) -> bytes | None:
        if len(raw) % pair.size:
            return None
        return b",".join([b'"%04X%04X"' % tag for tag in pair.iter_unpack(raw)])

    return encode


def _batches(raw: bytes, order: str, code: str) -> Iterator[tuple[Any, ...]]:  # Any: struct gives int or float by code
    """All numbers of `raw`, `BATCH_VALUES` at a time: a megabyte of bytes would be 30 of Python integers."""
    size = struct.calcsize(order + code)
    for start in range(0, len(raw), BATCH_VALUES * size):
        part = raw[start : start + BATCH_VALUES * size]
        yield struct.unpack(f"{order}{len(part) // size}{code}", part)


# --- bytes ------------------------------------------------------------------------------------------------------------

_WORD_TYPES = {
    "OW": "H",
    "OF": "I",
    "OL": "I",
    "OD": "Q",
    "OV": "Q",
}  # the unit in which bytes are swapped; OB, UN: none


def little_endian_bytes(raw: bytes, vr: str) -> bytes | None:
    """Bytes of a big-endian data set in the order that JSON and bulk data have (PS3.18 §F.2.7, §8.7.3).

    Returns:
        None if `raw` is no whole number of the words of `vr`.
    """
    word_type = _WORD_TYPES.get(vr)
    if word_type is None:
        return raw
    words = array(word_type)
    if len(raw) % words.itemsize:
        return None
    words.frombytes(raw)
    words.byteswap()
    return words.tobytes()
