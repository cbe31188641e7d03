"""Smooth noise: random values on a lattice, mixed by cubic B-splines along each axis.

The value at a place depends on the place alone, not on the grid it is asked for.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def lattice_size(length: float, cell: float) -> int:
    """How many lattice points an axis of `length` needs."""
    return int(length / cell) + 4  # a spline reaches one point before and two after


def spline_weights(positions: Floats, cell: float, count: int) -> Floats:
    """Weights of a uniform cubic B-spline: row i mixes the four of `count` lattice points round position i, from 0."""
    place = np.clip(positions / cell + 1, 1.0, count - 2.001)
    first = place.astype(np.int64)
    t = place - first
    weights = np.zeros((positions.size, count), np.float32)
    rows = np.arange(positions.size)
    weights[rows, first - 1] = (1 - t) ** 3 / 6
    weights[rows, first] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[rows, first + 1] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[rows, first + 2] = t**3 / 6
    return weights


def plane_noise(rows: Floats, columns: Floats, length: float, cell: float, *, seed: int) -> Floats:
    """Noise of deviation about 1 on a plane of `length` by `length`, at the crossings of rows and columns."""
    count = lattice_size(length, cell)
    lattice = np.random.default_rng(seed).standard_normal((count, count), dtype=np.float32)
    weights = spline_weights(rows, cell, count)
    touched = weights.any(axis=0)  # few lattice rows matter to a strip of a large picture
    mixed = weights[:, touched] @ lattice[touched] @ spline_weights(columns, cell, count).T
    return (2 * mixed).astype(np.float32, copy=False)


def space_noise(z: Floats, y: Floats, x: Floats, length: float, cell: float, *, seed: int) -> Floats:
    """Noise of deviation about 0.5 in a cube of `length`, at the crossings of three axes, as `[z, y, x]`."""
    count = lattice_size(length, cell)
    lattice = np.random.default_rng(seed).standard_normal((count, count, count)).astype(np.float32)
    along_x = lattice @ spline_weights(x, cell, count).T
    along_y = np.einsum("zyx,Yy->zYx", along_x, spline_weights(y, cell, count), optimize=True)
    mixed = np.tensordot(spline_weights(z, cell, count), along_y, axes=(1, 0))
    return (1.7 * mixed).astype(np.float32, copy=False)
