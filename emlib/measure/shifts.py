"""How well estimated shifts undo those that were added."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

_SLOW = 10.0  # sections; sigma of the Gaussian that tells drift from scatter


def recovery_error(added: pd.DataFrame, estimated: pd.DataFrame) -> dict[str, float]:
    """Compare estimated shifts with the negative of those added.

    A common offset of all sections changes nothing about their alignment, so the mean is removed.

    Parameters
    ----------
    added : DataFrame
        ``z, dy, dx``: pixels that were added to each section.
    estimated : DataFrame
        ``z, dy, dx``: pixels to apply to each section; rows are matched by ``z``.

    Returns
    -------
    dict
        ``rms_px``, ``mean_px`` and ``max_px`` of the length of the error per section; ``drift_px``, the largest length
        of the error after smoothing along z (Gaussian, sigma 10 sections): what adds up instead of scattering.

    Raises
    ------
    ValueError
        If the two tables have no section in common.

    Examples
    --------
    >>> added = pd.DataFrame({"z": [0, 1], "dy": [0.0, 2.0], "dx": [0.0, 0.0]})
    >>> recovery_error(added, added.assign(dy=[0.0, -2.0]))["rms_px"]
    0.0
    """
    both = added.merge(estimated, on="z", suffixes=("_added", "_estimated")).sort_values("z")
    if both.empty:
        raise ValueError("added and estimated shifts have no section in common")
    error = np.stack([both[f"{a}_added"] + both[f"{a}_estimated"] for a in ("dy", "dx")], axis=1).astype(float)
    error -= error.mean(axis=0)
    length = np.hypot(*error.T)
    slow = ndi.gaussian_filter1d(error, _SLOW, axis=0, mode="nearest")
    return {
        "rms_px": float(np.sqrt((length**2).mean())),
        "mean_px": float(length.mean()),
        "max_px": float(length.max()),
        "drift_px": float(np.hypot(*slow.T).max()),
    }
