"""The boundary loss: probability times the distance from the true outline, so that far mistakes cost more."""

from __future__ import annotations

import numpy as np
import torch

from emlib.learn.losses.comparison import Comparison, weighted_mean


def boundary_loss(both: Comparison) -> torch.Tensor:
    """Return the mean of φ p over pixels and organelles; φ is the signed distance from the true outline in pixels.

    It is below zero where organelles are found. An organelle that an image does not show, or that fills it, has no
    outline and counts with 0. With softmax the background, class 0, is left out, as in the authors' code.

    Notes
    -----
    Kervadec et al. 2019 (Boundary loss for highly unbalanced segmentation) add it to a loss of overlap with the factor
    0.01, which they raise by 0.01 each epoch: write ``dice+0.01*boundary``. Alone it has the solution of predicting
    nothing at all.

    Examples
    --------
    >>> truth = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3)  # φ is 2, 1, 0
    >>> boundary_loss(Comparison(torch.zeros(1, 1, 1, 3), truth)).item()
    0.5
    """
    first = int(both.softmax)
    true = _array(both.targets[:, first:] > 0.5)
    known = np.broadcast_to(True if both.known is None else _array(both.known), true.shape)
    distance = np.zeros(true.shape, np.float32)
    for index in np.ndindex(*true.shape[:2]):
        distance[index] = signed_distance(true[index] & known[index], ~true[index] & known[index])
    weights = both.organelle_weights(true.ndim)
    losses = torch.from_numpy(distance).to(both.logits) * both.probability[:, first:]
    return weighted_mean(losses, both.known, None if weights is None else weights[:, first:])


def signed_distance(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return distances from an outline in pixels: below zero within, 0 on the innermost side, from 1 outside.

    Parameters
    ----------
    inside, outside : (Y, X) bool arrays
        Pixels that are neither are unknown.

    Returns
    -------
    (Y, X) float array
        0 everywhere if either is empty, and where the pixel is unknown.

    Examples
    --------
    >>> row = np.array([[False, False, True, True, True]])
    >>> signed_distance(row, ~row).tolist()
    [[2.0, 1.0, 0.0, -1.0, -2.0]]
    """
    if not (inside.any() and outside.any()):
        return np.zeros(inside.shape)
    from scipy.ndimage import distance_transform_edt

    to_inside, to_outside = distance_transform_edt(~inside), distance_transform_edt(~outside)
    return to_inside * outside - (to_outside - 1) * inside


def _array(mask: torch.Tensor) -> np.ndarray:
    return mask.detach().cpu().numpy()
