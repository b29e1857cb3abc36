"""What there is to see of a run: EM, boundary probability, neurites, and synapses with a place in each partner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emlib.proofread.run_files import RunFiles, find_run
from emlib.view.partners import partner_places
from emlib.volumes.levels import Levels, open_levels
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class Contents:
    """A run as a viewer shows it.

    Attributes
    ----------
    files : RunFiles
    images : dict of Levels
        ``em`` and ``boundaries``, as far as they are there; uint8 (uint16 where the EM is).
    neurites : Levels
        uint32 or uint64.
    synapses : DataFrame
        ``z, y, x, pre_id, post_id, score`` and ``pre_z … post_x``, voxels; the best first.
    directed : bool
        Whether the synapses say which side sends.
    total : int
        How many synapses the run has.
    """

    files: RunFiles
    images: dict[str, Levels]
    neurites: Levels
    synapses: pd.DataFrame
    directed: bool
    total: int

    @property
    def voxel_size_nm(self) -> ZYX:
        """Voxel size (z, y, x) in nm."""
        return self.neurites.voxel_size_nm


def open_contents(
    outdir: str | Path,
    labels: str | Path | None = None,
    voxel_size_nm: Iterable[float] | None = None,
    most: int | None = None,
) -> Contents:
    """Open what a run left; voxels are read when they are asked for.

    Parameters
    ----------
    outdir : path
    labels : path, optional
        Other labels of the same volume: corrected or refined ones.
    voxel_size_nm : (z, y, x) in nm, optional
    most : int, optional
        Take no more than the best so many synapses.

    Raises
    ------
    UserError
        If there is no run in ``outdir``, or its files do not belong together.
    """
    files = find_run(outdir, labels, voxel_size_nm)
    size = files.voxel_size_nm
    images = {}
    for name, source in (("em", files.em), ("boundaries", files.boundaries)):
        if source is not None:
            images[name] = _as_grey(open_levels(source, size, "mean"))
    unsigned = np.dtype(np.uint64 if files.labels.dtype.itemsize > 4 else np.uint32)
    neurites = open_levels(files.labels, size, "mode").map(lambda block: block.astype(unsigned), unsigned)
    table = files.read_candidates() if labels is None else files.read_candidates(newest=True)
    directed = not ("direction" in table and (table["direction"] == "unknown").all())
    best = table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True).head(most or len(table))
    return Contents(files, images, neurites, partner_places(best, files.labels, size), directed, len(table))


def _as_grey(levels: Levels) -> Levels:
    """Floats in [0, 1] as uint8: a screen shows no more, and a browser knows no float16."""
    if levels.dtype.kind != "f":
        return levels
    return levels.map(lambda block: np.rint(np.clip(block, 0, 1) * np.float32(255)).astype(np.uint8), np.uint8)


def largest_neurites(neurites: Levels, count: int) -> list[int]:
    """Return the ids with most voxels, judged on a coarse level."""
    level = len(neurites.levels) - 1
    while level and np.prod(neurites.levels[level].shape) < 2**18:  # enough voxels to tell
        level -= 1
    whole = tuple(slice(0, length) for length in neurites.levels[level].shape)
    ids, counts = np.unique(neurites.read(level, whole), return_counts=True)
    order = np.argsort(-counts[ids != 0], kind="stable")
    return [int(one) for one in ids[ids != 0][order][:count]]
