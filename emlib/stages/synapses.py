"""Synapse candidates: dark densities where two neurites meet, with the neurite that is likely to send and the one to receive.

1. Bring each section to a common sampling; darkness is measured against the section's own median and contrast.
2. Contacts: places where two neurites lie within reach of each other.
3. Peaks of blurred darkness among the contacts; the blur is wider than a membrane, so plain membranes fade.
4. Around each peak: the partners, and for each the darkness and grain of its cytoplasm (vesicles make it dark and grainy).
   The grainier, darker, larger side sends.
5. Score: logistic function of density, curvature and grain.
6. Of candidates closer than a synapse is wide, within and across sections, the best one stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from emlib.threads import map_threads

COLUMNS = {
    "z": "int64",
    "y": "int64",
    "x": "int64",
    "pre_id": "int64",
    "post_id": "int64",
    "score": "float64",
    "direction_confidence": "float64",
    "darkness": "float64",
    "grain": "float64",
    "partners": "str",
}
PARTNERS = 4  # neurites looked at around a candidate; fly synapses rarely have more in one section


@dataclass(frozen=True)
class SynapseSettings:
    """What counts as a synapse; lengths in nm."""

    sampling_nm: float = 9.2  # in-plane sampling; finer sections are averaged to about this
    contact_nm: float = 40.0  # two neurites both this near make a contact; covers the gap a membrane leaves
    density_nm: float = 22.0  # Gaussian that makes a density a peak and lets a thin membrane fade
    spacing_nm: float = 60.0  # peaks in one section are at least this far apart
    cytoplasm_nm: float = 150.0  # radius in which each side's cytoplasm is judged
    partner_nm: float = 80.0  # neurites that come this near a peak are its partners
    separation_nm: float = 150.0  # candidates nearer than this are one synapse
    min_score: float = 0.01  # weaker candidates are not listed


def find_candidates(
    em: np.ndarray,
    labels: np.ndarray,
    voxel_size_nm: tuple[float, float, float],
    settings: SynapseSettings = SynapseSettings(),
) -> pd.DataFrame:
    """Find synapse candidates between neurites.

    Parameters
    ----------
    em : (Z, Y, X) float array in [0, 1]
        Preprocessed and aligned; densities are dark.
    labels : (Z, Y, X) integer array
        Neurite labels, 0 = background.
    voxel_size_nm : (z, y, x) in nm
    settings : SynapseSettings

    Returns
    -------
    DataFrame, best score first
        ``z, y, x`` (voxels), ``pre_id``, ``post_id`` and ``score`` in [0, 1]; ``direction_confidence`` in [0, 1],
        ``darkness`` and ``grain`` (the evidence, in units of the section's contrast), ``partners`` (further neurites
        within reach, nearest first, joined by ";"). Always the same columns and dtypes, also without rows.

    Raises
    ------
    ValueError
        If the arrays are not three-dimensional, or their shapes differ.
    """
    if np.ndim(em) != 3 or np.shape(em) != np.shape(labels):
        raise ValueError(f"em {np.shape(em)} and labels {np.shape(labels)} must be (Z, Y, X) arrays of one shape")
    if em.size == 0:
        return _table([])
    em = _smooth_along_z(em, voxel_size_nm, settings)
    found = map_threads(lambda z: _section(em[z], labels[z], z, voxel_size_nm, settings), range(len(em)))
    table = _table([rows for rows in found if rows is not None])
    table = table[table["score"] >= settings.min_score]
    table = table.sort_values(["score", "z", "y", "x"], ascending=[False, True, True, True], ignore_index=True)
    return _separate(table, voxel_size_nm, settings.separation_nm)


def _smooth_along_z(em, voxel_size_nm, settings):
    """Average neighbouring sections where they are thinner than a density."""
    sigma = settings.density_nm / voxel_size_nm[0]
    return ndi.gaussian_filter1d(em, sigma, axis=0, mode="nearest") if sigma >= 1 and len(em) > 1 else em


def _section(em, labels, z, voxel_size_nm, settings):
    """Candidates of one section as a dictionary of columns, or None."""
    step = [max(1, round(settings.sampling_nm / size)) for size in voxel_size_nm[1:]]
    em, labels = _sample(em, labels, step)
    px = float(np.mean([s * size for s, size in zip(step, voxel_size_nm[1:], strict=True)]))
    if em.size == 0 or not labels.any() or (spread := float(np.ptp(em))) == 0:
        return None
    contact = _contacts(labels, round(settings.contact_nm / px))
    if not contact.any():
        return None
    low, middle = np.percentile(em, [1, 50])
    dark = (middle - em) / max(middle - low, 0.1 * spread)
    density = ndi.gaussian_filter(dark, settings.density_nm / px)
    masked = np.where(contact, density, -np.inf)
    radius = max(1, round(settings.spacing_nm / px))
    peak = contact & (masked == ndi.maximum_filter(masked, size=2 * radius + 1)) & (density > 0)
    y, x = np.nonzero(peak)
    if not len(y):
        return None
    grain_map = np.abs(ndi.gaussian_filter(dark, 8 / px) - ndi.gaussian_filter(dark, 18 / px))
    near, sides = _sides(labels, dark, grain_map, y, x, px, settings)
    two = near[:, 1] > 0
    y, x, near, sides = y[two], x[two], near[two], sides[:, two]
    if not len(y):
        return None
    grain = ndi.gaussian_filter(grain_map, 150 / px)[y, x] / max(float(np.median(grain_map)), 1e-6)
    return _columns(z, y, x, step, density[y, x], grain, near, sides)


def _columns(z, y, x, step, density, grain, near, sides):
    rows = np.arange(len(y))
    share, side_dark, side_grain = sides
    vote = np.where(near > 0, side_grain + 0.5 * side_dark + 0.1 * np.log(share + 1), -np.inf)
    pre = vote.argmax(1)
    others = near.copy()
    others[rows, pre] = 0
    post = (others > 0).argmax(1)  # neurites come nearest first
    gap = vote[rows, pre] - vote[rows, post]
    post_id = others[rows, post]
    others[rows, post] = 0
    evidence = 8 * (density - 0.75) + 2 * (grain - 1.5)
    return {
        "z": np.full(len(y), z),
        "y": y * step[0] + step[0] // 2,
        "x": x * step[1] + step[1] // 2,
        "pre_id": near[rows, pre],
        "post_id": post_id,
        "score": 1 / (1 + np.exp(-np.clip(evidence, -30, 30))),
        "direction_confidence": np.clip(gap, 0, 1),
        "darkness": density,
        "grain": grain,
        "partners": [";".join(str(i) for i in row if i) for row in others.tolist()],
    }


def _sample(em, labels, step):
    """Average em, and pick labels, in blocks of step pixels."""
    if step == [1, 1]:
        return em, labels
    sy, sx = step
    h, w = em.shape[0] // sy, em.shape[1] // sx
    blocks = em[: h * sy, : w * sx].reshape(h, sy, w, sx)
    return blocks.mean((1, 3)), labels[sy // 2 : h * sy : sy, sx // 2 : w * sx : sx]


def _contacts(labels, radius):
    """True where two different neurites lie in the square of this radius around a pixel."""
    size = 2 * max(1, radius) + 1
    highest = ndi.maximum_filter(labels, size)
    lowest = ndi.minimum_filter(np.where(labels > 0, labels, np.iinfo(labels.dtype).max), size)
    return highest > lowest


def _sides(labels, dark, grain, y, x, px, settings):
    """The neurites near each peak, nearest first, and the size, darkness and grain of their cytoplasm."""
    reach = max(1, round(settings.cytoplasm_nm / px))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(dy, dx) * px
    order = np.argsort(distance, axis=None, kind="stable")
    order = order[distance.ravel()[order] <= settings.cytoplasm_nm]
    dy, dx, distance = dy.ravel()[order], dx.ravel()[order], distance.ravel()[order]
    wy, wx = y[:, None] + dy, x[:, None] + dx
    inside = (wy >= 0) & (wy < labels.shape[0]) & (wx >= 0) & (wx < labels.shape[1])
    at = np.where(inside, wy * labels.shape[1] + wx, 0)
    ids = np.where(inside, labels.ravel()[at], 0)
    dark, grain = dark.ravel()[at], grain.ravel()[at]
    left = ids.copy()
    left[:, distance > settings.partner_nm] = 0
    near = np.zeros((len(y), PARTNERS), np.int64)
    sides = np.zeros((3, len(y), PARTNERS))
    rows = np.arange(len(y))
    for k in range(PARTNERS):
        near[:, k] = left[rows, (left > 0).argmax(1)]
        mine = (ids == near[:, k, None]) & (near[:, k, None] > 0)
        count = np.maximum(mine.sum(1), 1)
        sides[:, :, k] = mine.sum(1), (dark * mine).sum(1) / count, (grain * mine).sum(1) / count
        left[left == near[:, k, None]] = 0
    return near, sides


def _table(parts):
    columns = {name: np.concatenate([part[name] for part in parts]) if parts else [] for name in COLUMNS}
    return pd.DataFrame(columns).astype(COLUMNS)


def _separate(table, voxel_size_nm, separation_nm):
    """Keep the best of candidates nearer to each other than ``separation_nm``; rows come best first."""
    at = table[["z", "y", "x"]].to_numpy(float) * voxel_size_nm
    if len(at) < 2:
        return table
    neighbours = cKDTree(at).query_ball_point(at, separation_nm)
    dropped = np.zeros(len(at), bool)
    for row, near in enumerate(neighbours):
        if not dropped[row]:
            dropped[[other for other in near if other > row]] = True
    return table[~dropped].reset_index(drop=True)
