"""Names and notes that people gave to neurites, found again in other labels by a voxel inside."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import read_table
from emlib.publish.style import plural

PLACE = ["z", "y", "x"]
JOINED = " + "  # between the names of neurites that are one now


def read_names(path: str | Path, labels: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """Read ``tables/neurite_names.csv`` and find the neurites in labels.

    Parameters
    ----------
    path : path
        Columns ``neurite_id, name, note, z, y, x``, as proofreading writes them.
    labels : (Z, Y, X) int array

    Returns
    -------
    names : DataFrame
        ``neurite_id`` in ``labels``, ascending, ``name``, ``note``; those of neurites that are one now are joined.
    lines : list of str
        Which names belong to nobody, or to the same neurite.

    Raises
    ------
    UserError
        If it is no such table, or a place lies outside of the labels.
    """
    table = read_table(path, PLACE, ["neurite_id"])
    if lost := [name for name in ("name", "note") if name not in table]:
        raise UserError(f"{path} lacks the column {lost[0]}; write it again by saving the proofreading session")
    places = table[PLACE].to_numpy(np.int64)
    outside = ((places < 0) | (places >= labels.shape)).any(axis=1)
    if outside.any():
        z, y, x = places[outside][0]
        raise UserError(
            f"{path} was made on another volume: z={z}, y={y}, x={x} lies outside of the labels {labels.shape} "
            "(z, y, x); move it away"
        )
    for name in ("name", "note"):  # an empty cell is no text to pandas; GraphML has no room for control characters
        table[name] = ["".join(c for c in str(t) if c.isprintable()) if pd.notna(t) else "" for t in table[name]]
    was = table["neurite_id"].tolist()
    table["neurite_id"] = labels[tuple(places.T)].astype(np.int64)
    lines = [
        f"the name {name!r} of neurite {old} belongs to nobody: there is background at its place in these labels"
        for old, new, name in zip(was, table["neurite_id"], table["name"], strict=True)
        if new == 0
    ]
    table = table[table["neurite_id"] > 0]
    for neurite, rows in table.groupby("neurite_id"):
        if len(rows) > 1:
            lines.append(f"{plural(len(rows), 'name')} on neurite {neurite}: {JOINED.join(rows['name'])}")
    joined = table.groupby("neurite_id")[["name", "note"]].agg(lambda texts: JOINED.join(filter(None, texts)))
    return joined.reset_index(), lines


def name_nodes(graph: nx.DiGraph, names: pd.DataFrame) -> None:
    """Give the nodes of a graph their ``name`` and ``note``; empty where nobody gave one."""
    for column in ("name", "note"):
        known = dict(zip(names["neurite_id"].tolist(), names[column], strict=True))
        nx.set_node_attributes(graph, {node: known.get(node, "") for node in graph}, column)


def named_table(nodes: pd.DataFrame, names: pd.DataFrame) -> pd.DataFrame:
    """Return a table of nodes with the columns ``name`` and ``note``."""
    return nodes.merge(names.rename(columns={"neurite_id": "node"}), on="node", how="left").fillna(
        {"name": "", "note": ""}
    )
