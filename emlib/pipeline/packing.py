"""The state of a run as arrays and JSON values, so that it can be written and read back without loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emlib.pipeline.state import Run
from emlib.stages.fragment_planes import FragmentPlanes
from emlib.volumes.volume import Volume

if TYPE_CHECKING:
    from emlib.volumes.phantom import Phantom

Arrays = dict[str, np.ndarray]
PLANES = ("xy", "xz", "yz")


def pack(run: Run, names: Iterable[str]) -> tuple[Arrays, dict[str, Any]]:
    """Take attributes of a run apart.

    Parameters
    ----------
    run : Run
    names : str
        Attributes that hold an array, a table, a volume or JSON values.

    Returns
    -------
    arrays : dict of arrays
        None of them needs pickle.
    values : dict
        JSON values, NaN allowed.
    """
    arrays: Arrays = {}
    values: dict[str, Any] = {}
    for name in names:
        value = getattr(run, name)
        if isinstance(value, np.ndarray):
            arrays[name], values[name] = value, {"array": None}
        elif isinstance(value, pd.DataFrame):
            values[name] = {"table": _pack_table(value, name, arrays)}
        elif isinstance(value, FragmentPlanes):
            arrays |= {f"{name}.{plane}": getattr(value, plane) for plane in PLANES}
            values[name] = {"planes": value.count}
        elif isinstance(value, Volume):
            arrays[name] = value.array
            about = {key: getattr(value, key) for key in ("voxel_size_nm", "offset", "source")}
            values[name] = {"volume": about, "phantom": _pack_phantom(value.truth, arrays)}
        else:
            values[name] = {"json": value}
    return arrays, values


def unpack(run: Run, arrays: Arrays, values: dict[str, Any]) -> None:
    """Set the attributes that `pack` has taken apart.

    The phantom that a volume was cut from comes back with its labels and tables, without its other voxels.
    """
    for name, value in values.items():
        if "array" in value:
            array = arrays[name]
            wide = array.dtype == np.float16 and not name.endswith("_probability")  # these stay as they are made
            found: Any = array.astype(np.float32) if wide else array
        elif "planes" in value:
            found = FragmentPlanes(*(arrays[f"{name}.{plane}"] for plane in PLANES), value["planes"])
        elif "table" in value:
            found = _unpack_table(value["table"], name, arrays)
        elif "volume" in value:
            about, phantom = value["volume"], _unpack_phantom(value["phantom"], arrays)
            size, offset = tuple(about["voxel_size_nm"]), tuple(about["offset"])
            found = Volume(arrays[name], size, offset, about["source"], phantom)
        else:
            found = value["json"]
        setattr(run, name, found)


def _pack_table(table: pd.DataFrame, name: str, arrays: Arrays) -> dict[str, str]:
    """Put each column among the arrays; return the dtypes by column."""
    for column in table:
        values = table[column].to_numpy()
        arrays[f"{name}.{column}"] = values.astype(np.str_) if values.dtype.kind == "O" else values
    return {column: str(dtype) for column, dtype in table.dtypes.items()}


def _unpack_table(columns: dict[str, str], name: str, arrays: Arrays) -> pd.DataFrame:
    return pd.DataFrame({column: arrays[f"{name}.{column}"] for column in columns}).astype(columns)


def _pack_phantom(phantom: Phantom | None, arrays: Arrays) -> dict[str, Any] | None:
    if phantom is None:
        return None
    arrays["phantom.labels"] = phantom.labels
    return {
        "settings": asdict(phantom.settings),
        "damaged": phantom.damaged,
        "synapses": _pack_table(phantom.synapses, "phantom.synapses", arrays),
        "shifts": _pack_table(phantom.shifts, "phantom.shifts", arrays),
    }


def _unpack_phantom(about: dict[str, Any] | None, arrays: Arrays) -> Phantom | None:
    if about is None:
        return None
    from emlib.volumes.phantom import Phantom, PhantomSettings  # slow to import, and most runs have no phantom

    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in about["settings"].items()}
    none = np.zeros((0, 0, 0), np.uint8)
    return Phantom(
        em=none,
        labels=arrays["phantom.labels"],
        membranes=none.astype(bool),
        mitochondria=none.astype(bool),
        vesicles=none.astype(bool),
        clefts=none.astype(np.int32),
        synapses=_unpack_table(about["synapses"], "phantom.synapses", arrays),
        shifts=_unpack_table(about["shifts"], "phantom.shifts", arrays),
        damaged=tuple(about["damaged"]),
        settings=PhantomSettings(**settings),
    )
