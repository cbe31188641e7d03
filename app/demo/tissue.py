"""A stained section of tissue, as a picture: glands in connective tissue, with nuclei in blue and the rest in pink."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.demo.noise import Floats, plane_noise

Picture = NDArray[np.uint8]

GLASS, STROMA, EPITHELIUM, LUMEN = range(4)
COLOURS = np.array([(243, 242, 244), (229, 168, 200), (206, 146, 194), (240, 226, 238)], np.float32)
NUCLEUS_COLOUR = np.array((92, 58, 132), np.float32)
STRIP_ROWS = 256
"""Rows painted at a time: the noise of a whole picture would fill the memory of a small machine."""


@dataclass(frozen=True, slots=True)
class Gland:
    """A tube cut across: its middle and radius in pixels."""

    row: float
    column: float
    radius: float


def tissue(side: int, *, seed: int) -> Picture:
    """A square picture of `side` pixels, RGB."""
    random = np.random.default_rng(seed)
    kinds = _tissue_on_glass(side)
    glands = [gland for gland in _glands(side, random) if kinds[int(gland.row), int(gland.column)] == STROMA]
    wobble = plane_noise(*_axes(0, side, side, step=4), side, 45.0, seed=seed + 1)
    for gland in glands:
        _paint_gland(kinds, gland, wobble)
    nuclei = np.zeros((side, side), np.uint8)
    for row, column, along, across, angle in _nuclei(side, glands, kinds, random):
        _paint_nucleus(nuclei, row, column, along, across, angle)
    picture = np.empty((side, side, 3), np.uint8)
    for top in range(0, side, STRIP_ROWS):
        _stain(picture, kinds, nuclei, top, seed)
    return picture


def _axes(top: int, stop: int, side: int, *, step: int = 1) -> tuple[Floats, Floats]:
    return np.arange(top, stop, step, dtype=np.float32), np.arange(0, side, step, dtype=np.float32)


def _tissue_on_glass(side: int) -> Picture:
    """Where tissue lies: a ragged oval with a few tears."""
    kinds = np.zeros((side, side), np.uint8)
    for top in range(0, side, STRIP_ROWS):
        rows, columns = _axes(top, top + STRIP_ROWS, side)
        edge = plane_noise(rows, columns, side, side / 9, seed=41) + 0.3 * plane_noise(
            rows, columns, side, side / 60, seed=42
        )
        oval = np.hypot((rows[:, None] / side - 0.5) / 0.44, (columns[None, :] / side - 0.5) / 0.46)
        tear = np.abs(plane_noise(rows, columns, side, side / 4, seed=43)) < 0.05
        kinds[top : top + STRIP_ROWS][(oval + 0.09 * edge < 1) & ~tear] = STROMA
    return kinds


def _glands(side: int, random: np.random.Generator) -> Iterator[Gland]:
    """Glands on a shaken honeycomb."""
    step = 236.0
    for line in range(int(side / step) + 1):
        for place in range(int(side / step) + 1):
            row = (line + 0.5) * step * 0.94 + random.normal(0, 16)
            column = (place + 0.5 * (line % 2)) * step + random.normal(0, 16)
            if 0 <= row < side and 0 <= column < side:
                yield Gland(row, column, float(random.uniform(72, 104)))


def _patch(side: int, row: float, column: float, reach: float) -> tuple[slice, slice]:
    """The part of a picture round a place, cut off at the border; empty for a place outside."""

    def cut(middle: float) -> slice:
        return slice(max(0, int(middle - reach)), max(0, min(side, int(middle + reach) + 1)))

    return cut(row), cut(column)


def _paint_gland(kinds: Picture, gland: Gland, wobble: Floats) -> None:
    rows, columns = _patch(len(kinds), gland.row, gland.column, gland.radius * 1.3)
    row, column = np.ogrid[rows, columns]
    bend = wobble[row // 4, column // 4]
    distance = np.hypot(row - gland.row, column - gland.column) / gland.radius + 0.09 * bend
    patch = kinds[rows, columns]
    patch[(distance < 1.0) & (patch == STROMA)] = EPITHELIUM
    patch[(distance < 0.36) & (patch == EPITHELIUM)] = LUMEN
    # goblet cells: bubbles of mucin between the lumen and the nuclei
    spoke = np.sin(np.arctan2(row - gland.row, column - gland.column) * round(gland.radius / 5) + 2 * bend)
    patch[(distance > 0.42) & (distance < 0.72) & (spoke > 0.2) & (patch == EPITHELIUM)] = LUMEN


def _nuclei(
    side: int, glands: list[Gland], kinds: Picture, random: np.random.Generator
) -> Iterator[tuple[float, float, float, float, float]]:
    """Row, column, the two half axes and the angle of each nucleus: in a ring in glands, anyhow between them."""
    for gland in glands:
        count = int(2 * np.pi * 0.86 * gland.radius / 12.5)
        for angle in np.arange(count) / count * 2 * np.pi + random.normal(0, 0.03, count):
            reach = gland.radius * random.normal(0.86, 0.025)
            row, column = gland.row + reach * np.sin(angle), gland.column + reach * np.cos(angle)
            yield row, column, random.uniform(7.5, 10.5), random.uniform(4.2, 5.6), angle
    for row, column in random.uniform(0, side, (side * side // 1200, 2)):
        if kinds[int(row), int(column)] == STROMA:
            yield row, column, random.uniform(4.5, 9.5), random.uniform(3.2, 4.8), random.uniform(0, np.pi)


def _paint_nucleus(nuclei: Picture, row: float, column: float, along: float, across: float, angle: float) -> None:
    rows, columns = _patch(len(nuclei), row, column, along + 1)
    y = (np.arange(rows.start, rows.stop) - row)[:, None]
    x = np.arange(columns.start, columns.stop) - column
    u = (x * np.cos(angle) + y * np.sin(angle)) / along
    v = (y * np.cos(angle) - x * np.sin(angle)) / across
    shade = np.clip(1.35 - u * u - v * v, 0, 1) * 255
    patch = nuclei[rows, columns]
    np.maximum(patch, shade.astype(np.uint8), out=patch)


def _stain(picture: Picture, kinds: Picture, nuclei: Picture, top: int, seed: int) -> None:
    """Colour one strip: fibres and grain by noise, nuclei over them, and every border a little soft."""
    side = len(kinds)
    rows, columns = _axes(top, top + STRIP_ROWS, side)
    strip = slice(top, top + STRIP_ROWS)
    grain = _grain(side, seed=(seed, top))
    fibre = np.sin(0.22 * columns[None, :] + 5 * plane_noise(rows, columns, side, 70.0, seed=seed + 3))
    patchy = plane_noise(rows, columns, side, 400.0, seed=seed + 4)
    kind = kinds[strip]
    shade = np.where(
        kind == STROMA, 7 * fibre + 5 * grain + 5 * patchy, np.where(kind == GLASS, 0.6 * grain, 4 * grain)
    )
    colour = COLOURS[kind] + shade[:, :, None] * np.array((0.6, 1.3, 0.9), np.float32)
    cover = (nuclei[strip].astype(np.float32) / 255 * (0.82 + 0.1 * np.clip(grain, -1, 1)) * (kind != GLASS))[
        :, :, None
    ]
    colour += cover * (NUCLEUS_COLOUR - colour)
    picture[strip] = _softened(np.clip(colour, 0, 255).astype(np.uint8))


def _grain(side: int, *, seed: tuple[int, int]) -> Floats:
    """Noise in blocks of two by two pixels for one strip: fine enough that nobody sees the blocks once softened."""
    coarse = np.random.default_rng(seed).standard_normal((STRIP_ROWS // 2, side // 2), dtype=np.float32)
    return coarse.repeat(2, axis=0).repeat(2, axis=1)


def _softened(strip: Picture) -> Picture:
    """Weights 1, 2, 1 along both axes, in 16-bit integers: the picture is large, and this is a third of its time."""
    padded = np.pad(strip, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(np.uint16)
    across = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    softened: Picture = ((across[:-2] + 2 * across[1:-1] + across[2:]) // 16).astype(np.uint8)
    return softened
