"""How much memory a run in blocks takes, told before it starts, and refused if one block does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emlib.blockwise import districts, flood, intensity, networks, seeds, synapses
from emlib.blockwise.grid import Shape, sides
from emlib.blockwise.partition import MOST_EDGES
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.stages.boundaries import near_isotropic
from emlib.stages.watershed import seed_window

if TYPE_CHECKING:
    from emlib.pipeline.settings import StageSettings

GB = 10**9
MIB = 2**20
BASE = 230 * 2**20  # interpreter and libraries, of each process; what follows is counted from the arrays that are held
DASK = 60 * 2**20  # besides, of each process where Dask carries the blocks
# Bytes of a voxel that a task sees (with its margin) or of a section, at the peak.
READ = 10  # of a layer, and what its type takes
PREPROCESS = 6  # of a layer
CLAHE = 70  # of one section: scikit-image works in float64
ALIGN = 24  # of a layer with the sections before it: spectra
RIDGE, RIDGE_FLAT = 40, 24  # six second derivatives, three eigenvalues
FLOOD = 36  # relief, its levels, seeds, fragments and the queue
CONTACTS = 34
SYNAPSES = 14  # of a layer with those that it looks at
SYNAPSE_SECTION = 60
PIECES, PIECES_SECTION = 7, 60  # of a layer; of a section whose pieces are widened
NETWORK = 250 * MIB  # PyTorch and weights, of each process
TILE_MARGIN = 96  # pixels, of both sides and up to the next multiple of 32
SHOWN, PREDICTED, SHOWN_SECTION = 1, 6, 40  # of a window; for each map; of a section of it
# In the process of the run, of the whole volume: fragments for each voxel (near isotropic, sections), bytes of each,
# and of each contact that is partitioned at once.
FRAGMENTS, CONTACTS_EACH = (0.0011, 0.01), 7
OF_FRAGMENT, OF_CONTACT = 40, 400


@dataclass(frozen=True)
class NetworkCost:
    """What a network takes.

    Attributes
    ----------
    pixel : float
        Bytes at the peak for each pixel of a tile.
    maps : int
        That it tells.
    sections : int
        That it sees at once.
    zoom : float
        Pixels that it sees for one of the volume, along an axis.
    """

    pixel: float
    maps: int
    sections: int
    zoom: float = 1.0


@dataclass(frozen=True)
class Budget:
    """What a run in blocks is expected to take.

    Attributes
    ----------
    workers : int
        As many as the budget suffices for.
    needed : int
        Bytes, of all processes on this machine.
    dearest : str
        The stage that takes most.
    """

    workers: int
    needed: int
    dearest: str

    def line(self) -> str:
        """One line for the shell."""
        return f"planned memory {self.needed / GB:.1f} GB with {self.workers} at work, most for {self.dearest}"


def check_blocks(site: Site, settings: StageSettings) -> None:
    """Refuse blocks that are smaller than what they must see around themselves.

    Raises
    ------
    UserError
        Naming the smallest that work.
    """
    far = least_sides(site, settings)
    small = [side < min(least, n) for side, least, n in zip(site.block, far, site.shape, strict=True)]
    if any(small):
        given, least = (" ".join(str(n) for n in reversed(sides)) for sides in (site.block, far))
        raise UserError(
            f"--blocks {given} (x y z) are smaller than the margin that filters see around a block; give at least "
            f"{least}, and rather 512 512 64"
        )


def least_sides(site: Site, settings: StageSettings) -> Shape:
    """The smallest block (z, y, x): as large as its margin on one side."""
    cut = settings.segment.fragments
    window = seed_window(site.voxel_size_nm, cut)
    relief = [s + w // 2 + 1 for s, w in zip(seeds.smooth_reach(site, cut), window, strict=True)]
    ridge = intensity.reach(settings.segment.boundaries, site)
    z, y, x = (max(a, b) for a, b in zip(relief, ridge, strict=True))
    return (z if near_isotropic(site.voxel_size_nm) else 1), y, x


def plan_blocks(
    site: Site,
    settings: StageSettings,
    itemsize: int,
    budget: int,
    workers: int,
    network: NetworkCost | None = None,
    more: Mapping[str, int] | None = None,
) -> Budget:
    """Plan the memory of a run.

    Parameters
    ----------
    site : Site
    settings : StageSettings
    itemsize : int
        Bytes of a voxel of the input.
    budget : int
        Bytes.
    workers : int
        Asked for; 1 does the work in the process of the run itself.
    network : NetworkCost, optional
        Of a run that shows its volume to one.
    more : mapping of str to int, optional
        Bytes that a block takes of stages that depend on another model, in the place of those of that name or besides.

    Returns
    -------
    Budget

    Raises
    ------
    UserError
        If the budget does not suffice for one worker; says which would.
    """
    costs = {**stage_bytes(site, settings, itemsize, network), **(more or {})}
    dearest, graph = max(costs, key=lambda stage: costs[stage]), graph_bytes(site, settings.segment.segmenter)
    base = BASE + (NETWORK if network else 0)
    alone = base + max(costs[dearest], graph)
    for count in range(workers, 1, -1):
        main = base + DASK + graph
        needed = main + count * (base + DASK + costs[dearest])
        if needed <= budget:
            return Budget(count, needed, dearest)
    if alone > budget:
        x, y, z = reversed(site.block)
        raise UserError(
            f"--memory_gb {budget / GB:.2g} is too little for blocks of {x} {y} {z} (x y z): {dearest} takes "
            f"{alone / GB:.2f} GB; give --memory_gb {np.ceil(alone / GB * 20) / 20:.2f}, or smaller --blocks"
        )
    if costs[dearest] < graph:
        dearest = "the graph"
    return Budget(1, alone, dearest)


def graph_bytes(site: Site, segmenter: str = "multicut") -> int:
    """Bytes of fragments and contacts of the whole volume in the process of the run."""
    fragments, contacts = _graph(site)
    if contacts <= MOST_EDGES or segmenter not in districts.LEFT:
        return int(fragments * OF_FRAGMENT + min(contacts, MOST_EDGES) * OF_CONTACT)
    left = max(districts.expected(site, contacts, segmenter, MOST_EDGES)[-1], MOST_EDGES)
    return int(max(fragments * OF_FRAGMENT, left * OF_CONTACT))  # one after the other


def _graph(site: Site) -> tuple[float, float]:
    """Fragments and contacts that the volume may have."""
    fragments = np.prod(site.shape, dtype=float) * FRAGMENTS[0 if near_isotropic(site.voxel_size_nm) else 1]
    return fragments, fragments * CONTACTS_EACH


def _district_bytes(site: Site, segmenter: str) -> float:
    """Bytes of the largest district of all levels; 0 where the graph is partitioned at once."""
    if segmenter not in districts.LEFT:
        return 0
    voxels, contacts = np.prod(site.shape, dtype=float), _graph(site)[1]
    starts = districts.expected(site, contacts, segmenter, MOST_EDGES)[:-1]
    seen = [districts.seen_by(site, level) / voxels * start for level, start in enumerate(starts)]
    return max(seen, default=0) * OF_CONTACT


def stage_bytes(
    site: Site, settings: StageSettings, itemsize: int, network: NetworkCost | None = None
) -> dict[str, int]:
    """Bytes that one block takes at the peak, by stage."""
    z, y, x = site.shape
    solid, section = near_isotropic(site.voxel_size_nm), y * x
    layer = site.chunk[0] * section
    before = min(z, site.chunk[0] + settings.align.reach) * section
    around = min(z, site.chunk[0] + 2 * synapses.reach(site, settings.synapses)) * section
    block = min(np.prod(site.block), np.prod(site.shape))
    ridge = _seen(site.block, intensity.reach(settings.segment.boundaries, site), site.shape)
    cut = settings.segment.fragments
    far = np.add(seeds.smooth_reach(site, cut), flood.margin(site, cut))
    cell = _seen(flood.cell_size(site), far, site.shape)
    costs = {
        "reading": layer * (READ + itemsize),
        "preprocess": layer * PREPROCESS + section * CLAHE,
        "align": 0 if solid else before * ALIGN,
        "boundaries": ridge * (RIDGE if solid else RIDGE_FLAT),
        "fragments": cell * FLOOD,
        "contacts": block * CONTACTS,
        "districts": _district_bytes(site, settings.segment.segmenter),
        "synapses": around * SYNAPSES + section * SYNAPSE_SECTION,
    }
    if network is not None:
        costs["pieces"] = (layer + section) * PIECES + section * PIECES_SECTION
        costs["network"] = _network_bytes(site, settings, network)
    return {stage: int(cost) for stage, cost in costs.items()}


def _network_bytes(site: Site, settings: StageSettings, network: NetworkCost) -> float:
    """Bytes of a window that is shown to a network, and of a tile, along the axis where they take most."""
    most, tile = 0.0, settings.experts.tile
    for axis in range(3 if near_isotropic(site.voxel_size_nm) else 1):
        first = sides(networks.windows(site, axis, tile)[1][0])
        voxels, section = np.prod(first), np.prod(first) / first[axis]
        more = section * (network.sections * (SHOWN + 8) + SHOWN_SECTION)
        plane = [n for at, n in enumerate(site.shape) if at != axis]
        pixels = np.prod([min(n * network.zoom, tile) + TILE_MARGIN for n in plane])
        most = max(most, voxels * (SHOWN + PREDICTED * network.maps) + more + pixels * network.pixel)
    return most


def _seen(size: Shape, reach: Shape, shape: Shape) -> int:
    """Voxels of a block with its margin."""
    return int(np.prod([min(n, side + 2 * far + 32) for side, far, n in zip(size, reach, shape, strict=True)]))
