"""The one pass over two label volumes: slab by slab into contingency tables, so that neither must fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from emlib.errors import UserError
from emlib.evaluation.inputs import known_voxel_size, open_label_pair, read_whole
from emlib.measure.borders import near_borders
from emlib.measure.contingency import Contingency, combine, contingency, rename_truth
from emlib.measure.instances import fill_zero
from emlib.measure.pieces import Pieces
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, VolumeSource

SLAB_VOXELS = 1 << 26  # of each volume at a time: about 2 GiB for 64-bit ids, with all that is made of them


@dataclass(frozen=True)
class Preparation:
    """What is done to labels before they are counted.

    Attributes
    ----------
    zero : {"fill", "background", "singletons", "ignore"}
        "fill" is done here, the others when scores are made.
    border_nm : float
        Truth at most this far from a border is left out; 0 keeps all.
    relabel : {None, "3d", "2d"}
        Whether connected pieces take the place of true ids.
    per_section : bool
        One table for each section instead of one for all.
    """

    zero: str = "fill"
    border_nm: float = 0.0
    relabel: str | None = None
    per_section: bool = False


@dataclass(frozen=True)
class LabelPair:
    """Two label volumes that are compared, and the EM they belong to.

    Attributes
    ----------
    pred, truth : VolumeSource
        Of one shape.
    em : VolumeSource or None
    voxel_size_nm : (z, y, x) in nm, or None if nobody knows it
    """

    pred: VolumeSource
    truth: VolumeSource
    em: VolumeSource | None
    voxel_size_nm: ZYX | None

    @property
    def synthetic(self) -> str | None:
        """The note that everything made of synthetic data carries."""
        return self.pred.notes.get("synthetic") or self.truth.notes.get("synthetic")


def open_pair(pred: str, truth: str, em: str | None, voxel_size_nm: ZYX | None) -> LabelPair:
    """Open what is compared; volumes that fit into a slab are read now, others when they are needed.

    Raises
    ------
    UserError
        If labels are no labels, shapes differ, or the voxel size is not three positive numbers.
    """
    labels = open_label_pair(pred, truth)
    grey = None if em is None else open_volume(em)
    if grey is not None and grey.dtype == bool:
        raise UserError(f"--em {em} holds a mask, no grey values; give the EM that the labels were made from")
    if grey is not None and grey.shape != labels[0].shape:
        raise UserError(
            f"--em {em} has shape {grey.shape}, the labels {labels[0].shape} (z, y, x): give the EM they were made from"
        )
    size = known_voxel_size(voxel_size_nm, *labels, *([] if grey is None else [grey]))
    if np.prod(labels[0].shape, dtype=np.int64) <= SLAB_VOXELS:
        labels = tuple(_in_memory(source) for source in labels)
    return LabelPair(*labels, grey, size)


def _in_memory(source: VolumeSource) -> VolumeSource:
    whole = read_whole(source)
    return replace(source, read=lambda box: whole[box])


def count_pairs(
    pair: LabelPair, how: Preparation, see: Callable[[int, np.ndarray], None] | None = None
) -> tuple[list[Contingency], np.ndarray | None]:
    """Read both volumes once and count the pairs of ids.

    Parameters
    ----------
    pair : LabelPair
    how : Preparation
    see : function of (first z, labels), optional
        Called with each slab of the prepared prediction.

    Returns
    -------
    tables : list of Contingency
        One for the volume, or one per section; without the voxels whose truth is 0.
    names : array or None
        With ``how.relabel``: the label that each true id of the tables has in the volume.
    """
    pieces = Pieces(in_plane=how.relabel == "2d") if how.relabel else None
    tables: list[Contingency] = []
    for z, pred, truth in _slabs(pair):
        if how.zero == "fill":
            pred = fill_zero(pred)
        if see is not None:
            see(z, pred)
        named = pieces.add(truth) if pieces else truth
        if how.border_nm:
            named = np.where(near_borders(truth, pair.voxel_size_nm[1:], how.border_nm), named.dtype.type(0), named)
        if how.per_section:
            tables += [contingency(named[i : i + 1], pred[i : i + 1], z + i) for i in range(len(pred))]
        else:
            tables.append(contingency(named, pred, z))
    if not how.per_section:
        tables = [combine(tables)]
    if pieces is None:
        return tables, None
    final = [rename_truth(table, pieces.final(table.truth)) for table in tables]
    return final, pieces.ids()


def _slabs(pair: LabelPair) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (first z, prediction, truth) of slabs of whole sections."""
    depth, height, width = pair.truth.shape
    thick = max(1, SLAB_VOXELS // max(height * width, 1))
    for z in range(0, depth, thick):
        box = (slice(z, min(z + thick, depth)), slice(0, height), slice(0, width))
        yield z, pair.pred.read(box), pair.truth.read(box)
