"""Truth near a border between neurites, where annotators differ by a few pixels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from emlib.threads import map_threads


def near_borders(labels: np.ndarray, pixel_nm: tuple[float, float], tolerance_nm: float) -> np.ndarray:
    """Say which pixels lie near a border between two ids of their own section.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        0 is an id like any other here: the edge of what was labelled is a border too.
    pixel_nm : (y, x) in nm
    tolerance_nm : float
        Pixels at most this far, in nm, from one that touches another id (4 neighbours) are near.

    Returns
    -------
    (Z, Y, X) bool array

    Notes
    -----
    The border mask of the CREMI challenge's scripts (``create_border_mask`` of cremi_python); in nm here, and so right
    for pixels that are not square.

    Examples
    --------
    >>> near_borders(np.array([[[1, 1, 1, 2, 2, 2]]]), (4, 4), 4).astype(int).tolist()
    [[[0, 1, 1, 1, 1, 0]]]
    """

    def near(section: np.ndarray) -> np.ndarray:
        border = np.zeros(section.shape, bool)
        for step in ((slice(1, None), slice(None)), (slice(None), slice(1, None))):
            back = tuple(slice(None, -1) if side.start else side for side in step)
            change = section[step] != section[back]
            border[step] |= change
            border[back] |= change
        if not border.any():
            return border
        return ndimage.distance_transform_edt(~border, sampling=pixel_nm) <= tolerance_nm

    return np.stack(map_threads(near, labels))
