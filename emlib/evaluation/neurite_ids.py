"""Which predicted neurite is which true one, from two label volumes; and whether tables belong to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.label_pass import LabelPair, Preparation, count_pairs, open_pair
from emlib.measure.synapses.partners import largest_overlap
from emlib.volumes.volume import ZYX

MOST = np.iinfo(np.int64).max  # of an id in a table


@dataclass(frozen=True)
class NamedTable:
    """The neurites that a table names.

    Attributes
    ----------
    path : str
        Of the table, for messages.
    ids : set of int
        Without background.
    """

    path: str
    ids: set[int]

    @classmethod
    def of(cls, path: str, table: pd.DataFrame, columns: Iterable[str]) -> NamedTable:
        """Collect the ids above 0 in some columns of a table."""
        return cls(path, {name for column in columns for name in table[column].tolist() if name > 0})


def open_neurites(pred_labels: str | None, truth_labels: str | None, voxel_size_nm: ZYX | None) -> LabelPair | None:
    """Open the labels of ``--pred_labels`` and ``--truth_labels``; None where neither is given.

    Raises
    ------
    UserError
        If only one is given, either is no label volume, or the shapes differ.
    """
    if pred_labels is None and truth_labels is None:
        return None
    for given, other in (("pred", "truth"), ("truth", "pred")):
        if (truth_labels if given == "pred" else pred_labels) is None:
            raise UserError(f"--{given}_labels needs --{other}_labels as well: neurites are mapped by their overlap")
    return open_pair(pred_labels, truth_labels, None, voxel_size_nm)


def map_neurites(pair: LabelPair, pred: NamedTable, truth: NamedTable) -> tuple[dict[int, int], list[str]]:
    """Find the true neurite that each predicted one overlaps most.

    Parameters
    ----------
    pair : LabelPair
    pred, truth : NamedTable
        What the tables name; they must belong to the labels.

    Returns
    -------
    id_map : dict
        True id of each predicted id that overlaps one.
    lines : list of str
        What a person must know: ids that do not occur in the labels.

    Raises
    ------
    UserError
        If no id of a table occurs in its labels, no predicted neurite overlaps a true one, or ids are beyond 2⁶³.
    """
    found: set[int] = set()

    def see(z: int, labels: np.ndarray) -> None:
        found.update(pd.unique(labels.reshape(-1)).tolist())

    table = count_pairs(pair, Preparation(zero="background"), see)[0][0]
    lines = []
    for named, there, source in ((pred, found, pair.pred), (truth, set(table.truth.tolist()), pair.truth)):
        absent = len(named.ids - there)
        if absent and absent == len(named.ids):
            raise UserError(
                f"none of the neurites that {named.path} names occurs in {source.uri}; give the labels it was made from"
            )
        if absent:
            lines.append(f"{absent} of {len(named.ids)} neurites of {named.path} do not occur in {source.uri}")
    id_map = largest_overlap(table)
    if not id_map:
        raise UserError(
            f"non-overlapping labels: no predicted neurite of {pair.pred.uri} overlaps a true one of {pair.truth.uri}; "
            "both must show the same place"
        )
    if max(id_map.values()) > MOST:
        raise UserError(f"{pair.truth.uri} holds the label {max(id_map.values())}; labels must lie in 0 … 2^63-1")
    return id_map, lines
