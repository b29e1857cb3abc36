"""The table of objects: sums in, measures in nm, µm² and µm³ out."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan, pi, sqrt
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.measure.morphometry.crofton import Directions, directions
from emlib.measure.morphometry.hull import solidity
from emlib.measure.morphometry.slabs import sums_of_objects
from emlib.measure.morphometry.sums import Moments, ObjectSums

NM_PER_UM = 1e3


def measure_objects(
    labels: Any,
    voxel_size_nm: tuple[float, ...],
    image: Any | None = None,
    class_ids: Mapping[int, int | str] | None = None,
) -> pd.DataFrame:
    """Measure every object of a label image or volume.

    Parameters
    ----------
    labels : (Y, X) or (Z, Y, X) integer array
        Ids of objects, 0 is background. A volume may be anything that has a shape and dtype and gives NumPy arrays for
        ranges of sections (Zarr, HDF5): it is read once, in slabs of whole sections, and need not fit into memory.
    voxel_size_nm : (z, y, x) in nm
        (y, x) serves for an image.
    image : as ``labels``, of grey values, optional
        Of the same shape; for the columns ``density_*``.
    class_ids : mapping from id to class, optional
        For the column ``class_id``.

    Returns
    -------
    DataFrame, one row per object, by rising id
        Columns are defined in docs/morphometry.md, with their errors: ``id``, ``class_id`` (if given), ``area_um2``,
        ``perimeter_um`` (image) or ``volume_um3``, ``surface_um2`` (volume), ``voxels``, ``major_axis_nm``,
        ``middle_axis_nm`` (volume), ``minor_axis_nm``, ``elongation``, ``flatness`` (volume), ``roundness``,
        ``shape_complexity``, ``solidity``, ``density_mean``, ``density_sd``, ``density_around`` (with an image),
        ``z, y, x`` and ``z_nm, y_nm, x_nm`` (centroid), ``z_first, z_last, y_first …`` (box, both ends inside),
        ``sections`` (volume), ``components``, ``touches_border``.

    Raises
    ------
    UserError
        If labels are no integers, are negative or have neither two nor three axes, if voxel sizes are not positive,
        the image has another shape, or an object has no class.

    Examples
    --------
    >>> labels = np.zeros((30, 30), np.int32)
    >>> labels[5:15, 5:25] = 3
    >>> measure_objects(labels, (50, 10, 10))[["id", "area_um2", "elongation", "y_nm"]].values.tolist()
    [[3.0, 0.02, 2.0, 95.0]]
    """
    flat = _check(labels, image)
    size = _voxel_size(voxel_size_nm, flat)
    lines = directions(size[1:] if flat else size)
    if flat:
        labels = np.asarray(labels)[None]
        image = None if image is None else np.asarray(image)[None]
    sums, around, components = sums_of_objects(labels, lines, size[1:], image)
    rows = []
    for key in sorted(sums):
        row: dict[str, Any] = {"id": key}
        if class_ids is not None:
            row["class_id"] = _class_of(key, class_ids)
        row |= _shape(sums[key], size, lines, flat)
        if image is not None:
            row |= _density(sums[key].grey, around.get(key))
        row |= _place(sums[key], size, labels.shape, flat)
        row["components"] = components[key]
        rows.append(row)
    if not rows:  # the columns of a table of one object, without it
        one = np.ones((1, 1) if flat else (1, 1, 1), np.uint8)
        like = None if image is None else one
        return measure_objects(one, size, like, None if class_ids is None else {1: 0}).iloc[:0]
    return pd.DataFrame(rows)


def _check(labels: Any, image: Any | None) -> bool:
    """Check what is given; say whether it is an image."""
    kind = np.dtype(labels.dtype).kind
    if kind not in "iu":
        raise UserError(
            f"labels hold {labels.dtype}, ids of objects are integers: find objects in a mask or in probabilities first"
        )
    if len(labels.shape) not in (2, 3):
        raise UserError(f"labels have shape {tuple(labels.shape)}: give an image (y, x) or a volume (z, y, x)")
    if image is not None and tuple(image.shape) != tuple(labels.shape):
        raise UserError(
            f"the image has shape {tuple(image.shape)}, the labels {tuple(labels.shape)}: give that of these labels"
        )
    return len(labels.shape) == 2


def _voxel_size(given: tuple[float, ...], flat: bool) -> tuple[float, float, float]:
    size = tuple(float(value) for value in given)
    if flat and len(size) == 2:
        size = (1.0, *size)
    if len(size) != 3 or not all(0 < value < np.inf for value in size):
        raise UserError(f"voxel size {tuple(given)}: give three positive numbers of nm, z y x")
    return size


def _class_of(key: int, class_ids: Mapping[int, int | str]) -> int | str:
    if key not in class_ids:
        raise UserError(f"object {key} has no class: name a class for every id of the labels")
    return class_ids[key]


def _shape(sums: ObjectSums, size: tuple[float, float, float], lines: Directions, flat: bool) -> dict[str, float]:
    """Size, outline, axes and what follows from them."""
    voxels = sums.places.count
    boundary = float(lines.factors @ (2.0 * (voxels - sums.pairs)))
    axes = _axes(sums.places, size, flat)
    full = solidity(sums.corners, voxels)
    if flat:
        area = voxels * size[1] * size[2]
        return {
            "area_um2": area / NM_PER_UM**2,
            "perimeter_um": boundary / NM_PER_UM,
            "voxels": voxels,
            "major_axis_nm": axes[0],
            "minor_axis_nm": axes[1],
            "elongation": axes[0] / axes[1],
            "roundness": 4 * pi * area / boundary**2,
            "shape_complexity": boundary**2 / (4 * pi * area),
            "solidity": full,
        }
    volume = voxels * size[0] * size[1] * size[2]
    return {
        "volume_um3": volume / NM_PER_UM**3,
        "surface_um2": boundary / NM_PER_UM**2,
        "voxels": voxels,
        "major_axis_nm": axes[0],
        "middle_axis_nm": axes[1],
        "minor_axis_nm": axes[2],
        "elongation": axes[0] / axes[1],
        "flatness": axes[1] / axes[2],
        "roundness": pi ** (1 / 3) * (6 * volume) ** (2 / 3) / boundary,
        "shape_complexity": boundary**3 / (16 * pi**2 * volume**2),
        "solidity": full,
    }


def _axes(places: Moments, size: tuple[float, float, float], flat: bool) -> list[float]:
    """Full axes, longest first, of the ellipse or ellipsoid with the second moments of the object's voxels (boxes)."""
    step = np.array(size)
    spread = places.scatter / places.count * np.outer(step, step) + np.diag(step**2 / 12)
    if flat:
        spread = spread[1:, 1:]
    values = np.linalg.eigvalsh(spread)[::-1]
    return [2 * sqrt((len(values) + 2) * value) for value in values.tolist()]


def _density(grey: Moments, around: Moments | None) -> dict[str, float]:
    return {
        "density_mean": float(grey.mean[0]),
        "density_sd": sqrt(grey.scatter[0, 0] / grey.count),
        "density_around": nan if around is None else float(around.mean[0]),
    }


def _place(sums: ObjectSums, size: tuple[float, ...], shape: tuple[int, ...], flat: bool) -> dict[str, Any]:
    axes = [1, 2] if flat else [0, 1, 2]
    row: dict[str, Any] = {"zyx"[a]: float(sums.places.mean[a]) for a in axes}
    row |= {f"{'zyx'[a]}_nm": float(sums.places.mean[a] * size[a]) for a in axes}
    for a in axes:
        row |= {f"{'zyx'[a]}_first": int(sums.first[a]), f"{'zyx'[a]}_last": int(sums.last[a])}
    if not flat:
        row["sections"] = sums.sections
    row["touches_border"] = any(sums.first[a] == 0 or sums.last[a] == shape[a] - 1 for a in axes)
    return row
