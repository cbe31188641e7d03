"""A head as a map of tissues: ellipsoids for the organs, level sets of smooth noise for the folds of the cortex.

Coordinates are millimetres in the patient system of DICOM (PS3.3 §C.7.6.2.1.1): x to the left, y to the back, z to the
top, origin in the middle of the brain. The map can be sampled on any grid along the axes, so that CT and MR agree.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from app.demo.noise import Floats, space_noise

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]


class Tissue(IntEnum):
    """What a voxel is made of."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    CSF = 6
    GREY = 7
    WHITE = 8
    EYE = 9
    LENS = 10
    LESION = 11
    LESION_RIM = 12
    OEDEMA = 13
    CALCIUM = 14


LESION_CENTRE: Point = (27.0, 8.0, 12.0)
"""The finding of the demo, which the report speaks of and points to."""
LESION_RADIUS_MM = 11.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the head is sampled: positions in millimetres along each axis, ascending."""

    x: Floats
    y: Floats
    z: Floats

    @classmethod
    def centred(cls, *, counts: tuple[int, int, int], steps_mm: tuple[float, float, float], z_middle: float) -> "Grid":
        """A grid round the middle of the head, `z_middle` above the middle of the brain; counts and steps as x, y, z."""
        return cls(
            x=_positions(counts[0], steps_mm[0], 0.0),
            y=_positions(counts[1], steps_mm[1], 2.0),
            z=_positions(counts[2], steps_mm[2], z_middle),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size


def head(grid: Grid) -> Labels:
    """The tissue at each position of a grid, as `[z, y, x]`."""
    labels = np.zeros(grid.shape, np.uint8)
    fold = smooth_noise(grid, 10.5, seed=1) + 0.4 * smooth_noise(grid, 6.0, seed=2)
    _paint_outside(labels, grid, fold)
    _paint_skull(labels, grid, fold)
    _paint_brain(labels, grid, fold)
    _paint_deep_nuclei_and_ventricles(labels, grid, fold)
    _paint_lesions(labels, grid, fold)
    _paint_face(labels, grid)
    return labels


def smooth_noise(grid: Grid, cell_mm: float, *, seed: int) -> Floats:
    """Noise that varies over `cell_mm`, in a cube of 28 cm round the head; the same at the same place on every grid."""
    return space_noise(grid.z + 140, grid.y + 140, grid.x + 140, 280.0, cell_mm, seed=seed)


def _positions(count: int, step_mm: float, middle: float) -> Floats:
    return ((np.arange(count, dtype=np.float32) - (count - 1) / 2) * step_mm + middle).astype(np.float32)


def _radius(grid: Grid, centre: Point, radii: Point) -> Floats:
    """How far out each position is in an ellipsoid: 0 in the centre, 1 on the surface."""
    x = ((grid.x - centre[0]) / radii[0]) ** 2
    y = ((grid.y - centre[1]) / radii[1]) ** 2
    z = ((grid.z - centre[2]) / radii[2]) ** 2
    result: Floats = np.sqrt(z[:, None, None] + y[None, :, None] + x[None, None, :])
    return result


def _both_sides(grid: Grid, centre: Point, radii: Point) -> Mask:
    mirrored = (-centre[0], centre[1], centre[2])
    return (_radius(grid, centre, radii) < 1) | (_radius(grid, mirrored, radii) < 1)


def _paint_outside(labels: Labels, grid: Grid, fold: Floats) -> None:
    """Skin, fat under it, and the muscles of temple and neck."""
    outer = _radius(grid, (0, 0, -4), (76, 95, 92))
    neck = np.minimum(_radius(grid, (0, 26, -95), (60, 56, 95)), _radius(grid, (0, -40, -66), (54, 48, 52)))  # and jaw
    nose = _radius(grid, (0, -84, -46), (12, 20, 20))
    ears = _both_sides(grid, (76, 12, -36), (5, 15, 22))
    labels[(outer < 1) | (neck < 1) | (nose < 1) | ears] = Tissue.SKIN
    labels[(outer < 0.975) | (neck < 0.96)] = Tissue.FAT
    labels[neck < 0.88] = Tissue.MUSCLE
    labels[_both_sides(grid, (66, -22, -32), (7, 30, 30)) & (outer < 0.97)] = Tissue.MUSCLE
    streaks = (np.abs(fold) < 0.12) & (labels == Tissue.MUSCLE)
    labels[streaks] = Tissue.FAT


def _paint_skull(labels: Labels, grid: Grid, fold: Floats) -> None:
    """Two tables of bone with marrow between, the base of the skull, and air in mastoids and sinuses."""
    skull = _radius(grid, (0, 0, 0), (69, 88, 83)) + 0.004 * fold
    labels[skull < 1] = Tissue.BONE
    labels[(skull < 0.972) & (skull > 0.948) & (fold > -0.35)] = Tissue.MARROW
    below = grid.z[:, None, None] < -50 - 0.12 * grid.y[None, :, None]
    base = below & (skull < 0.93)
    labels[base] = Tissue.MUSCLE
    petrous = _both_sides(grid, (42, 22, -44), (24, 11, 10))
    labels[petrous] = Tissue.BONE
    labels[petrous & (fold > 0.45)] = Tissue.AIR
    labels[(_radius(grid, (0, -2, -56), (22, 42, 8)) < 1)] = Tissue.BONE


def _paint_brain(labels: Labels, grid: Grid, fold: Floats) -> None:
    """Cerebrum with folded cortex, fissures, and the cerebellum under it."""
    z = grid.z[:, None, None]
    above_base = z >= -48 - 0.12 * grid.y[None, :, None]
    cranium = (_radius(grid, (0, 0, 0), (63.5, 82.5, 77)) < 1) & above_base & (labels != Tissue.AIR)
    cranium &= ~_both_sides(grid, (42, 22, -44), (24, 11, 10))
    labels[cranium] = Tissue.CSF
    brain = _radius(grid, (0, 0, 0), (61.5, 80, 74.5)) + 0.012 * fold
    inside = cranium & (brain < 1)
    depth = np.clip((brain - 0.52) / 0.48, 0, 1)
    sulcus = np.abs(fold) < 0.11 * depth
    cortex = (np.abs(fold) < 0.05 + 0.36 * depth) & (brain > 0.5) | (brain > 0.945)
    labels[inside] = Tissue.WHITE
    labels[inside & cortex] = Tissue.GREY
    labels[inside & sulcus & (brain > 0.62)] = Tissue.CSF

    fissure = np.abs(grid.x)[None, None, :] < 1.4 + 0.6 * fold
    corpus_callosum = _radius(grid, (0, 4, 14), (40, 40, 17)) < 1
    labels[inside & fissure & ~corpus_callosum & (z > -12)] = Tissue.CSF
    sylvian = _both_sides(grid, (47, -14, -1), (14, 2.6, 10))
    labels[inside & sylvian] = Tissue.CSF

    cerebellum = _radius(grid, (0, 44, -40), (47, 31, 24))
    labels[cranium & (cerebellum < 1.07)] = Tissue.CSF
    leaves = np.sin(1.9 * (z + 0.25 * np.abs(grid.x)[None, None, :]) + 2.2 * fold)
    labels[cranium & (cerebellum < 1)] = Tissue.GREY
    labels[cranium & (cerebellum < 0.96) & (leaves > 0.55)] = Tissue.CSF
    labels[cranium & (cerebellum < 0.55 + 0.1 * fold)] = Tissue.WHITE
    labels[_radius(grid, (0, 16, -42), (14, 14, 34)) < 1] = Tissue.WHITE


def _paint_deep_nuclei_and_ventricles(labels: Labels, grid: Grid, fold: Floats) -> None:
    """Thalamus, caudate, putamen; lateral, third and fourth ventricle; calcified pineal gland and choroid plexus."""
    labels[_both_sides(grid, (11, 8, 4), (9, 14, 10))] = Tissue.GREY
    labels[_both_sides(grid, (25, -6, 5), (6, 17, 10))] = Tissue.GREY
    labels[_both_sides(grid, (14, -18, 10), (6, 10, 11))] = Tissue.GREY
    wobble = 0.08 * fold
    for centre, radii in (
        ((8.5, -22, 15), (5.0, 15, 8)),
        ((11.0, 3, 20), (6.0, 24, 6)),
        ((19.0, 30, 13), (6.5, 15, 8)),
        ((23.0, 46, 8), (4.5, 14, 5)),
        ((30.0, 10, -12), (3.5, 18, 3.5)),
    ):
        left = _radius(grid, centre, radii) + wobble < 1
        right = _radius(grid, (-centre[0], centre[1], centre[2]), radii) + wobble < 1
        labels[left | right] = Tissue.CSF
    labels[_radius(grid, (0, 4, 2), (2.2, 13, 9)) < 1] = Tissue.CSF
    labels[_radius(grid, (0, 34, -36), (7, 5, 8)) < 1] = Tissue.CSF
    labels[_radius(grid, (0, 24, 4), (2.4, 3, 2.4)) < 1] = Tissue.CALCIUM
    labels[_both_sides(grid, (20, 33, 12), (2.4, 3.2, 2.4))] = Tissue.CALCIUM


def _paint_lesions(labels: Labels, grid: Grid, fold: Floats) -> None:
    """One lesion with a rim and oedema round it, and a few small spots in the white matter."""
    lesion = _radius(grid, LESION_CENTRE, (LESION_RADIUS_MM, 14, 12)) + 0.08 * fold
    brain = (labels == Tissue.WHITE) | (labels == Tissue.GREY)
    labels[brain & (lesion < 1.7 + 0.25 * fold)] = Tissue.OEDEMA
    labels[lesion < 1] = Tissue.LESION_RIM
    labels[lesion < 0.8] = Tissue.LESION
    for x, y, z, radius in ((-30, -24, 24, 2.6), (-26, 22, 28, 3.2), (24, -34, 30, 2.4), (-34, 40, 18, 2.8)):
        labels[(_radius(grid, (x, y, z), (radius, radius, radius)) < 1) & brain] = Tissue.OEDEMA


def _paint_face(labels: Labels, grid: Grid) -> None:
    """Eyes in their fat, and the air of the sinuses and the nose."""
    orbit = _both_sides(grid, (31, -66, -36), (15, 22, 15))
    labels[orbit & (labels != Tissue.AIR)] = Tissue.FAT
    labels[_both_sides(grid, (27, -44, -37), (2.5, 16, 2.5))] = Tissue.GREY
    labels[_both_sides(grid, (31, -71, -36), (13.2, 13.2, 13.2))] = Tissue.SKIN
    labels[_both_sides(grid, (31, -71, -36), (12, 12, 12))] = Tissue.EYE
    labels[_both_sides(grid, (31, -80, -36), (5, 2.4, 5))] = Tissue.LENS
    for centre, radii in (
        ((27.0, -62, -64), (13.0, 13, 13)),
        ((5.5, -60, -44), (4.5, 20, 12)),
        ((8.0, -84, -22), (9.0, 3, 9)),
        ((7.0, -32, -52), (7.0, 9, 7)),
    ):
        labels[_both_sides(grid, centre, radii)] = Tissue.AIR
    labels[_both_sides(grid, (75.5, 12, -36), (14, 2.5, 2.5))] = Tissue.AIR
