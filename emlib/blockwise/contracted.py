"""What districts leave of a graph: one contact for each pair of nodes, its evidence added.

A node is what was joined and is known by its first fragment; a contact lies in the table of the block that holds the
seed of its first node. No process ever holds the contacts of more than a few blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emlib.blockwise.contacts import JOINED, UNIT, owner_of, strength
from emlib.blockwise.flood import PART
from emlib.blockwise.grid import name, sides
from emlib.blockwise.site import Site
from emlib.volumes.volume import Box

REDUCED, GATHERED = "contracted", "gathered"
FIRST = "first"
COUNTS = ("evidence", "weight", "faces")

Counts = dict[str, np.ndarray]


def of_level(what: str, level: int) -> str:
    """Name of a stage or column of a level, counted from 0.

    Examples
    --------
    >>> of_level("first", 0), of_level("first", 1)
    ('first', 'first_2')
    """
    return f"{what}_{level + 1}" if level else what


def number_type(count: int) -> type[np.signedinteger]:
    """The smallest type that numbers so many fragments."""
    return np.int32 if count < 2**31 else np.int64


def contract_block(site: Site, level: int, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Turn the contacts of a block into contacts of what was joined on this level; those within one node are gone.

    Its table is sorted by ``owner``, the block that each contact belongs to.
    """
    if not sides(site.seen_part(box))[0]:
        return [], {"owners": []}
    ends, counts = _counted(site, level, name(box))
    u, v = site.load(of_level(FIRST, level))[ends[:, :2]].T
    apart = u != v
    ends = np.stack([np.minimum(u, v), np.maximum(u, v), ends[:, 2]], axis=1)[apart]
    ends, counts = add_up([ends], [{key: column[apart] for key, column in counts.items()}])
    owner = owner_of(site, ends[:, 0]).astype(np.int32)
    order = np.argsort(owner, kind="stable")
    table = {key: column[order] for key, column in counts.items()}
    wrote = site.write_table(of_level(REDUCED, level), name(box), owner=owner[order], ends=ends[order], **table)
    return [wrote], {"owners": np.unique(owner).tolist()}


def _counted(site: Site, level: int, block: str) -> tuple[np.ndarray, Counts]:
    """The contacts (u, v, between) that a level starts from, and their sums."""
    if level:
        stored = site.read_table(of_level(GATHERED, level - 1), block)
        return stored["ends"], {key: stored[key] for key in COUNTS}
    stored = site.read_table(JOINED, block)
    ends = np.concatenate([stored["ends"], stored["between"][:, None].astype(stored["ends"].dtype)], axis=1)
    return ends, {
        "evidence": np.rint(stored["same"] * stored["weight"] * UNIT).astype(np.int64),
        "weight": np.rint(stored["weight"] * UNIT).astype(np.int64),
        "faces": stored["faces"],
    }


def gather_block(
    site: Site, shared: tuple[int, int, list[str]], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Bring the contacts of a block together; ``shared`` is the level, the number of the block, and who has some.

    Its table holds ``ends`` (u, v, between), ascending and unique, and the sums of each in whole numbers.
    """
    level, number, sources = shared
    if not sides(site.seen_part(box))[0]:
        return [], {"edges": 0}
    ends, counts = [np.zeros((0, 3), np.int32)], [dict.fromkeys(COUNTS, np.zeros(0, np.int64))]
    for source in sources:
        stored = site.read_table(of_level(REDUCED, level), source)
        part = slice(*np.searchsorted(stored["owner"], [number, number + 1]))
        ends.append(stored["ends"][part])
        counts.append({key: stored[key][part] for key in COUNTS})
    ends, counts = add_up(ends, counts)
    wrote = site.write_table(of_level(GATHERED, level), name(box), ends=ends, **counts)
    pairs, same, weight = _weighed(ends, counts)
    return [wrote], {"edges": len(pairs), "strength": strength(same, weight)}


def contacts_of(site: Site, level: int, block: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of nodes (E, 2) of a block that a level may join, log-odds that they belong together, and their weight."""
    if level:
        stored = site.read_table(of_level(GATHERED, level - 1), block)
        return _weighed(stored["ends"], stored)
    stored = site.read_table(JOINED, block)
    return stored["ends"], stored["same"], stored["weight"]


def _weighed(ends: np.ndarray, counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs, counts = add_up([ends[:, :2]], [{key: counts[key] for key in ("evidence", "weight")}])
    weight = np.maximum(counts["weight"], 1) / UNIT
    return pairs, counts["evidence"] / UNIT / weight, weight


def add_up(ends: Sequence[np.ndarray], counts: Sequence[Counts]) -> tuple[np.ndarray, Counts]:
    """Join tables of integers: rows with equal ends become one, their counts added; rows ascend.

    Examples
    --------
    >>> rows, sums = add_up([np.array([[2, 3], [1, 4], [1, 4]])], [{"n": np.array([5, 6, 1])}])
    >>> rows.tolist(), sums["n"].tolist()
    ([[1, 4], [2, 3]], [7, 5])
    """
    rows = np.concatenate(ends)
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])[: len(rows)])
    summed = {}
    for key in counts[0]:
        column = np.concatenate([one[key] for one in counts]).astype(np.int64)[order]
        summed[key] = np.add.reduceat(column, starts) if len(starts) else column
    return rows[starts], summed


def contacts_between(
    site: Site, level: int, blocks: Sequence[str], node: np.ndarray, segment: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Contacts of segments from what a level left, block by block.

    Parameters
    ----------
    site, level
    blocks : sequence of str
    node : (N + 1,) int array
        The number of the node of each fragment.
    segment : (K,) int array
        The segment of each node.

    Returns
    -------
    ends : (E, 3) int array
        Segments u < v, and whether the contact lies between sections; unique.
    faces : (E,) int64 array
    """
    total = np.zeros((0, 3), segment.dtype), {"faces": np.zeros(0, np.int64)}
    waiting, rows = [], 0
    for number, block in enumerate(blocks):
        stored = site.read_table(of_level(GATHERED, level), block)
        u, v = segment[node[stored["ends"][:, :2]]].T
        apart = u != v
        ends = np.stack([np.minimum(u, v), np.maximum(u, v), stored["ends"][:, 2].astype(u.dtype)], axis=1)[apart]
        waiting.append(add_up([ends], [{"faces": stored["faces"][apart]}]))
        rows += len(waiting[-1][0])
        if rows > max(PART, len(total[0])) or number == len(blocks) - 1:
            total = add_up(*zip(total, *waiting, strict=True))
            waiting, rows = [], 0
    return total[0], total[1]["faces"]
