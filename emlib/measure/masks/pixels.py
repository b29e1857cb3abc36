"""Pixel scores of binary masks from four counts: Dice, IoU, F1, precision, recall, accuracy, variation of information.

The counts add up: those of sections are summed for the *pooled* protocol, those of patches are scored one by one and
averaged for the *patch-mean* protocol. Both use `pixel_scores`, so that they differ in nothing but that.
"""

from __future__ import annotations

import numpy as np

PIXEL_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")
PIXEL_SCORES = ("dice", "iou", "f1", "precision", "recall", "accuracy", "vi")


def pixel_counts(truth: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Count true positives, false positives, false negatives and true negatives.

    Parameters
    ----------
    truth, pred : bool arrays of one shape

    Returns
    -------
    (4,) int64 array
        In the order of ``PIXEL_COUNTS``.

    Examples
    --------
    >>> pixel_counts(np.array([True, True, False, False]), np.array([True, False, True, False])).tolist()
    [1, 1, 1, 1]
    """
    both, true, found = (np.count_nonzero(mask) for mask in (truth & pred, truth, pred))
    return _four(np.array(both), np.array(true), np.array(found), np.array(truth.size))


def patch_counts(truth: np.ndarray, pred: np.ndarray, patch: int = 256, stride: int = 128) -> np.ndarray:
    """Count the same four in each patch of a section.

    Parameters
    ----------
    truth, pred : (Y, X) bool arrays of one shape
    patch : int
        Side of a patch in pixels; along an axis that is shorter, the whole axis is one patch.
    stride : int
        From one patch to the next, in pixels.

    Returns
    -------
    (P, 4) int64 array
        Patches row by row, columns in the order of ``PIXEL_COUNTS``.

    Notes
    -----
    Patches begin at 0, ``stride``, 2 ``stride`` … as far as a whole patch fits, as in the code of MExConn; what is left
    at the lower and right border is in no patch. A section is summed once between the borders of patches and the sums
    are combined, so that pixels in several patches are not counted again.

    Examples
    --------
    >>> mask = np.zeros((1024, 1024), bool)
    >>> len(patch_counts(mask, mask))
    49
    """
    rows, columns = (_spans(length, patch, stride) for length in truth.shape)
    both, true, found = (_window_sums(mask, rows, columns) for mask in (truth & pred, truth, pred))
    size = int(rows[1][0] - rows[0][0]) * int(columns[1][0] - columns[0][0])
    return _four(both, true, found, np.full(both.shape, size))


def pixel_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Score masks by their counts.

    Parameters
    ----------
    counts : (..., 4) array
        In the order of ``PIXEL_COUNTS``; at least one pixel in each row.

    Returns
    -------
    dict of (...) float64 arrays
        ``dice`` and ``f1``, which are the same, ``iou``, ``precision``, ``recall``, ``accuracy`` in [0, 1], and ``vi``,
        the variation of information of the two labellings into foreground and background, in bits, 0 to 2.

    Notes
    -----
    Where neither truth nor prediction has a pixel, dice, iou, f1, precision and recall are 1. Where only one of them
    has none, all five are 0: precision without a prediction and recall without truth are 0/0, and 0 keeps f1 the
    harmonic mean of the two.

    Variation of information after Meila 2007: VI = H(truth | prediction) + H(prediction | truth), both with log2, so
    that a perfect prediction scores exactly 0. It knows no foreground: the negative of the truth scores 0 as well.

    Examples
    --------
    >>> scores = pixel_scores(np.array([1, 1, 1, 1]))
    >>> [float(scores[name].round(3)) for name in PIXEL_SCORES]
    [0.5, 0.333, 0.5, 0.5, 0.5, 0.5, 2.0]
    """
    counts = np.asarray(counts, np.float64)
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    nothing = (tp + fp + fn == 0).astype(np.float64)
    dice = ratio(2 * tp, 2 * tp + fp + fn, nothing)
    return {
        "dice": dice,
        "iou": ratio(tp, tp + fp + fn, nothing),
        "f1": dice,
        "precision": ratio(tp, tp + fp, nothing),
        "recall": ratio(tp, tp + fn, nothing),
        "accuracy": (tp + tn) / counts.sum(axis=-1),
        "vi": _variation_of_information(tp, fp, fn, tn),
    }


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return part / whole, and ``otherwise`` where whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), otherwise)


def _variation_of_information(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
    """In bits, from the 2 × 2 table; the ratios in the logarithms are exactly 1 where the labellings agree."""
    bits = np.zeros(np.shape(tp))
    for shared, true, found in (
        (tp, tp + fn, tp + fp),
        (fp, fp + tn, tp + fp),
        (fn, tp + fn, fn + tn),
        (tn, fp + tn, fn + tn),
    ):
        some = np.maximum(shared, 1)
        bits = bits + shared * (np.log2(np.maximum(true, 1) / some) + np.log2(np.maximum(found, 1) / some))
    return bits / (tp + fp + fn + tn)


def _four(both: np.ndarray, true: np.ndarray, found: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The four counts from pixels in both masks, in the truth, in the prediction, and in all; stacked last."""
    counts = np.stack([both, found - both, true - both, size - true - found + both], axis=-1)
    return counts.astype(np.int64)


def _spans(length: int, patch: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last pixel of each patch along an axis."""
    patch = min(patch, length)
    first = np.arange(0, length - patch + 1, stride)
    return first, first + patch


def _window_sums(
    mask: np.ndarray, rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Foreground pixels of each patch, flat, row by row."""
    sums = np.ascontiguousarray(mask).view(np.uint8)
    for axis, (first, stop) in ((1, columns), (0, rows)):  # along memory first: it leaves little for the other axis
        edges = np.unique(np.concatenate([first, stop]))
        inner = edges[edges < mask.shape[axis]]
        pieces = np.add.reduceat(sums, inner, axis=axis, dtype=np.int64)
        shape = [1 if i == axis else n for i, n in enumerate(pieces.shape)]
        upto = np.concatenate([np.zeros(shape, np.int64), np.cumsum(pieces, axis=axis)], axis=axis)
        at = [np.searchsorted(edges, border) for border in (stop, first)]
        sums = np.take(upto, at[0], axis=axis) - np.take(upto, at[1], axis=axis)
    return sums.ravel()
