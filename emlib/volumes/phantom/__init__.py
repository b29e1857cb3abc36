"""A synthetic neuropil volume with full truth: neurites, membranes, mitochondria, vesicles, synapses, section shifts.

It looks like serial-section (or, with isotropic voxels, block-face) EM and is as hard to threshold: cytoplasm holds
dark organelles, membranes are grey where they run along the section, contrast drifts, sections jitter.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import pandas as pd

from emlib.volumes.phantom.cytoplasm import draw_cytoplasm
from emlib.volumes.phantom.grid import Grid
from emlib.volumes.phantom.imaging import DAMAGE, develop, expose, jitter
from emlib.volumes.phantom.mitochondria import draw_mitochondria
from emlib.volumes.phantom.stain import Painter
from emlib.volumes.phantom.synapses import draw_synapses
from emlib.volumes.phantom.tissue import grow_tissue

__all__ = ["Phantom", "PhantomSettings", "make_phantom"]

FINE_NM = 10.0  # sections are averaged from layers of about this thickness
MARGIN_PX = 12  # around the sections before jitter, enough for 2 px of it
LARGEST = 3e8  # drawn voxels: some 6 GB and two minutes


@dataclass(frozen=True)
class PhantomSettings:
    """What to make; the same seed and settings give the same bytes.

    Attributes
    ----------
    seed : int
    shape : (Z, Y, X) in voxels
    voxel_size_nm : (z, y, x) in nm
        The tissue is drawn in nm: other voxel sizes show the same kind of tissue.
    jitter_px : float
        Sd of the independent displacement of each section along y and along x, in pixels; cut at four sd. Up to 2 px,
        a seed gives the same tissue whatever the jitter.
    drift : float
        Sd in grey levels of brightness from section to section and slowly within sections; 0 for none.
    noise : float
        Sd in grey levels of the noise of single voxels at grey 140.
    blur_nm : float
        Sd of the microscope's blur in the plane, and across sections thinner than twice that. About 3 for transmission
        EM, 7 for block-face imaging.
    mitochondria : float
        Their share of the volume; 5 to 8 % in neuropil.
    synapses_per_um3 : float
        1 to 3 in fly neuropil.
    damaged_section : int, bool or None
        One section to damage: its index, True for one that the seed chooses, False or None for none.
    damage : {"black", "partial", "fold"}
        The section is lost, half covered by dirt, or crossed by a fold. Truth is given in damaged sections too.
    """

    seed: int = 0
    shape: tuple[int, int, int] = (64, 256, 256)
    voxel_size_nm: tuple[float, float, float] = (40.0, 8.0, 8.0)
    jitter_px: float = 1.0
    drift: float = 4.0
    noise: float = 9.0
    blur_nm: float = 2.5
    mitochondria: float = 0.06
    synapses_per_um3: float = 2.5
    damaged_section: int | bool | None = None
    damage: str = "partial"

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or any(int(n) != n or n < 1 for n in self.shape):
            raise ValueError(f"shape must be three whole numbers (Z, Y, X) of at least 1, got {self.shape}")
        if min(self.shape[1:]) < 8:
            raise ValueError(f"sections must be at least 8 voxels wide, got shape {self.shape}")
        if len(self.voxel_size_nm) != 3 or not all(1 <= v <= 200 for v in self.voxel_size_nm):
            raise ValueError(f"voxel_size_nm must be three sizes (z, y, x) from 1 to 200 nm, got {self.voxel_size_nm}")
        for name in ("jitter_px", "drift", "noise", "blur_nm", "synapses_per_um3"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.jitter_px > 32:
            raise ValueError(f"jitter_px must be at most 32, got {self.jitter_px}")
        if not 0 <= self.mitochondria <= 0.3:
            raise ValueError(f"mitochondria must be a volume share from 0 to 0.3, got {self.mitochondria}")
        if self.damage not in DAMAGE:
            raise ValueError(f"damage must be one of {', '.join(DAMAGE)}, got {self.damage!r}")
        index = self.damaged_section
        if index is not None and not isinstance(index, bool) and not 0 <= index < self.shape[0]:
            raise ValueError(f"damaged_section must be in 0 … {self.shape[0] - 1}, got {index}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        layers = float(np.prod(np.multiply(self.shape, np.maximum(1, np.divide(self.voxel_size_nm, FINE_NM)))))
        if layers > LARGEST:
            raise ValueError(
                f"shape {self.shape} of {self.voxel_size_nm} nm voxels is drawn on {layers:.1e} voxels of "
                f"{FINE_NM:.0f} nm, more than {LARGEST:.0e}: ask for a smaller shape or smaller voxels"
            )


@dataclass(frozen=True)
class Phantom:
    """EM with its truth, all of it in the frame of the EM as delivered: jittered with the sections.

    Attributes
    ----------
    em : (Z, Y, X) uint8 array
    labels : (Z, Y, X) int32 array
        Neurites 1 … N, each one 26-connected piece; 0 on membranes only. A neurite whose parts meet outside the volume
        has one id for each part.
    membranes, mitochondria, vesicles : (Z, Y, X) bool arrays
        Vesicles at synapses and in transit.
    clefts : (Z, Y, X) int32 array
        Row of ``synapses`` plus one, 0 elsewhere.
    synapses : DataFrame
        ``z, y, x`` of the cleft in voxels (``z`` whole), ``pre_id, post_id``, a point inside either partner
        (``pre_z, pre_y, pre_x, post_z, post_y, post_x``), and the cleft before jitter (``z_aligned, y_aligned,
        x_aligned``).
    shifts : DataFrame ``z, dy, dx``
        Displacement in pixels that was added to each section; positive moved content down and right.
    damaged : tuple of int
        Damaged sections.
    settings : PhantomSettings
    """

    em: np.ndarray
    labels: np.ndarray
    membranes: np.ndarray
    mitochondria: np.ndarray
    vesicles: np.ndarray
    clefts: np.ndarray
    synapses: pd.DataFrame
    shifts: pd.DataFrame
    damaged: tuple[int, ...]
    settings: PhantomSettings


def make_phantom(settings: PhantomSettings = PhantomSettings()) -> Phantom:
    """Make a synthetic EM volume with full truth.

    Parameters
    ----------
    settings : PhantomSettings

    Returns
    -------
    Phantom

    Examples
    --------
    >>> phantom = make_phantom(PhantomSettings(shape=(4, 48, 48)))
    >>> phantom.em.shape, phantom.em.dtype, phantom.labels.dtype
    ((4, 48, 48), dtype('uint8'), dtype('int32'))
    """
    shape = tuple(int(n) for n in settings.shape)
    voxel = np.array(settings.voxel_size_nm, float)
    rng = np.random.default_rng([settings.seed, 0])
    # four sd and no more: the margin holds real content for every section
    moves = settings.jitter_px * np.clip(rng.standard_normal((shape[0], 2)), -4, 4)
    # in leaps, so that a seed gives the same tissue with and without jitter
    margin = MARGIN_PX * 2 ** max(0, int(np.ceil(np.log2(max(settings.jitter_px, 2) / 2))))
    sections = Grid(
        (shape[0], shape[1] + 2 * margin, shape[2] + 2 * margin),
        tuple(voxel.tolist()),
        (0.0, -margin * voxel[1], -margin * voxel[2]),
    )
    layers = np.maximum(1, np.rint(voxel / FINE_NM).astype(int))
    fine = Grid(tuple((layers * sections.shape).tolist()), tuple((voxel / layers).tolist()), sections.origin)

    tissue = grow_tissue(fine, settings.seed)
    # synapses keep away from the border, so that no section moves them out
    border = np.maximum(np.minimum(margin, np.array(shape[1:]) // 4), np.abs(moves).max(axis=0) + 2)
    border = np.minimum(np.r_[0, border], 0.5 * np.array(shape))
    inner = (border * voxel, (shape - border) * voxel)
    painter = Painter(tissue, sections)
    draw_mitochondria(painter, settings.mitochondria, np.random.default_rng([settings.seed, 2]))
    rng = np.random.default_rng([settings.seed, 3])
    clefts, positions = draw_synapses(painter, inner, settings.synapses_per_um3, rng)
    draw_cytoplasm(painter, np.random.default_rng([settings.seed, 4]))
    mitochondria, vesicles = painter.mitochondria, painter.vesicles
    em, labels, membranes = expose(tissue, sections, painter.dark, settings.blur_nm, settings.seed)
    del tissue, painter
    masks = [labels, membranes, mitochondria, vesicles, clefts]
    em, (labels, membranes, mitochondria, vesicles, clefts) = jitter(em, masks, moves, margin)
    labels = _one_id_per_piece(labels)
    synapses = _synapse_table(positions, voxel, moves, labels)
    damaged = _damaged_sections(settings)
    em = develop(em, settings.drift, settings.noise, dict.fromkeys(damaged, settings.damage), settings.seed)
    shifts = pd.DataFrame({"z": np.arange(shape[0]), "dy": moves[:, 0], "dx": moves[:, 1]})
    return Phantom(em, labels, membranes, mitochondria, vesicles, clefts, synapses, shifts, damaged, settings)


def _damaged_sections(settings: PhantomSettings) -> tuple[int, ...]:
    index, count = settings.damaged_section, settings.shape[0]
    if index is None or index is False:
        return ()
    if index is True:
        # from the middle half, where neighbours on both sides can stand in
        index = int(np.random.default_rng([settings.seed, 8]).integers(count // 4, count - count // 4))
    return (int(index),)


def _one_id_per_piece(labels: np.ndarray) -> np.ndarray:
    """Number the 26-connected pieces of labels from 1, larger first; crumbs become 0."""
    crumb = min(30, 1 + labels.size // 200)
    pieces, count = cc3d.connected_components(labels, connectivity=26, return_N=True)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= crumb]
    new = np.zeros(count + 1, np.int32)
    new[order] = np.arange(1, len(order) + 1)
    return new[pieces]


def _synapse_table(positions: np.ndarray, voxel: np.ndarray, moves: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Positions (S, 3, 3) in nm before jitter -> table in voxels of the delivered volume."""
    aligned = positions / voxel - 0.5
    aligned[..., 0] = np.rint(aligned[..., 0])
    delivered = aligned.copy()
    delivered[..., 1:] += moves[aligned[..., 0].astype(int)]
    table = pd.DataFrame({name: delivered[:, 0, i] for i, name in enumerate("zyx")})
    for part, name in ((1, "pre"), (2, "post")):
        where = np.clip(np.rint(delivered[:, part]).astype(int), 0, np.array(labels.shape) - 1)
        table[f"{name}_id"] = labels[tuple(where.T)]
    for part, name in ((1, "pre"), (2, "post")):
        for i, axis in enumerate("zyx"):
            table[f"{name}_{axis}"] = delivered[:, part, i]
    for i, axis in enumerate("zyx"):
        table[f"{axis}_aligned"] = aligned[:, 0, i]
    return table.astype({name: np.int64 for name in ("z", "pre_z", "post_z", "z_aligned")})
