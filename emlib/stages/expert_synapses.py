"""Synapse candidates from a network's map: its pieces, the neurites that they lie on, and which of these sends.

1. Pieces of the map (`emlib.stages.expert_synapse_components`): place, area, score.
2. Partners: the neurites within a membrane's thickness of the piece, ranked by the area in which they meet it.
3. Direction: the density of a fly's T-bar lies just inside the sender, its vesicles behind it. How dark each neurite is
   near the piece and how grainy a little farther are weighed as was learnt on the phantom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from emlib.stages.expert_synapse_components import Pieces, find_pieces, piece_score
from emlib.stages.synapse_direction import LEARNED, leave_direction_open, sender_and_receiver, votes
from emlib.stages.synapse_surroundings import (
    NEURITES,
    TRUNCATE,
    average,
    blur,
    contacts,
    grey_levels,
    grow,
    pick,
    sampling_step,
)
from emlib.stages.synapses import CANDIDATE, SynapseSettings
from emlib.threads import map_threads
from emlib.volumes.volume import ZYX

COLUMNS = {**CANDIDATE, "area_nm2": "float64", "contact": "float64", "partners": "str"}
FARTHER = (1, 2, 4)  # times the reach of a contact, until two neurites are within it: a map may be narrow
DENSE_NM = (25.0, 50.0)  # distance from the piece at which the T-bar shows
GRAIN_NM = (50.0, 90.0)  # and vesicles do
DARKEST = 90  # percentile of darkness that stands for a density
FEWEST = 20  # pixels of cytoplasm that a grain is the mean of, at the least


def find_expert_candidates(
    probability: np.ndarray,
    em: np.ndarray,
    labels: np.ndarray,
    voxel_size_nm: ZYX,
    settings: SynapseSettings | None = None,
) -> pd.DataFrame:
    """Find synapse candidates in a network's map of synapses.

    Parameters
    ----------
    probability : (Z, Y, X) float array in [0, 1]
        That a voxel belongs to a synapse.
    em : (Z, Y, X) float array in [0, 1]
        Preprocessed and aligned, for the direction.
    labels : (Z, Y, X) integer array
        Neurite labels, 0 = background.
    voxel_size_nm : (z, y, x) in nm
    settings : SynapseSettings

    Returns
    -------
    DataFrame, best score first
        ``z, y, x`` (voxels); ``pre_id``, ``post_id`` (never 0, never equal); ``score`` in [0, 1], the share of pieces
        of this area that are synapses where it was calibrated; ``direction_confidence`` in [0, 1]; ``area_nm2``, the
        largest area of the piece in one section; ``contact``, the share of the area around it that these two neurites
        have; ``partners``, further neurites, the largest contact first, joined by ";". Pieces that touch fewer than two
        neurites are left out. With ``settings.directed`` off a column ``direction`` says "unknown".

    Raises
    ------
    ValueError
        If the arrays are not three-dimensional, their shapes differ, or labels are not integers.
    """
    settings = settings or SynapseSettings()
    em, labels, probability = np.asarray(em, np.float32), np.asarray(labels), np.asarray(probability)
    if em.ndim != 3 or not em.shape == labels.shape == probability.shape:
        shapes = f"probability {probability.shape}, em {em.shape} and labels {labels.shape}"
        raise ValueError(f"{shapes} must be (Z, Y, X) arrays of one shape")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels have dtype {labels.dtype}: they must be integers")
    pieces = find_pieces(probability, voxel_size_nm, settings.experts)
    near, contact, evidence = look_at_pieces(pieces, em, labels, voxel_size_nm, settings)
    return candidate_table(pieces.place, pieces.area_nm2, near, contact, evidence, settings)


def candidate_table(
    place: np.ndarray,
    area_nm2: np.ndarray,
    near: np.ndarray,
    contact: np.ndarray,
    evidence: dict[str, np.ndarray],
    settings: SynapseSettings,
) -> pd.DataFrame:
    """Decide on partners and direction of pieces and list them, as `find_expert_candidates` says.

    Parameters
    ----------
    place : (N, 3) int array
    area_nm2 : (N,) float array
    near, contact, evidence
        As from `look_at_pieces`.
    settings : SynapseSettings
    """
    two = near[:, 1] > 0
    chosen = sender_and_receiver(near[two], votes(LEARNED, **{name: values[two] for name, values in evidence.items()}))
    table = pd.DataFrame(
        {
            **dict(zip("zyx", place[two].T, strict=True)),
            **chosen,
            "score": piece_score(area_nm2)[two],
            "area_nm2": area_nm2[two],
            "contact": contact[two, :2].sum(1),
        }
    )
    table = table[list(COLUMNS)].astype(COLUMNS)
    table = table.sort_values(["score", "z", "y", "x"], ascending=[False, True, True, True], ignore_index=True)
    return table if settings.directed else leave_direction_open(table)


def look_at_pieces(
    pieces: Pieces, em: np.ndarray, labels: np.ndarray, voxel_size_nm: ZYX, settings: SynapseSettings
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Find the neurites at each piece, and what they show there.

    Parameters
    ----------
    pieces : Pieces
    em : (Z, Y, X) float array in [0, 1]
    labels : (Z, Y, X) integer array
    voxel_size_nm : (z, y, x) in nm
    settings : SynapseSettings

    Returns
    -------
    near : (N, 4) int array
        Neurites, largest contact first, 0 where there are no more.
    contact : (N, 4) float array
        Their shares of the piece's contacts.
    evidence : dict of (N, 4) float arrays
        ``dense``, the darkness (in units of median minus darkest grey value) 25 to 50 nm from the piece, and ``grain``,
        the texture of cytoplasm 50 to 90 nm from it.
    """
    shape = len(pieces.place), NEURITES
    near, contact = np.zeros(shape, np.int64), np.zeros(shape)
    evidence = {"dense": np.zeros(shape), "grain": np.zeros(shape)}
    if not len(pieces.place):
        return near, contact, evidence
    step = sampling_step(voxel_size_nm, settings.sampling_nm)
    grown = map_threads(lambda section: grow(pick(section, step), voxel_size_nm, step, settings.gap_nm), labels)
    around = Around(np.stack(grown), em, map_threads(grey_levels, em), step, voxel_size_nm, settings)

    def one(row: int) -> None:
        at = sampled(pieces.voxels[row], step, labels.shape)
        ids, share, seen = around.look(at)
        near[row, : len(ids)], contact[row, : len(ids)] = ids, share
        for name, values in seen.items():
            evidence[name][row, : len(ids)] = values

    map_threads(one, range(len(pieces.place)))
    return near, contact, evidence


