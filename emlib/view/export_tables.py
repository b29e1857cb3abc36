"""Synapses and neurons as tables with the columns of CAVE or of neuPrint, and skeletons as SWC.

CAVE: the columns that ``client.materialize.synapse_query(..., split_positions=True, desired_resolution=[1, 1, 1])`` of
caveclient returns (schema ``synapse``: pre_pt, ctr_pt, post_pt), and ``cleft_score`` as in FlyWire's table; neurons as
schema ``bound_tag``. Positions are in nm.

neuPrint: the columns that ``fetch_synapse_connections``, ``fetch_neurons`` and ``fetch_adjacencies`` of neuprint-python
return. Positions are in voxels, as neuPrint has them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from emlib.runs.artefacts import write_json
from emlib.view.contents import Contents
from emlib.volumes.atomic import atomic_path

BLOCK = 128  # voxels along each side that are read together
SKELETON_VOXELS = 2**27  # labels of more voxels are taken from a coarser level
FORMATS = ("cave", "neuprint")


def export_cave(contents: Contents, folder: str | Path) -> list[Path]:
    """Write ``synapses.csv``, ``neurons.csv`` and ``tables.json``, which says schema and resolution of both.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    size, table = np.array(contents.voxel_size_nm), contents.synapses
    columns: dict[str, object] = {"id": np.arange(1, len(table) + 1), "valid": "t"}
    for side, axes in (("pre", "pre_{}"), ("post", "post_{}"), ("ctr", "{}")):
        columns |= _positions(f"{side}_pt", table[[axes.format(a) for a in "zyx"]].to_numpy(np.float64), size)
        if side != "ctr":
            columns[f"{side}_pt_root_id"] = table[f"{side}_id"].to_numpy(np.int64)
    columns |= {"size": "", "cleft_score": table["score"].to_numpy()}
    neurons = count_neurites(contents)
    cells: dict[str, object] = {"id": np.arange(1, len(neurons) + 1), "valid": "t"}
    cells |= _positions("pt", neurons[["z", "y", "x"]].to_numpy(np.float64), size)
    cells |= {"pt_root_id": neurons["neurite_id"], "tag": neurons["name"]}
    about = {
        "synapses": {"schema_type": "synapse", "voxel_resolution": [1.0, 1.0, 1.0], "unit": "nm"},
        "neurons": {"schema_type": "bound_tag", "voxel_resolution": [1.0, 1.0, 1.0], "unit": "nm"},
        **_origin(contents),
    }
    return _write(Path(folder), {"synapses": pd.DataFrame(columns), "neurons": pd.DataFrame(cells)}, about)


