"""Synapse candidates: dark densities where neurites meet, with the neurite that sends and the one that receives.

1. Bring each section to one sampling; measure darkness from the section's median in units of its contrast.
2. Contacts: places within reach of two different neurites.
3. Peaks of blurred darkness among the contacts. The blur is wider than a membrane, so that plain membranes fade.
4. Around each peak: the neurites, nearest first, how much of each there is, how dark it is, its vesicle-like spots.
5. Score: a logistic function of density, breadth, grain (vesicles make cytoplasm grainy) and room for the peak's owner.
6. Direction: the density of a fly's T-bar lies inside the sender, large, dark and spotted beside small receivers.
7. Of candidates closer than a synapse is wide, within and across sections, the best stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage as ndi
from scipy.spatial import cKDTree
from scipy.special import expit
from scipy.special import logit as scipy_logit

from emlib.threads import map_threads
from emlib.volumes.volume import ZYX

COLUMNS = {
    "z": "int64",
    "y": "int64",
    "x": "int64",
    "pre_id": "int64",
    "post_id": "int64",
    "score": "float64",
    "direction_confidence": "float64",
    "density": "float64",
    "breadth": "float64",
    "grain": "float64",
    "room": "float64",
    "partners": "str",
}
LEAST_CONTRAST = 0.5  # grey values from the median down to the darkest percent, at the least
SPOT = 0.5  # darkness of a vesicle against its cytoplasm
MOST_GRAIN = 0.5  # beyond what tissue shows: sections without noise would let grain outvote density
TRUNCATE = 3.0  # Gaussians end at three sigma
NEURITES = 4  # looked at around a peak, the nearest ones; a section rarely shows more partners

# Log-odds per unit of evidence: logistic regression on the peaks of the 14 training sections of drosophila-vnc, inside
# a synapse mask or not, with the true and with the pipeline's own labels. The constant is moved so that the best F1 of
# those sections falls on a score of 0.10, the threshold of the graph.
EVIDENCE = {"density": 19.6, "breadth": 13.7, "grain": 4.9, "room": 1.8}
CONSTANT = -33.1
# Votes for being the sender, a compromise between the neurite that the mask of each training synapse covers most and
# the phantom's known direction: per log of its share, per darkness, for lying nearest, per share of vesicle-like spots.
SENDER = {"share": 1.0, "dark": 1.0, "nearest": 1.0, "spots": 10.0}


@dataclass(frozen=True)
class SynapseSettings:
    """What counts as a synapse; lengths in nm."""

    sampling_nm: float = 9.2  # in-plane sampling; finer sections are averaged down to about this
    gap_nm: float = 40.0  # labels grow this far into background, so that they meet where a membrane was left out
    contact_nm: float = 20.0  # two neurites both this near make a contact
    density_nm: float = 12.0  # Gaussian that turns a density into a peak while a membrane fades
    breadth_nm: float = 30.0  # wider Gaussian: a density is broad as well
    grain_nm: tuple[float, float] = (8.0, 18.0)  # band between two Gaussians in which vesicles show
    grain_reach_nm: float = 250.0  # half side of the square in which it is averaged
    cytoplasm_nm: float = 150.0  # radius in which the neurites are judged
    rim_nm: float = 25.0  # cytoplasm nearer to another neurite is not searched for vesicles: there membrane is dark
    partner_nm: float = 80.0  # neurites that come this near a peak are partners
    min_share: float = 0.01  # unless they fill less of that neighbourhood: a speck is no neurite
    spacing_nm: float = 60.0  # peaks of one section are at least this far apart along y or x
    separation_nm: float = 200.0  # candidates nearer than this are one synapse
    min_density: float = 0.5  # fainter peaks are not looked at, in units of median minus darkest grey value
    min_score: float = 0.01  # weaker candidates are not listed


def find_candidates(
    em: np.ndarray, labels: np.ndarray, voxel_size_nm: ZYX, settings: SynapseSettings = SynapseSettings()
) -> pd.DataFrame:
    """Find synapse candidates between neurites.

    Parameters
    ----------
    em : (Z, Y, X) float array in [0, 1]
        Preprocessed and aligned, membranes and densities dark.
    labels : (Z, Y, X) integer array
        Neurite labels, 0 = background; they may touch or leave a gap for the membrane.
    voxel_size_nm : (z, y, x) in nm
    settings : SynapseSettings

    Returns
    -------
    DataFrame, best score first
        ``z, y, x`` (voxels); ``pre_id``, ``post_id`` (never 0, never equal); ``score`` in [0, 1], 0.10 being the
        operating point; ``direction_confidence`` in [0, 1], 0 where either could send. ``density`` and ``breadth``
        (darkness under the two blurs, in units of median minus darkest grey value), ``grain`` (log of its ratio to the
        section's median) and ``room`` (share of the neighbourhood that the nearest neurite fills) are the evidence.
        ``partners`` names further neurites within reach, nearest first, joined by ";". Without candidates the table
        is empty, with the same columns and dtypes.

    Raises
    ------
    ValueError
        If the arrays are not three-dimensional, their shapes differ, or labels are not integers.

    Notes
    -----
    Every step works on a section at a time. Sections thinner than a density are first averaged along z, and contacts
    are then looked for across sections too. The partner heuristic rests on the anatomy of polyadic insect synapses
    (Meinertzhagen & O'Neil 1991); darkness and vesicle texture as cues follow Kreshuk et al. 2011 and Huang et
    al. 2018.
    """
    em, labels = np.asarray(em, np.float32), np.asarray(labels)
    if em.ndim != 3 or em.shape != labels.shape:
        raise ValueError(f"em {em.shape} and labels {labels.shape} must be (Z, Y, X) arrays of one shape")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels have dtype {labels.dtype}: they must be integers")
    depth_px = settings.density_nm / voxel_size_nm[0]
    smooth = em
    if depth_px >= 1 and len(em) > 1:
        smooth = ndi.gaussian_filter1d(em, depth_px, axis=0, mode="nearest", truncate=TRUNCATE)
    reach = round(settings.contact_nm / voxel_size_nm[0]) if depth_px >= 1 else 0

    step = [max(1, round(settings.sampling_nm / size)) for size in voxel_size_nm[1:]]
    grown = map_threads(lambda section: _grow(_pick(section, step), voxel_size_nm, step, settings.gap_nm), labels)

    def one(z: int) -> pd.DataFrame | None:
        # The section itself comes first; its neighbours only lend neurites.
        planes = [z, *(n for n in (z - reach, z + reach) if reach and 0 <= n < len(em))]
        height_nm = np.abs(np.subtract(planes, z)) * float(voxel_size_nm[0])
        near = np.stack([grown[plane] for plane in planes])
        return _section(em[z], smooth[planes], near, z, height_nm, voxel_size_nm, settings)

    found = [part for part in map_threads(one, range(len(em))) if part is not None]
    if not found:
        return pd.DataFrame({name: [] for name in COLUMNS}).astype(COLUMNS)
    table = pd.concat(found, ignore_index=True).astype(COLUMNS)
    table = table[table["score"] >= settings.min_score]
    table = table.sort_values(["score", "z", "y", "x"], ascending=[False, True, True, True], ignore_index=True)
    return _separate(table, voxel_size_nm, settings.separation_nm)


def _section(
    plain: np.ndarray,
    em: np.ndarray,
    labels: np.ndarray,
    z: int,
    height_nm: np.ndarray,
    voxel_size_nm: ZYX,
    settings: SynapseSettings,
) -> pd.DataFrame | None:
    """All peaks of one section with two partners.

    ``em`` and ``labels`` are (P, Y, X), the section and its neighbours, ``labels`` already sampled and grown; ``plain``
    is the section before smoothing.
    """
    step = [max(1, round(settings.sampling_nm / size)) for size in voxel_size_nm[1:]]
    plain = _average(plain[None], step)[0]
    em = _average(em, step)
    if em.size == 0 or np.ptp(plain) == 0 or not labels.any():
        return None
    px = float(np.mean(np.multiply(step, voxel_size_nm[1:])))
    dark = _darkness(em, plain)
    density = _blur(dark[0], settings.density_nm / px)
    contact = _contacts(labels, round(settings.contact_nm / px))
    y, x = _peaks(density, contact, round(settings.spacing_nm / px), settings.min_density)
    evidence = {
        "density": density[y, x],
        "breadth": _blur(dark[0], settings.breadth_nm / px)[y, x],
        "grain": _grain(dark[0], px, settings)[y, x],
    }
    logit = CONSTANT + sum(EVIDENCE[name] * values.astype(np.float64) for name, values in evidence.items())
    # Peaks that cannot reach the lowest score, however much room their owner has, need no look at their partners.
    hopeful = logit + EVIDENCE["room"] >= scipy_logit(settings.min_score)
    near, share, side_dark, spots = _neurites(labels, dark, y[hopeful], x[hopeful], height_nm, px, settings)
    two = near[:, 1] > 0
    if not two.any():
        return None
    kept = np.flatnonzero(hopeful)[two]
    y, x, near, share, side_dark, spots = y[kept], x[kept], near[two], share[two], side_dark[two], spots[two]
    evidence = {name: values[kept] for name, values in evidence.items()} | {"room": share[:, 0]}
    score = expit(logit[kept] + EVIDENCE["room"] * share[:, 0])
    place = {"z": np.full(len(y), z), "y": y * step[0] + step[0] // 2, "x": x * step[1] + step[1] // 2}
    return pd.DataFrame(place | _direction(near, share, side_dark, spots) | {"score": score} | evidence)


def _average(em: np.ndarray, step: list[int]) -> np.ndarray:
    """Means of blocks of ``step`` pixels of (P, Y, X) sections; what does not fill a block is left out."""
    sy, sx = step
    if sy == sx == 1:
        return em
    planes, h, w = len(em), em.shape[1] // sy, em.shape[2] // sx
    return em[:, : h * sy, : w * sx].reshape(planes, h, sy, w, sx).mean((2, 4))


def _darkness(em: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Darkness below the median of the section ``plain``, in units of its median minus its first percentile."""
    low, middle = np.percentile(plain[::2, ::2], [1, 50])  # a quarter of the pixels tells as much
    # An equalised section spans half the grey scale or more; in a blander one membranes would pass for densities.
    return ((middle - em) / max(middle - low, LEAST_CONTRAST)).astype(np.float32)


def _pick(section: np.ndarray, step: list[int]) -> np.ndarray:
    """The label in the middle of each block of ``step`` pixels."""
    h, w = (n // size * size for n, size in zip(section.shape, step, strict=True))
    return section[step[0] // 2 : h : step[0], step[1] // 2 : w : step[1]]


def _grow(section: np.ndarray, voxel_size_nm: ZYX, step: list[int], gap_nm: float) -> np.ndarray:
    """Let labels grow into background, this far along y and x; the larger id wins a tie."""
    px = float(np.mean(np.multiply(step, voxel_size_nm[1:])))
    for _ in range(round(gap_nm / px)):
        if section.all():
            break
        section = np.where(section > 0, section, ndi.maximum_filter(section, 3))
    return section


def _blur(dark: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian that takes what lies outside for plain cytoplasm; a mirrored membrane would look twice as thick."""
    return ndi.gaussian_filter(dark, sigma, mode="constant", truncate=TRUNCATE)


def _contacts(labels: np.ndarray, radius: int) -> np.ndarray:
    """Where two different neurites lie in the square of this radius, in any of the planes."""
    size = 2 * max(1, radius) + 1
    empty = np.iinfo(labels.dtype).max
    highest = ndi.maximum_filter(labels.max(0), size)
    lowest = ndi.minimum_filter(np.where(labels > 0, labels, empty).min(0), size)
    return highest > lowest


def _peaks(density: np.ndarray, contact: np.ndarray, radius: int, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (y, x) of the largest density in their square, among contacts."""
    masked = np.where(contact, density, -np.inf).astype(np.float32)
    highest = ndi.maximum_filter(masked, 2 * max(1, radius) + 1)
    return np.nonzero((masked == highest) & (masked >= lowest))


def _grain(dark: np.ndarray, px: float, settings: SynapseSettings) -> np.ndarray:
    """Strength of vesicle-sized texture around each pixel, as the log of its ratio to the section's median."""
    fine, coarse = (_blur(dark, sigma / px) for sigma in settings.grain_nm)
    band = np.abs(fine - coarse)
    local = ndi.uniform_filter(band, 2 * max(1, round(settings.grain_reach_nm / px)) + 1)
    tiny = 1e-6  # a section that is mostly blank has a median of 0
    grain = np.log((np.maximum(local, 0) + tiny) / (np.median(band[::2, ::2]) + tiny))
    return np.clip(grain, -MOST_GRAIN, MOST_GRAIN)


def _neurites(
    labels: np.ndarray,
    dark: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    height_nm: np.ndarray,
    px: float,
    settings: SynapseSettings,
) -> tuple[np.ndarray, ...]:
    """Neurites near each peak, nearest first (0 = none): id, share of the neighbourhood, darkness, dark spots."""
    reach = max(1, int(settings.cytoplasm_nm / px))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    plane, dy, dx = (np.broadcast_to(a, (len(labels), *dy.shape)).ravel() for a in (_column(labels), dy, dx))
    distance = np.hypot(np.hypot(dy, dx) * px, height_nm[plane])
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] <= settings.cytoplasm_nm]
    plane, dy, dx, distance = plane[order], dy[order], dx[order], distance[order]
    height, width = labels.shape[1:]
    wy, wx = y[:, None] + dy, x[:, None] + dx
    inside = (wy >= 0) & (wy < height) & (wx >= 0) & (wx < width)
    at = np.where(inside, (plane * height + wy) * width + wx, 0)
    ids = np.where(inside, labels.ravel()[at], 0)
    darkness = dark.ravel()[at]
    rim = _contacts(labels[:1], round(settings.rim_nm / px))  # the neighbours, some 20 nm away, have nearly the same
    inner = ~rim.ravel()[at % rim.size]
    spotted = inner & (darkness > SPOT)

    left = ids[:, distance <= settings.partner_nm].copy()
    rows, total = np.arange(len(y)), np.maximum(inside.sum(1), 1)
    near = np.zeros((len(y), NEURITES), np.int64)
    share, side_dark, spots = (np.zeros(near.shape) for _ in range(3))
    for k in range(NEURITES if len(y) else 0):
        near[:, k] = left[rows, (left > 0).argmax(1)]
        mine = (ids == near[:, k, None]) & (near[:, k, None] > 0)
        pixels = mine.sum(1)
        share[:, k] = pixels / total
        side_dark[:, k] = np.einsum("ij,ij->i", darkness, mine) / np.maximum(pixels, 1)
        spots[:, k] = (mine & spotted).sum(1) / np.maximum((mine & inner).sum(1), 20)
        left[left == near[:, k, None]] = 0
    speck = share < settings.min_share
    near[speck], share[speck], side_dark[speck], spots[speck] = 0, 0, 0, 0
    order = np.argsort(near == 0, axis=1, kind="stable")
    return tuple(np.take_along_axis(values, order, axis=1) for values in (near, share, side_dark, spots))


def _column(labels: np.ndarray) -> np.ndarray:
    """Number of each plane, shaped to broadcast over it."""
    return np.arange(len(labels))[:, None, None]


def _direction(
    near: np.ndarray, share: np.ndarray, side_dark: np.ndarray, spots: np.ndarray
) -> dict[str, np.ndarray | list[str]]:
    """Sender, receiver and further partners of each peak; the receiver is the nearest neurite that does not send."""
    rows = np.arange(len(near))
    vote = SENDER["share"] * np.log(share + 1e-3) + SENDER["dark"] * side_dark + SENDER["spots"] * spots
    vote[:, 0] += SENDER["nearest"]
    pre = np.where(near > 0, vote, -np.inf).argmax(1)
    others = near.copy()
    others[rows, pre] = 0
    post = (others > 0).argmax(1)
    pre_id, post_id = near[rows, pre], near[rows, post]
    others[rows, post] = 0
    return {
        "pre_id": pre_id,
        "post_id": post_id,
        "direction_confidence": np.tanh((vote[rows, pre] - vote[rows, post]) / 2),
        "partners": [";".join(str(i) for i in row if i) for row in others.tolist()],
    }


def _separate(table: pd.DataFrame, voxel_size_nm: ZYX, separation_nm: float) -> pd.DataFrame:
    """Keep the best of candidates nearer to each other than ``separation_nm``; rows come best first."""
    at = table[["z", "y", "x"]].to_numpy(np.float64) * voxel_size_nm
    table = table[list(COLUMNS)]
    if len(at) < 2:
        return table.reset_index(drop=True)
    dropped = np.zeros(len(at), bool)
    for row, near in enumerate(cKDTree(at).query_ball_point(at, separation_nm)):
        if not dropped[row]:
            dropped[[other for other in near if other > row]] = True
    return table[~dropped].reset_index(drop=True)