def sampled(voxels: np.ndarray, step: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """The sampled pixels (V', 3) of a piece; what does not fill a block of ``step`` at the border is not sampled."""
    at = np.unique(voxels // [1, *step], axis=0)
    return at[(at < [shape[0], *np.floor_divide(shape[1:], step)]).all(1)]


def sampled_reach(voxel_size_nm: ZYX, step: list[int], settings: SynapseSettings) -> np.ndarray:
    """Sampled pixels (z, y, x) that are looked at around a piece."""
    far = max(FARTHER[-1] * settings.contact_nm, GRAIN_NM[1] + TRUNCATE * settings.grain_nm[1])
    return np.floor(far / np.multiply(voxel_size_nm, [1, *step])).astype(int)


@dataclass(frozen=True)
class Around:
    """A sampled volume, or a box of one, in which pieces lie; their voxels ``at`` are (V, 3) in its sampled pixels."""

    labels: np.ndarray  # sampled and grown
    em: np.ndarray  # not sampled
    levels: list[tuple[float, float]]
    step: list[int]
    voxel_size_nm: ZYX
    settings: SynapseSettings

    @property
    def size_nm(self) -> ZYX:
        return (self.voxel_size_nm[0], *(float(s * v) for s, v in zip(self.step, self.voxel_size_nm[1:], strict=True)))

    def look(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, list[float]]]:
        """Neurites at a piece, their shares of its contacts, and what each shows; nothing where these are not two."""
        ids, share = self.partners(at) if len(at) else (np.zeros(0, int), np.zeros(0))
        return (ids, share, self.evidence(at, ids)) if len(ids) >= 2 else (ids[:0], share[:0], {})

    def partners(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Neurites at a piece, largest contact first, and their shares of its contacts."""
        for times in FARTHER:
            reach_nm = self.settings.contact_nm * times
            box, far = self._around(at, reach_nm)
            around = self.labels[box][far <= reach_nm]
            ids, area = np.unique(around[around > 0], return_counts=True)
            enough = area >= self.settings.min_share * area.sum()
            ids, area = ids[enough], area[enough]
            if len(ids) >= 2:
                break
        order = np.lexsort((ids, -area))[:NEURITES]
        return ids[order], area[order] / max(area.sum(), 1)

    def evidence(self, at: np.ndarray, ids: np.ndarray) -> dict[str, list[float]]:
        """What each of these neurites shows around a piece."""
        fine, coarse = (sigma / self.size_nm[1] for sigma in self.settings.grain_nm)
        rim = round(self.settings.rim_nm / self.size_nm[1])
        box, far = self._around(at, GRAIN_NM[1] + TRUNCATE * self.settings.grain_nm[1])
        labels = self.labels[box]
        inner = ~np.stack([contacts(section[None], rim) for section in labels])
        dark = self._darkness(box)
        smooth = np.stack([blur(section, fine) for section in dark])
        band = np.abs(smooth - np.stack([blur(section, coarse) for section in dark]))
        close = inner & (far > DENSE_NM[0]) & (far <= DENSE_NM[1])
        behind = inner & (far > GRAIN_NM[0]) & (far <= GRAIN_NM[1])
        found: dict[str, list[float]] = {"dense": [], "grain": []}
        for neurite in ids:
            mine = labels == neurite
            values = smooth[mine & close]
            found["dense"].append(float(np.percentile(values, DARKEST)) if values.size else 0.0)
            values = band[mine & behind]
            found["grain"].append(float(values.sum(dtype=np.float64)) / max(values.size, FEWEST))
        return found

    def _around(self, at: np.ndarray, reach_nm: float) -> tuple[tuple[slice, ...], np.ndarray]:
        """The box around a piece, and the distance of its voxels from it in nm."""
        margin = np.floor(reach_nm / np.array(self.size_nm)).astype(int)
        low = np.maximum(at.min(0) - margin, 0)
        high = np.minimum(at.max(0) + margin + 1, self.labels.shape)
        outside = np.ones(high - low, bool)
        outside[tuple((at - low).T)] = False
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return box, ndi.distance_transform_edt(outside, sampling=self.size_nm)

    def _darkness(self, box: tuple[slice, ...]) -> np.ndarray:
        """Darkness in a box of sampled pixels, each section by its own grey."""
        z, *plane = box
        fine = (slice(side.start * s, side.stop * s) for side, s in zip(plane, self.step, strict=True))
        sampled = average(self.em[(z, *fine)], self.step)
        middle, contrast = np.array(self.levels[z], np.float32).T[:, :, None, None]
        return (middle - sampled) / contrast