def export_neuprint(contents: Contents, folder: str | Path) -> list[Path]:
    """Write ``synapses.csv``, ``neurons.csv``, ``connections.csv`` and ``tables.json``.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    table = contents.synapses
    pre, post = table["pre_id"].to_numpy(np.int64), table["post_id"].to_numpy(np.int64)
    synapses = pd.DataFrame({"bodyId_pre": pre, "bodyId_post": post, "roi_pre": "", "roi_post": ""})
    for side in ("pre", "post"):
        synapses[[f"{axis}_{side}" for axis in "xyz"]] = table[[f"{side}_{axis}" for axis in "xyz"]].to_numpy()
    synapses["confidence_pre"] = synapses["confidence_post"] = table["score"].to_numpy()
    counts = count_neurites(contents)
    sent, received = pd.Series(pre).value_counts(), pd.Series(post).value_counts()
    ids = counts["neurite_id"]
    out, into = (ids.map(found).fillna(0).astype(np.int64) for found in (sent, received))
    neurons = {"bodyId": ids, "instance": counts["name"], "type": "", "pre": out, "post": into}
    neurons |= {"downstream": out, "upstream": into, "size": counts["voxels"], "status": ""}
    weights = synapses.groupby(["bodyId_pre", "bodyId_post"]).size().rename("weight").reset_index()
    z, y, x = contents.voxel_size_nm
    about = {"voxel_size_nm": {"x": x, "y": y, "z": z}, **_origin(contents)}
    made = {"synapses": synapses, "neurons": pd.DataFrame(neurons), "connections": weights}
    return _write(Path(folder), made, about)


def _positions(name: str, zyx: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """The middle of voxels, in whole nm."""
    nm = np.rint((zyx.reshape(-1, 3) + 0.5) * size).astype(np.int64)
    return {f"{name}_position_{axis}": nm[:, 2 - at] for at, axis in enumerate("xyz")}


def _origin(contents: Contents) -> dict[str, str]:
    """What a reader of the tables must know: what pre means, and whether the data are real."""
    known = "pre sends, post receives" if contents.directed else "unknown: which side is pre is arbitrary"
    return {"direction": known} | ({"synthetic": contents.files.synthetic} if contents.files.synthetic else {})


def _write(folder: Path, tables: dict[str, pd.DataFrame], about: dict) -> list[Path]:
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        with atomic_path(written[-1]) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    write_json(folder / "tables.json", about)
    return [*written, folder / "tables.json"]


def count_neurites(contents: Contents, block: int = BLOCK) -> pd.DataFrame:
    """Return size, a place inside and the name of each neurite, in one pass over the labels.

    Returns
    -------
    DataFrame
        ``neurite_id, voxels, z, y, x, name``; the place is a voxel of the neurite, near the middle of the largest part
        of it in one block.
    """
    shape, found = contents.neurites.shape, {}
    for corner in product(*(range(0, length, block) for length in shape)):
        box = tuple(slice(first, min(first + block, length)) for first, length in zip(corner, shape, strict=True))
        for one, count, place in _parts(contents.neurites.read(0, box)):
            total, most, where = found.get(one, (0, 0, None))
            best = (count, place + corner) if count > most else (most, where)
            found[one] = (total + count, *best)
    names = _names(contents)
    rows = [(one, found[one][0], *map(int, found[one][2]), names.get(one, "")) for one in sorted(found)]
    return pd.DataFrame(rows, columns=["neurite_id", "voxels", "z", "y", "x", "name"])


def _parts(labels: np.ndarray):
    """Yield (id, voxels, a voxel near the middle) of the labels in a block."""
    places = np.argwhere(labels)
    if not len(places):
        return
    ids, code, counts = np.unique(labels[tuple(places.T)], return_inverse=True, return_counts=True)
    middle = np.stack([np.bincount(code, places[:, axis]) for axis in range(3)], 1) / counts[:, None]
    away = ((places - middle[code]) ** 2).sum(1)
    order = np.lexsort((away, code))
    nearest = order[np.concatenate([[0], np.cumsum(counts)[:-1]])]
    yield from zip(ids.tolist(), counts.tolist(), places[nearest], strict=True)


def _names(contents: Contents) -> dict[int, str]:
    """Names that people gave to neurites of these labels, if they did."""
    path = contents.files.root / "tables" / "neurite_names.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, keep_default_na=False)
    here = {}
    for row in table.itertuples(index=False):
        box = tuple(slice(int(at), int(at) + 1) for at in (row.z, row.y, row.x))
        if all(0 <= part.start < length for part, length in zip(box, contents.neurites.shape, strict=True)):
            here[int(contents.neurites.read(0, box)[0, 0, 0])] = str(row.name)
    return here


def export_skeletons(contents: Contents, folder: str | Path, tick: Callable[[], None] = lambda: None) -> list[Path]:
    """Write a skeleton of each neurite as ``ID.swc``, in nm.

    Returns
    -------
    list of Path
        One for each neurite whose skeleton is at least 500 nm long (see `emlib.measure.skeletonize.make_skeletons`).

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    from emlib.measure.skeletonize import make_skeletons
    from emlib.volumes.swc import Skeleton, write_swc

    levels = contents.neurites.levels
    level = next((n for n, one in enumerate(levels) if np.prod(one.shape) <= SKELETON_VOXELS), len(levels) - 1)
    whole = tuple(slice(0, length) for length in levels[level].shape)
    factors, written = np.array(levels[level].total), []
    for made in make_skeletons(contents.neurites.read(level, whole), contents.neurites.size_nm(level)):
        nodes = made.nodes * factors + (factors - 1) / 2  # the middle of a coarse voxel
        written.append(Path(folder) / f"{made.name}.swc")
        write_swc(written[-1], Skeleton(made.name, nodes, made.edges), contents.voxel_size_nm)
        tick()
    return written
