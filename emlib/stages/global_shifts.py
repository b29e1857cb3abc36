"""From shifts between pairs of sections to one shift per section.

1. Least squares over all pairs with Huber weights: one path through the stack, in which a bad pair cannot pull far.
2. The path holds two things: sections that were put down off their place, and tissue that runs obliquely. The first is
   independent from section to section, the second keeps its direction. Split the path into the two, with their ratio
   read from the stack itself, and keep only the first: the rest is anatomy and must not be straightened.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_toeplitz, solve_triangular, solveh_banded

_PERSISTENCE = 0.7  # correlation of the tissue's movement between one gap and the next, as in neuropil at 40–50 nm
_BLOCK = 256  # sections looked at together when the ratio is judged: cubic in time beyond


def solve_path(
    z0: np.ndarray, z1: np.ndarray, measured: np.ndarray, trust: np.ndarray, depth: int, huber_px: float
) -> np.ndarray:
    """Place all sections so that they agree with the measured pairs.

    Parameters
    ----------
    z0, z1 : (P,) int arrays
        Compared sections, ``z0 < z1``.
    measured : (P, C) float array
        What moves section ``z1`` onto ``z0``, in pixels (or any other unit that adds up along z).
    trust : (P,) float array
        Weight of each pair, above 0.
    depth : int
        Number of sections.
    huber_px : float
        Least misfit at which a pair loses weight; more if the pairs scatter more.

    Returns
    -------
    (Z, C) float array
        Zero for sections without a pair; mean over the others about zero.

    Notes
    -----
    Iteratively reweighted least squares (Huber 1964; for section alignment Saalfeld et al. 2012). The normal matrix is
    banded, so time and memory grow with the number of sections only.
    """
    path = np.zeros((depth, measured.shape[1]))
    if len(z0) == 0:
        return path
    band = int((z1 - z0).max())
    weight = trust.astype(float)
    for _ in range(30):
        normal = np.zeros((band + 1, depth))
        # The faint pull to zero settles what no pair settles: a common offset, or parts of the stack without a link.
        normal[0] = 1e-7 * trust.max()
        np.add.at(normal[0], z0, weight)
        np.add.at(normal[0], z1, weight)
        np.add.at(normal, (z1 - z0, z0), -weight)
        right = np.zeros_like(path)
        np.add.at(right, z1, weight[:, None] * measured)
        np.add.at(right, z0, -weight[:, None] * measured)
        before, path = path, solveh_banded(normal, right, lower=True)
        misfit = np.sqrt(((measured - (path[z1] - path[z0])) ** 2).sum(axis=1))
        near = z1 - z0 == 1
        # Twice the typical misfit between neighbours; far pairs are biased by tissue and would set it too wide.
        limit = max(huber_px, 2 * float(np.median(misfit[near] if near.any() else misfit)))
        weight = trust * np.minimum(1, limit / np.maximum(misfit, 1e-12))
        if np.abs(path - before).max() < 1e-3:
            break
    return path


def misplacement(path: np.ndarray, ratio: float = 0.02, spread: float = 1.0) -> np.ndarray:
    """Split a path into misplaced sections and oblique tissue; return the first.

    Parameters
    ----------
    path : (Z, C) float array
        From :func:`solve_path`, pixels.
    ratio : float
        Movement of the tissue per section that is expected before looking, relative to the misplacement.
    spread : float
        Standard deviation of that expectation in units of ln(ratio).

    Returns
    -------
    (Z, C) float array
        Expected misplacement of each section given the path, pixels; mean zero.

    Notes
    -----
    With p the path, its steps are ``diff(p) = diff(s) + f``: s is independent N(0, σ²) per section; the movement f of
    the tissue per section has covariance ``(ratio σ)² (0.7^|i-j| + 1)``, a part that fades over a few sections and a
    steady one. The ratio is the most probable one under a log-normal prior (empirical Bayes, MacKay 1992), σ is
    profiled out. The estimate of s is then linear in the path (a Wiener filter).
    """
    depth = len(path)
    if depth < 3:
        return path - path.mean(axis=0)
    steps = np.diff(path, axis=0)
    candidates = np.geomspace(ratio / 2, 1000 * ratio, 36)
    scores = [_evidence(steps, g) - (np.log(g / ratio) / spread) ** 2 / 2 for g in candidates]
    best = float(candidates[int(np.argmax(scores))])
    weighted = solve_toeplitz(_covariance(len(steps), best), steps)
    found = -np.diff(weighted, axis=0, prepend=0, append=0)
    return found - found.mean(axis=0)


def _covariance(count: int, ratio: float) -> np.ndarray:
    """First column of the covariance of the steps, in units of the variance of the misplacement."""
    column = ratio**2 * (_PERSISTENCE ** np.arange(count) + 1)
    column[0] += 2
    if count > 1:
        column[1] -= 1
    return column


def _evidence(steps: np.ndarray, ratio: float) -> float:
    """Log-probability of the steps for a ratio, best variance, up to a constant."""
    parts = np.array_split(steps, -(-len(steps) // _BLOCK))
    determinant, square = 0.0, 1e-12
    for part in parts:
        column = _covariance(len(part), ratio)
        index = np.arange(len(part))
        lower = cholesky(column[np.abs(index[:, None] - index)], lower=True)
        determinant += 2 * np.log(np.diag(lower)).sum()
        square += float((solve_triangular(lower, part, lower=True) ** 2).sum())
    channels = steps.shape[1]
    return -channels / 2 * (determinant + len(steps) * np.log(square))
