"""Puts stain on the sections: what is drawn in nm becomes grey levels taken off the voxels that hold it.

A microtubule that crosses a section is a dark dot, one that lies in it a faint line, because darkness is averaged over
the voxel.
"""

from __future__ import annotations

import numpy as np

from emlib.volumes.phantom.grid import Grid
from emlib.volumes.phantom.tissue import DEPTH_STEP_NM, Tissue

VESICLE_NM = 40.0  # diameter of small clear vesicles: 30 to 50 nm in flies and mammals


class Painter:
    """Adds darkness, given on fine voxels or at points, to the section grid.

    Parameters
    ----------
    tissue : Tissue
    sections : Grid
        Its voxels are whole numbers of fine voxels.

    Attributes
    ----------
    dark : (Z, Y, X) float32 array of ``sections.shape``
        Grey levels to take off.
    mitochondria, vesicles : (Z, Y, X) bool arrays of ``sections.shape``
    """

    def __init__(self, tissue: Tissue, sections: Grid) -> None:
        self.tissue, self.sections = tissue, sections
        self.factor = np.array(tissue.grid.shape) // sections.shape
        self.dark = np.zeros(sections.shape, np.float32)
        self.mitochondria = np.zeros(sections.shape, bool)
        self.vesicles = np.zeros(sections.shape, bool)

    def section_voxel(self, fine: tuple[np.ndarray, ...]) -> np.ndarray:
        """Flat section voxel of each fine voxel."""
        index = [f // k for f, k in zip(fine, self.factor, strict=True)]
        return np.ravel_multi_index(index, self.sections.shape)

    def shade(self, fine: tuple[np.ndarray, ...], grey: np.ndarray) -> None:
        """Take ``grey`` levels off fine voxels."""
        np.add.at(self.dark.reshape(-1), self.section_voxel(fine), (grey / self.factor.prod()).astype(np.float32))

    def share(self, fine: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Section voxels that fine voxels fall into and the share of each that they fill."""
        voxel, count = np.unique(self.section_voxel(fine), return_counts=True)
        return voxel, count / self.factor.prod()

    def in_mitochondrion(self, points: np.ndarray) -> np.ndarray:
        """Whether each (N, 3) point in nm falls into a mitochondrion; bool."""
        return self.mitochondria.reshape(-1)[self.sections.locate(points)[0]]

    def dust(
        self, points: np.ndarray, grey_nm3: float | np.ndarray, neurite: np.ndarray | None, depth_nm: float
    ) -> None:
        """Spread specks of ``grey_nm3`` grey levels times nm³ at (N, 3) points in nm, linearly in the plane.

        Specks outside their neurite (any neurite if None), nearer than ``depth_nm`` to its surface or in mitochondria
        are dropped.
        """
        voxel, inside = self.tissue.grid.locate(points)
        inside &= self.tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM >= depth_nm
        if neurite is not None:
            inside &= self.tissue.owner.reshape(-1)[voxel] == neurite
        inside &= ~self.in_mitochondrion(points)
        points = points[inside]
        grey = np.broadcast_to(grey_nm3, inside.shape)[inside] / self.sections.voxel_nm3
        place = self.sections.coordinates(points)
        z = np.rint(place[:, 0]).astype(np.int64)
        corner = np.floor(place[:, 1:]).astype(np.int64)
        rest = place[:, 1:] - corner
        corner = np.clip(corner, 0, np.array(self.sections.shape[1:]) - 2)
        base = (z * self.sections.shape[1] + corner[:, 0]) * self.sections.shape[2] + corner[:, 1]
        for dy in (0, 1):
            for dx in (0, 1):
                part = np.abs(1 - dy - rest[:, 0]) * np.abs(1 - dx - rest[:, 1]) * grey
                np.add.at(self.dark.reshape(-1), base + dy * self.sections.shape[2] + dx, part.astype(np.float32))


def draw_vesicles(painter: Painter, centres: np.ndarray, neurite: int | np.ndarray, rng: np.random.Generator) -> None:
    """Stain the shells (7 nm thick) of vesicles, and lightly what they hold; mark them in ``painter.vesicles``."""
    specks = 90  # on each vesicle, one in six of them inside
    shell = rng.standard_normal((len(centres), specks, 3))
    shell /= np.linalg.norm(shell, axis=2, keepdims=True)
    wall = VESICLE_NM / 2 - 4
    shell *= np.where(np.arange(specks) % 6, wall, 0.5 * wall)[None, :, None]
    points = (centres[:, None] + shell).reshape(-1, 3)
    owner = np.repeat(np.broadcast_to(neurite, len(centres)), specks)
    painter.dust(points, 220 * 4 * np.pi * wall**2 * 7 / specks, owner, 4)
    sections, radius = painter.sections, VESICLE_NM / 2
    for point in centres:
        box = sections.window(point - radius, point + radius)
        at = [sections.centres(a, box[a]) - point[a] for a in range(3)]
        # a section shows the outline of a vesicle wherever it holds part of it
        at[0] = np.maximum(np.abs(at[0]) - sections.pitch[0] / 4, 0)
        painter.vesicles[box] |= (at[0] ** 2)[:, None, None] + (at[1] ** 2)[:, None] + at[2] ** 2 <= radius**2
