"""Objects of two masks, matched one to one: how many mitochondria or synapses of a section were found."""

from __future__ import annotations

import numpy as np

from emlib.measure.masks.pixels import ratio

OBJECT_COUNTS = ("objects_matched_50", "objects_matched_75", "objects_predicted", "objects_true")
OBJECT_SCORES = ("object_precision", "object_recall", "object_f1", "ap50", "ap75")
THRESHOLDS = (0.5, 0.75)


def object_counts(truth: np.ndarray, pred: np.ndarray, min_pixels: float = 0.0) -> np.ndarray:
    """Count the objects of a section and how many pairs of them match.

    Parameters
    ----------
    truth, pred : (Y, X) bool arrays of one shape
        Objects are the connected components; pixels that touch by a corner belong together.
    min_pixels : float
        Smaller components are no objects, in either mask.

    Returns
    -------
    (4,) int64 array
        In the order of ``OBJECT_COUNTS``: pairs with an IoU of at least 0.5 and of at least 0.75, predicted and true
        objects.

    Notes
    -----
    No assignment has to be solved. If a true object had an IoU of at least 1/2 with two predicted ones, each would have
    to be exactly one half of it; the two would then touch and be one component. So each object has at most one partner
    at either threshold, equal ones included.

    Examples
    --------
    >>> truth, pred = np.zeros((2, 1, 9), bool)
    >>> truth[0, [0, 1, 2, 3, 6, 7]], pred[0, [1, 2, 3, 6]] = True, True
    >>> object_counts(truth, pred).tolist()
    [2, 1, 2, 2]
    """
    true, true_sizes = _components(truth, min_pixels)
    found, found_sizes = _components(pred, min_pixels)
    shared = (true > 0) & (found > 0)
    pairs = true[shared].astype(np.int64) * (len(found_sizes) + 1) + found[shared]
    pairs, overlap = np.unique(pairs, return_counts=True)
    i, j = np.divmod(pairs, len(found_sizes) + 1)
    iou = overlap / (true_sizes[i - 1] + found_sizes[j - 1] - overlap)
    matched = [np.count_nonzero(iou >= threshold) for threshold in THRESHOLDS]
    return np.array([*matched, len(found_sizes), len(true_sizes)], np.int64)


def object_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Score objects by their counts.

    Parameters
    ----------
    counts : (..., 4) array
        In the order of ``OBJECT_COUNTS``, summed over sections.

    Returns
    -------
    dict of (...) float64 arrays in [0, 1]
        ``object_precision``, ``object_recall`` and ``object_f1`` at IoU 0.5, ``ap50`` and ``ap75``. 1 where there is no
        object at all, 0 where only one side has any.

    Notes
    -----
    AP = TP / (TP + FP + FN), as in the 2018 Data Science Bowl (Caicedo et al. 2019) and StarDist (Schmidt et al. 2018).
    The average precision of COCO is the area under a curve over the objects' scores; a mask has no scores.

    Examples
    --------
    >>> scores = object_scores(np.array([2, 1, 3, 4]))
    >>> [float(scores[name].round(3)) for name in OBJECT_SCORES]
    [0.667, 0.5, 0.571, 0.4, 0.167]
    """
    matched, matched_75, found, true = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    nothing = (found + true == 0).astype(np.float64)
    return {
        "object_precision": ratio(matched, found, nothing),
        "object_recall": ratio(matched, true, nothing),
        "object_f1": ratio(2 * matched, found + true, nothing),
        "ap50": ratio(matched, found + true - matched, nothing),
        "ap75": ratio(matched_75, found + true - matched_75, nothing),
    }


def _components(mask: np.ndarray, min_pixels: float) -> tuple[np.ndarray, np.ndarray]:
    """Flat labels 1 … N of the components that are large enough, and their sizes in pixels."""
    import cc3d

    # Never bool: for it cc3d 4.1.1 takes a path of its own that finds components where odd sizes have none.
    labels = cc3d.connected_components(np.ascontiguousarray(mask).view(np.uint8), connectivity=8).ravel()
    sizes = np.bincount(labels)
    sizes[0] = 0
    kept = (sizes >= min_pixels) & (sizes > 0)
    return (np.cumsum(kept) * kept)[labels], sizes[kept]
