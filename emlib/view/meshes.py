"""Surfaces of neurites, in nm, as Neuroglancer draws them.

1. A level is chosen on which the neurite has few enough voxels.
2. Marching cubes on its bounding box; beyond the faces of the volume it is closed.
3. The mesh is made simpler until the surface would move by more than a fraction of a voxel (quadric error).
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emlib.errors import UserError
from emlib.volumes.levels import Levels
from emlib.volumes.volume import Box

MOST_VOXELS = 2**24  # of the bounding box that one mesh is made of
FIND_VOXELS = 2**24  # of the level on which bounding boxes are looked for
MANY_FACES = 2000  # a smaller mesh is left as it is
KEPT = 0.25  # of the faces of a larger one
_SIMPLIFYING = threading.Lock()  # the library keeps its mesh in global variables: two at once are mixed up


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes
    ----------
    vertices : (N, 3) float32
        x, y, z in nm, measured from the corner of the first voxel.
    faces : (M, 3) uint32
        Vertices of each triangle.
    """

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def volume(self) -> float:
        """Enclosed volume in nm³; positive where the faces look outwards."""
        a, b, c = (self.vertices[self.faces[:, corner]].astype(np.float64) for corner in range(3))
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


class Mesher:
    """Makes meshes of the neurites of a volume, when they are asked for.

    Parameters
    ----------
    neurites : Levels
    """

    def __init__(self, neurites: Levels) -> None:
        self.neurites = neurites
        self._boxes: dict[int, Box] | None = None
        self._lock = threading.Lock()

    @property
    def ids(self) -> list[int]:
        """All neurites that there are on the level where they are looked for."""
        return sorted(self._find())

    def make(self, neurite: int) -> Mesh | None:
        """Return the surface of a neurite; None if there is none."""
        box = self._find().get(int(neurite))
        if box is None:
            return None
        level = self._level(box)
        total, shape = self.neurites.levels[level].total, self.neurites.levels[level].shape
        inside = tuple(
            slice(part.start // factor, min(-(-part.stop // factor), length))
            for part, factor, length in zip(box, total, shape, strict=True)
        )
        mask = self.neurites.read(level, inside) == neurite
        if not mask.any():
            return None
        return _surface(mask, np.array([part.start for part in inside]), np.array(self.neurites.size_nm(level)))

    def _level(self, box: Box) -> int:
        """The finest level on which the box is small enough."""
        for level, plan in enumerate(self.neurites.levels):
            voxels = np.prod([(p.stop - p.start) / factor for p, factor in zip(box, plan.total, strict=True)])
            if voxels <= MOST_VOXELS:
                return level
        return len(self.neurites.levels) - 1

    def _find(self) -> dict[int, Box]:
        """Bounding boxes of all neurites, in voxels of level 0, with a margin of one coarse voxel."""
        with self._lock:
            if self._boxes is None:
                self._boxes = self._look()
        return self._boxes

    def _look(self) -> dict[int, Box]:
        levels = self.neurites.levels
        level = next((n for n, plan in enumerate(levels) if np.prod(plan.shape) <= FIND_VOXELS), len(levels) - 1)
        labels = self.neurites.read(level, tuple(slice(0, length) for length in levels[level].shape))
        ids, code = np.unique(labels, return_inverse=True)
        boxes = ndimage.find_objects(code.reshape(labels.shape) + 1)
        margin = 0 if level == 0 else 1
        return {
            int(one): tuple(
                slice(max(part.start - margin, 0) * factor, min((part.stop + margin) * factor, length))
                for part, factor, length in zip(box, levels[level].total, levels[0].shape, strict=True)
            )
            for one, box in zip(ids, boxes, strict=True)
            if one != 0
        }


def _surface(mask: np.ndarray, first: np.ndarray, size_nm: np.ndarray) -> Mesh:
    """The surface of a mask whose first voxel is ``first``, in voxels of ``size_nm``."""
    from skimage.measure import marching_cubes

    padded = np.pad(mask, 1).astype(np.float32)
    points, faces, _, _ = marching_cubes(padded, 0.5, allow_degenerate=False)
    zyx = (points + first - 0.5) * size_nm  # 1 for the padding; a voxel's middle is half a voxel from its corner
    points, faces = _simpler(np.ascontiguousarray(zyx[:, ::-1], np.float32), faces)
    return Mesh(np.ascontiguousarray(points, np.float32), np.ascontiguousarray(faces, np.uint32))


def _simpler(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(faces) < MANY_FACES:
        return points, faces
    try:
        import fast_simplification
    except ImportError as error:
        raise UserError("meshes need fast-simplification; pip install -r requirements-view.txt") from error
    with _SIMPLIFYING:
        return fast_simplification.simplify(points, faces.astype(np.int32), target_reduction=1 - KEPT)


def encode_mesh(mesh: Mesh) -> bytes:
    """Return a mesh in Neuroglancer's single-resolution format: number of vertices, x y z of each, faces."""
    count = np.uint32(len(mesh.vertices)).tobytes()
    return count + mesh.vertices.astype("<f4").tobytes() + mesh.faces.astype("<u4").tobytes()


def decode_mesh(content: bytes) -> Mesh:
    """Return the mesh that `encode_mesh` wrote."""
    count = int(np.frombuffer(content, "<u4", 1)[0])
    vertices = np.frombuffer(content, "<f4", 3 * count, 4).reshape(-1, 3)
    return Mesh(vertices, np.frombuffer(content, "<u4", offset=4 + 12 * count).reshape(-1, 3))


def mesh_manifest(neurite: int) -> str:
    """Return the JSON by which Neuroglancer finds the pieces of a mesh: one, named as the neurite."""
    return json.dumps({"fragments": [str(int(neurite))]})


MESH_INFO = json.dumps({"@type": "neuroglancer_legacy_mesh"})
