"""The Range header of a request: one byte range of a single-part answer (RFC 9110 §14)."""

import re

from app.errors import RangeNotSatisfiable
from storage.ranges import ByteRange

_SINGLE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.ASCII)


def requested_range(header: str | None, length: int) -> ByteRange | None:
    """The range to send of a representation of `length` bytes; None: send it whole.

    HTTP's inclusive end becomes a half-open one here. Several ranges, other units and malformed ones are ignored, as
    RFC 9110 §14.2 allows.

    Raises:
        RangeNotSatisfiable: (416) nothing of the representation lies in the range.
    """
    match = _SINGLE.fullmatch(header) if header is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        suffix = int(match[2])
        if suffix == 0:
            raise RangeNotSatisfiable(length)
        return ByteRange(max(0, length - suffix), length)
    start = int(match[1])
    stop = min(length, int(match[2]) + 1) if match[2] else length
    if match[2] and int(match[2]) < start:
        return None
    if start >= length:
        raise RangeNotSatisfiable(length)
    return ByteRange(start, stop)
