"""DICOM JSON objects as bytes: attributes by tag, each value finished already (PS3.18 Annex F)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

Attributes = dict[int, bytes]
"""`{"vr":…}` of each attribute, by tag."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def json_object(attributes: Mapping[int, bytes], only: frozenset[int] | None = None) -> bytes:
    """A DICOM JSON object from finished attribute values, keys ascending (PS3.18 §F.2.2).

    Args:
        only: leaves out every other attribute.
    """
    order, names = _names(tuple(attributes), only)
    if not order:
        return b"{}"
    pieces = [b""] * (2 * len(order))
    pieces[::2] = names
    pieces[1::2] = [attributes[tag] for tag in order]
    return b"".join(pieces) + b"}"


def parse_object(data: bytes) -> Attributes:
    """The reverse of `json_object`. Raises msgspec.DecodeError or ValueError for what is none."""
    return {int(tag, 16): bytes(raw) for tag, raw in _OBJECT.decode(data).items()}


def finished(vr: str, values: Sequence[str | int]) -> bytes:
    """A finished attribute value; without values it has only its VR."""
    body: dict[str, object] = {"vr": vr, "Value": list(values)} if values else {"vr": vr}
    return msgspec.json.encode(body)


def ui_value(uid: str) -> bytes:
    """A UI attribute of one value."""
    return b'{"vr":"UI","Value":[%b]}' % msgspec.json.encode(uid)


@lru_cache(maxsize=1024)
def _names(tags: tuple[int, ...], only: frozenset[int] | None) -> tuple[list[int], list[bytes]]:
    """The tags in order, and what stands before the value of each: most objects of a series have the same ones."""
    order = sorted(tags if only is None else only.intersection(tags))
    return order, [(b',"%08X":' if number else b'{"%08X":') % tag for number, tag in enumerate(order)]
