"""From the encodings of the sources to the arrays that are kept here."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from emlib.errors import UserError


def grey_image(paths: Sequence[Path]) -> list[np.ndarray]:
    """Decode one PNG as a (Y, X) uint8 array; of a colour image its luminance (ITU-R 601)."""
    from PIL import Image

    with Image.open(paths[0], formats=("PNG",)) as image:
        return [np.asarray(image.convert("L"))]


def mask_image(paths: Sequence[Path]) -> list[np.ndarray]:
    """Decode one PNG as a (Y, X) uint8 mask, 255 above half range, and as its inverse, in case objects are dark."""
    (grey,) = grey_image(paths)
    mask = np.where(grey > 127, 255, 0).astype(np.uint8)
    return [mask, 255 - mask]


def grey_stack(paths: Sequence[Path]) -> list[np.ndarray]:
    """Decode one PNG per section as a (Z, Y, X) uint8 array."""
    return [np.stack([grey_image([path])[0] for path in paths])]


def neuroproof_labels(paths: Sequence[Path]) -> list[np.ndarray]:
    """Decode NeuroProof's labels, a gzipped HDF5 file, as a (Z, Y, X) uint16 array of ids 0 … N in the order of theirs.

    ``stack`` holds supervoxels in the order Z, Y, X; where there is a table ``transforms``, its rows (supervoxel, body)
    map them to bodies, as NeuroProof's ``import_h5labels`` does.

    Raises
    ------
    UserError
        If the file lacks ``stack`` or has more ids than uint16 holds.
    """
    import h5py

    unzipped = BytesIO(gzip.decompress(paths[0].read_bytes()))  # HDF5 seeks, which is slow in a gzipped file
    with h5py.File(unzipped, "r") as file:
        if "stack" not in file:
            raise UserError(f"{paths[0].name} has no dataset 'stack'")
        stack = file["stack"][()]
        pairs = file["transforms"][()] if "transforms" in file else np.empty((0, 2), np.uint64)
    ids, inverse = np.unique(stack, return_inverse=True)
    known = dict(zip(pairs[:, 0].tolist(), pairs[:, 1].tolist(), strict=True))
    bodies = np.array([known.get(i, i) for i in ids.tolist()], np.uint64)
    names, numbers = np.unique(bodies, return_inverse=True)
    numbers = numbers if names[0] == 0 else numbers + 1
    if numbers.max() > np.iinfo(np.uint16).max:
        raise UserError(f"{paths[0].name} has {len(names)} labels, more than uint16 holds")
    return [numbers.astype(np.uint16)[inverse].reshape(stack.shape)]
