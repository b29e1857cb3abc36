"""Boundary F1: how well the outlines of two masks agree within a tolerance in nm."""

from __future__ import annotations

from math import floor, sqrt

import numpy as np

from emlib.measure.masks.pixels import ratio

BOUNDARY_COUNTS = ("boundary_predicted_near", "boundary_predicted", "boundary_true_near", "boundary_true")
BOUNDARY_SCORES = ("boundary_f1", "boundary_precision", "boundary_recall")
SLACK = 1 + 1e-9  # a distance that equals the tolerance but for rounding counts as within


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that touch background by a side.

    Parameters
    ----------
    mask : (Y, X) bool array

    Returns
    -------
    (Y, X) bool array
        The inner boundary, one pixel wide. The border of the image is none: nobody knows what lies beyond.

    Examples
    --------
    >>> outline(np.array([[1, 1, 1, 1, 0, 0]], bool)).astype(int).tolist()
    [[0, 0, 0, 1, 0, 0]]
    """
    inner = np.ones(mask.shape, bool)
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def within(points: np.ndarray, pixel_nm: tuple[float, float], distance_nm: float) -> np.ndarray:
    """Say which pixels lie within a distance of any of some pixels.

    Parameters
    ----------
    points : (Y, X) bool array
    pixel_nm : (y, x) in nm
    distance_nm : float
        Between the centres of two pixels, inclusive.

    Returns
    -------
    (Y, X) bool array

    Notes
    -----
    Exact: the union of an ellipse of pixels around each point, laid row by row from its top to its middle, where it is
    widest. For tolerances of a few pixels that is an order of magnitude cheaper than a distance transform.

    Examples
    --------
    >>> points = np.zeros((3, 7), bool)
    >>> points[1, 3] = True
    >>> within(points, (8, 4), 8).astype(int).tolist()
    [[0, 0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0, 0]]
    """
    out = np.zeros(points.shape, bool)
    if not points.any():
        return out
    height, width = points.shape
    reach, wide, half = distance_nm * SLACK, points, 0
    for dy in range(min(floor(reach / pixel_nm[0]), height - 1), -1, -1):
        wanted = min(floor(sqrt(max(reach**2 - (dy * pixel_nm[0]) ** 2, 0)) / pixel_nm[1]), width - 1)
        for _ in range(wanted - half):
            grown = wide.copy()
            grown[:, 1:] |= wide[:, :-1]
            grown[:, :-1] |= wide[:, 1:]
            wide = grown
        half = wanted
        out[dy:] |= wide[: height - dy]
        out[: height - dy] |= wide[dy:]
    return out


def boundary_counts(
    truth: np.ndarray, pred: np.ndarray, pixel_nm: tuple[float, float], tolerance_nm: float
) -> np.ndarray:
    """Count boundary pixels of each mask, and those near the boundary of the other.

    Parameters
    ----------
    truth, pred : (Y, X) bool arrays of one shape
    pixel_nm : (y, x) in nm
    tolerance_nm : float
        How far apart two boundaries may lie and still agree, inclusive.

    Returns
    -------
    (4,) int64 array
        In the order of ``BOUNDARY_COUNTS``.

    Examples
    --------
    >>> truth, pred = np.zeros((2, 1, 9), bool)
    >>> truth[0, :3], pred[0, :5] = True, True
    >>> boundary_counts(truth, pred, (4, 4), 8).tolist(), boundary_counts(truth, pred, (4, 4), 4).tolist()
    ([1, 1, 1, 1], [0, 1, 0, 1])
    """
    true, found = outline(truth), outline(pred)
    found_near = found & within(true, pixel_nm, tolerance_nm)
    true_near = true & within(found, pixel_nm, tolerance_nm)
    return np.array([np.count_nonzero(mask) for mask in (found_near, found, true_near, true)], np.int64)


def boundary_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Score boundaries by their counts.

    Parameters
    ----------
    counts : (..., 4) array
        In the order of ``BOUNDARY_COUNTS``, summed over sections.

    Returns
    -------
    dict of (...) float64 arrays in [0, 1]
        ``boundary_precision``: share of predicted boundary pixels within the tolerance of a true one;
        ``boundary_recall``: the reverse; ``boundary_f1``: their harmonic mean. 1 where neither mask has a boundary,
        0 where only one has.

    Notes
    -----
    The BF score of Csurka et al. 2013 ("What is a good evaluation measure for semantic segmentation?", BMVC), after the
    boundary benchmark of Martin et al. 2004; without their one-to-one matching of boundary pixels, in nm, and with
    counts summed over sections, where Csurka averages over images.

    Examples
    --------
    >>> scores = boundary_scores(np.array([5, 10, 10, 10]))
    >>> float(scores["boundary_f1"].round(3)), float(scores["boundary_precision"]), float(scores["boundary_recall"])
    (0.667, 0.5, 1.0)
    """
    found_near, found, true_near, true = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    nothing = (found + true == 0).astype(np.float64)
    precision, recall = ratio(found_near, found, nothing), ratio(true_near, true, nothing)
    total = precision + recall
    f1 = np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)
    return {"boundary_f1": f1, "boundary_precision": precision, "boundary_recall": recall}
