"""The order of the instances of a series in its tar."""

from collections.abc import Iterable, Sequence

from storage.ingest.describe import Description

_ORIENTATION_TOLERANCE = 1e-3
"""Direction cosines further apart than this do not belong to one stack of parallel slices."""


def in_order(instances: Iterable[Description]) -> tuple[Description, ...]:
    """Along the slice normal if all lie in one stack of parallel slices, then by Instance Number, then by UID.

    Neighbours in space become neighbours in the tar, so that scrolling a series reads it from front to back.
    """
    by_uid = sorted(instances, key=lambda each: each.instance_uid)
    normal = _common_normal(by_uid)

    def key(each: Description) -> tuple[float, bool, int, str]:
        along = 0.0
        if normal is not None and each.position is not None:
            along = round(sum(n * p for n, p in zip(normal, each.position, strict=True)), 3)
        return along, each.instance_number is None, each.instance_number or 0, each.instance_uid

    return tuple(sorted(by_uid, key=key))


def _common_normal(instances: Sequence[Description]) -> tuple[float, float, float] | None:
    """The slice normal that all share; None if one lacks its geometry, or they are not parallel."""
    first = instances[0].orientation if instances else None
    if first is None:
        return None
    for each in instances:
        if each.position is None or each.orientation is None:
            return None
        if any(abs(a - b) > _ORIENTATION_TOLERANCE for a, b in zip(first, each.orientation, strict=True)):
            return None
    x1, y1, z1, x2, y2, z2 = first
    return y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
