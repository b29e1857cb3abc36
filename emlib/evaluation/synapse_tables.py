"""What an evaluation of synapses reads: tables of places and partners, and masks whose components are synapses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import read_table, read_whole
from emlib.measure.synapses.matching import components_to_table, labels_to_table
from emlib.volumes.companions import open_labels
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, VolumeSource

PARTNERS = ("pre_id", "post_id")
FARTHEST = 2**31  # voxels along an axis; a whole mouse brain at 4 nm has a thousandth of it
TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class SynapseSource:
    """Synapses of a mask or a label volume.

    Attributes
    ----------
    table : DataFrame
        ``z, y, x`` in voxels and ``size`` in nm³, or nm² of sections.
    read_as : str
        What was taken for a synapse, in words.
    """

    table: pd.DataFrame
    read_as: str


def is_table(path: str | Path) -> bool:
    """Whether a path names a table rather than a mask."""
    return Path(path).suffix.lower() in TABLES


def has_partners(table: pd.DataFrame) -> bool:
    """Whether a table of synapses names their partners."""
    return all(name in table for name in PARTNERS)


def read_synapses(path: str | Path, *, scored: bool = False) -> pd.DataFrame:
    """Read a table of synapses: ``z, y, x`` in voxels, optionally ``pre_id, post_id``, and with ``scored`` ``score``.

    Returns
    -------
    DataFrame
        Only these columns, as far as they are there.

    Raises
    ------
    UserError
        As `read_table`, or if only one of the two partners is named.
    """
    numbers = ["z", "y", "x", *(["score"] if scored else [])]
    table = read_table(path, numbers, PARTNERS, optional={"score", *PARTNERS})
    partners = [name for name in PARTNERS if name in table]
    if len(partners) == 1:
        other = PARTNERS[1 - PARTNERS.index(partners[0])]
        raise UserError(f"{path} has {partners[0]} but lacks the column {other}; give both partners or neither")
    far = (table[["z", "y", "x"]].abs() > FARTHEST).to_numpy().any(axis=1)
    if far.any():
        raise UserError(f"{path}, line {int(far.argmax()) + 2}: no volume has so many voxels; z, y, x are in voxels")
    return table[[name for name in (*numbers, *PARTNERS) if name in table]]


def open_mask(path: str | Path) -> VolumeSource:
    """Open a mask, a probability or a label volume; nothing is read yet."""
    source = open_volume(path)
    return open_labels(path) if source.dtype.kind in "bui" else source


def mask_synapses(source: VolumeSource, voxel_size_nm: ZYX, per_section: bool, min_size: float) -> SynapseSource:
    """Find the synapses of a mask or a label volume.

    Parameters
    ----------
    source : VolumeSource
        From `open_mask`.
    voxel_size_nm : (z, y, x) in nm
    per_section : bool
        Each section for itself.
    min_size : float
        Smaller ones are ignored; nm², with ``per_section``, or nm³.

    Returns
    -------
    SynapseSource

    Raises
    ------
    UserError
        If the values are those of no mask, or nothing is in it.

    Notes
    -----
    - one value besides 0, or bool: each connected component is a synapse, corners connect;
    - floats in [0, 1], and 8-bit or 16-bit values that reach white (255, 65535): the same at half range and above, so
      that anti-aliased outlines are cut in the middle;
    - other integers are labels: each id is a synapse, in however many pieces.
    """
    values = read_whole(source)
    how = voxel_size_nm, per_section, min_size
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise UserError(f"{source.uri} holds values from {low:g} to {high:g}; a mask is 0 and 255, or in [0, 1]")
        found, what = components_to_table(values >= 0.5, *how), "components at or above 0.5"
    else:
        ids, white = pd.unique(values.reshape(-1)), np.iinfo(values.dtype).max
        if np.count_nonzero(ids) <= 1:
            found, what = components_to_table(values, *how), "components"
        elif values.dtype in (np.uint8, np.uint16) and white in ids:
            found, what = components_to_table(values > white // 2, *how), f"components at or above {white // 2 + 1}"
        else:
            found, what = labels_to_table(values, *how), "ids of a label volume"
    read_as = what + " in each section" * per_section
    if not len(found):
        small = f" of at least {min_size:g} {'nm²' if per_section else 'nm³'}" if min_size else ""
        raise UserError(f"{source.uri} holds no synapse{small} ({read_as}): there is no truth to score against")
    return SynapseSource(found, read_as)
