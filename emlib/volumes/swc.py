"""Skeletons of neurites, and SWC, the text format that tracing tools exchange them in.

A row of SWC is a node: ``id type x y z radius parent``, separated by spaces; a parent of -1 marks a root, ``#`` begins
a comment (Cannon et al. 1998, J. Neurosci. Methods 84:49; https://github.com/INCF/swc-specification). The specification
has µm; tools of EM write nm as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.reading import reading
from emlib.volumes.units import nm_per
from emlib.volumes.volume import ZYX

Unit = Literal["nm", "um", "voxel"]


@dataclass(frozen=True)
class Skeleton:
    """The centre lines of one neurite: one tree, or several where it leaves the volume and comes back.

    Attributes
    ----------
    name : str
    nodes : (N, 3) float64 array
        z, y, x in voxels; voxel centres lie at whole numbers.
    edges : (E, 2) int64 array
        Indices into ``nodes``.
    """

    name: str
    nodes: np.ndarray
    edges: np.ndarray


def read_skeletons(
    path: str | Path, voxel_size_nm: ZYX, unit: Unit = "nm", offset_nm: ZYX = (0.0, 0.0, 0.0)
) -> list[Skeleton]:
    """Read skeletons from an SWC file, or one from each file of a folder in natural order.

    Parameters
    ----------
    path : path
        A file, or a folder with ``.swc`` files.
    voxel_size_nm : (z, y, x) in nm
    unit : {"nm", "um", "voxel"}
        Of the coordinates in the files.
    offset_nm : (z, y, x) in nm
        Where the centre of the volume's voxel (0, 0, 0) lies in the coordinates of the files.

    Returns
    -------
    list of Skeleton
        Named as the files. A position of 35 nm is voxel 3.5 at 10 nm: between the centres of the voxels 3 and 4.

    Raises
    ------
    UserError
        If there is no such file, a folder holds no SWC, a row is malformed or not finite, an id occurs twice, a parent
        is not there or its own descendant, or a file holds no node.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "neurite.swc"
    >>> _ = file.write_text("# two nodes\\n1 2 0 0 50 1 -1\\n2 2 40 0 50 1 1\\n")
    >>> read_skeletons(file, (50, 4, 4))[0].nodes.tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 10.0]]
    """
    scale = np.ones(3) if unit == "voxel" else nm_per(unit) / np.asarray(voxel_size_nm, np.float64)
    shift = np.asarray(offset_nm, np.float64) / np.asarray(voxel_size_nm, np.float64)
    skeletons = []
    for file in _files(Path(path)):
        ids, parents, positions = _read_rows(file)
        with np.errstate(over="ignore"):
            nodes = positions * scale - shift
        if not np.isfinite(nodes).all():
            raise UserError(f"{file}: a coordinate is out of all bounds in {unit}; mend the row, or give its unit")
        skeletons.append(Skeleton(file.stem, nodes, _edges(file, ids, parents)))
    return skeletons


def write_swc(path: str | Path, skeleton: Skeleton, voxel_size_nm: ZYX) -> None:
    """Write a skeleton as SWC in nm, each parent before its children.

    Parameters
    ----------
    path : path
    skeleton : Skeleton
        A tree, or several. Its nodes have no radius: 0 is written, as is the type 0, "undefined".
    voxel_size_nm : (z, y, x) in nm

    Raises
    ------
    ValueError
        If the edges close a loop, which SWC cannot hold.
    UserError
        If the file cannot be written.
    """
    positions = skeleton.nodes * np.asarray(voxel_size_nm, np.float64)
    lines = [f"# {skeleton.name}: id type x y z radius parent; coordinates in nm"]
    row = {}
    for node, parent in _parents_first(skeleton):
        row[node] = len(row) + 1
        z, y, x = positions[node]
        lines.append(f"{row[node]} 0 {x:.12g} {y:.12g} {z:.12g} 0 {row.get(parent, -1)}")
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join([*lines, ""]).encode("utf-8"))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is neither a file nor a folder; save the skeletons as a file")
    if not path.is_dir():
        raise UserError(f"no such file or folder of skeletons: {path}")
    files = [file for file in path.iterdir() if file.suffix.lower() == ".swc" and not file.name.startswith(".")]
    if not files:
        raise UserError(f"the folder {path} holds no .swc file; name a file, or a folder with one per skeleton")
    if odd := [file for file in files if not file.is_file()]:  # a pipe would be waited for, for ever
        raise UserError(f"{odd[0]} is no file; move it away")
    return sorted(files, key=lambda file: ([int(n) if n.isdigit() else n for n in _parts(file.stem)], file.name))


def _parts(name: str) -> list[str]:
    return re.split(r"([0-9]+)", name.lower())


def _read_rows(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, parents and positions (z, y, x) in the unit of the file."""
    ids, parents, positions = [], [], []
    with reading(path), path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.partition("#")[0].split()
            if not fields:
                continue
            try:
                node, _, x, y, z, _, parent = fields[:7]
                ids.append(np.int64(node))
                parents.append(np.int64(parent))
                positions.append((float(z), float(y), float(x)))
            except (ValueError, OverflowError) as error:
                row = repr(line.strip()[:60])
                raise UserError(
                    f"{path}, line {number}: {row} is no row of SWC (id type x y z radius parent); mend it"
                ) from error
            if not np.isfinite(positions[-1]).all():
                raise UserError(f"{path}, line {number}: a coordinate is not finite; mend or drop the row")
    if not ids:
        raise UserError(f"{path} holds no node; SWC has one row per node: id type x y z radius parent")
    return np.array(ids, np.int64), np.array(parents, np.int64), np.array(positions, np.float64)


def _edges(path: Path, ids: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Pairs (parent, child) as indices, in the order of the rows."""
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    twice = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(twice):
        raise UserError(f"{path}: the id {ranked[twice[0]]} occurs twice; give each node its own")
    child = np.flatnonzero(parents >= 0)
    at = np.minimum(np.searchsorted(ranked, parents[child]), len(ids) - 1)
    unknown = np.flatnonzero(ranked[at] != parents[child])
    if len(unknown):
        node = child[unknown[0]]
        raise UserError(f"{path}: node {ids[node]} has the parent {parents[node]}, which is not there; -1 marks a root")
    edges = np.stack([order[at], child], axis=1)
    # every node has one parent at most: a piece without a root is one that closes upon itself
    pieces = _pieces(len(ids), edges)
    rootless = ~np.isin(pieces, pieces[parents < 0])
    if rootless.any():
        raise UserError(
            f"{path}: following the parents of node {ids[rootless][0]} never ends; give its tree a root, -1"
        )
    return edges


def _graph(count: int, edges: np.ndarray) -> coo_array:
    return coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))


def _pieces(count: int, edges: np.ndarray) -> np.ndarray:
    return connected_components(_graph(count, edges), directed=False)[1]


def _parents_first(skeleton: Skeleton) -> Iterator[tuple[int, int]]:
    """Yield (node, its parent or -1), tree by tree from the first node of each."""
    count = len(skeleton.nodes)
    _, roots = np.unique(_pieces(count, skeleton.edges), return_index=True)
    if len(skeleton.edges) != count - len(roots):
        raise ValueError(f"the skeleton {skeleton.name} is no tree: SWC cannot hold its loops")
    links = _graph(count, skeleton.edges).tocsr()
    for root in roots:
        order, parent = breadth_first_order(links, root, directed=False)
        yield from ((int(node), max(int(parent[node]), -1)) for node in order)
