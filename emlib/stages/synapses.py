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

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import ndimage as ndi
from scipy.spatial import cKDTree
from scipy.special import expit
from scipy.special import logit as scipy_logit

from emlib.stages.expert_synapse_components import ExpertSynapseSettings
from emlib.stages.synapse_direction import VOTES, leave_direction_open, sender_and_receiver, votes
from emlib.stages.synapse_surroundings import (
    TRUNCATE,
    Surroundings,
    average,
    blur,
    contacts,
    darkness,
    grow,
    pick,
    sampling_step,
)
from emlib.threads import map_threads
from emlib.volumes.volume import ZYX

CANDIDATE = {  # columns that every table of candidates begins with
    **dict.fromkeys(("z", "y", "x", "pre_id", "post_id"), "int64"),
    **dict.fromkeys(("score", "direction_confidence"), "float64"),
}
COLUMNS = {**CANDIDATE, **dict.fromkeys(("density", "breadth", "grain", "room"), "float64"), "partners": "str"}
MOST_GRAIN = 0.5  # beyond what tissue shows: sections without noise would let grain outvote density

# Log-odds per unit of evidence: logistic regression on the peaks of the 14 training sections of drosophila-vnc, inside
# a synapse mask or not, with the true and with the pipeline's own labels. The constant is moved so that the best F1 of
# those sections falls on a score of 0.10, the threshold of the graph.
EVIDENCE = {"density": 19.6, "breadth": 13.7, "grain": 4.9, "room": 1.8}
CONSTANT = -33.1


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
    directed: bool = True  # false leaves open which neurite sends
    experts: ExpertSynapseSettings = field(default_factory=ExpertSynapseSettings)


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
        ``partners`` names further neurites within reach, nearest first, joined by ";". With ``settings.directed`` off
        a column ``direction`` says "unknown". Without candidates the table is empty, with the same columns and dtypes.

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
    step = sampling_step(voxel_size_nm, settings.sampling_nm)
    grown = map_threads(lambda section: grow(pick(section, step), voxel_size_nm, step, settings.gap_nm), labels)

    def one(z: int) -> pd.DataFrame | None:
        # The section itself comes first; its neighbours only lend neurites.
        planes, height_nm = sections_near(z, len(em), voxel_size_nm, settings)
        near = np.stack([grown[plane] for plane in planes])
        return _section(em[z], smooth[planes], near, z, height_nm, voxel_size_nm, settings)

    found = [part for part in map_threads(one, range(len(em))) if part is not None]
    if not found:
        return pd.DataFrame({name: [] for name in COLUMNS}).astype(COLUMNS)
    table = pd.concat(found, ignore_index=True).astype(COLUMNS)
    table = table[table["score"] >= settings.min_score]
    table = table.sort_values(["score", "z", "y", "x"], ascending=[False, True, True, True], ignore_index=True)
    table = separate(table, voxel_size_nm, settings.separation_nm)
    return table if settings.directed else leave_direction_open(table)


def sections_near(z: int, depth: int, voxel_size_nm: ZYX, settings: SynapseSettings) -> tuple[list[int], np.ndarray]:
    """Return a section and, where sections are thinner than a density, those a contact away; and how far each is.

    Examples
    --------
    >>> sections_near(5, 20, (10.0, 10.0, 10.0), SynapseSettings())
    ([5, 3, 7], array([ 0., 20., 20.]))
    >>> sections_near(5, 20, (40.0, 8.0, 8.0), SynapseSettings())[0]
    [5]
    """
    reach = round(settings.contact_nm / voxel_size_nm[0]) if settings.density_nm >= voxel_size_nm[0] else 0
    planes = [z, *(n for n in (z - reach, z + reach) if reach and 0 <= n < depth)]
    return planes, np.abs(np.subtract(planes, z)) * float(voxel_size_nm[0])


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
    step = sampling_step(voxel_size_nm, settings.sampling_nm)
    plain = average(plain[None], step)[0]
    em = average(em, step)
    if em.size == 0 or np.ptp(plain) == 0 or not labels.any():
        return None
    px = float(np.mean(np.multiply(step, voxel_size_nm[1:])))
    dark = darkness(em, plain)
    density = blur(dark[0], settings.density_nm / px)
    contact = contacts(labels, round(settings.contact_nm / px))
    y, x = _peaks(density, contact, round(settings.spacing_nm / px), settings.min_density)
    evidence = {
        "density": density[y, x],
        "breadth": blur(dark[0], settings.breadth_nm / px)[y, x],
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
    vote = votes(VOTES, share=share, dark=side_dark, spots=spots)
    return pd.DataFrame(place | sender_and_receiver(near, vote) | {"score": score} | evidence)


def _peaks(density: np.ndarray, contact: np.ndarray, radius: int, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (y, x) of the largest density in their square, among contacts."""
    masked = np.where(contact, density, -np.inf).astype(np.float32)
    highest = ndi.maximum_filter(masked, 2 * max(1, radius) + 1)
    return np.nonzero((masked == highest) & (masked >= lowest))


def _grain(dark: np.ndarray, px: float, settings: SynapseSettings) -> np.ndarray:
    """Strength of vesicle-sized texture around each pixel, as the log of its ratio to the section's median."""
    fine, coarse = (blur(dark, sigma / px) for sigma in settings.grain_nm)
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
    around = Surroundings.of(labels, dark, y, x, height_nm, px, radius_nm=settings.cytoplasm_nm, rim_nm=settings.rim_nm)
    near = around.nearest(settings.partner_nm)
    share, side_dark, spots = around.sides(near)
    speck = share < settings.min_share
    near[speck], share[speck], side_dark[speck], spots[speck] = 0, 0, 0, 0
    order = np.argsort(near == 0, axis=1, kind="stable")
    return tuple(np.take_along_axis(values, order, axis=1) for values in (near, share, side_dark, spots))


def separate(table: pd.DataFrame, voxel_size_nm: ZYX, separation_nm: float) -> pd.DataFrame:
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
