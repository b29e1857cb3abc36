"""The public data sets that ``fetch_data.py`` puts in place, by name."""

from __future__ import annotations

from difflib import get_close_matches

from emlib.errors import UserError
from emlib.runs.catalogue.dataset import DataSet
from emlib.runs.catalogue.drosophila_vnc import DROSOPHILA_VNC
from emlib.runs.catalogue.epfl_multiclass import EPFL_MULTICLASS
from emlib.runs.catalogue.fib25_medulla import FIB25_MEDULLA
from emlib.runs.catalogue.larval_vnc_3d import LARVAL_VNC_3D

__all__ = ["DATASETS", "MADE_HERE", "find_dataset"]

DATASETS = {d.name: d for d in (DROSOPHILA_VNC, EPFL_MULTICLASS, FIB25_MEDULLA, LARVAL_VNC_3D)}
MADE_HERE = "phantom"  # not fetched


def find_dataset(name: str) -> DataSet:
    """Return a data set by name.

    Raises
    ------
    UserError
        If there is none; with the nearest names.

    Examples
    --------
    >>> find_dataset("fib25-medulla").voxel_size_nm
    (10, 10, 10)
    """
    if name in DATASETS:
        return DATASETS[name]
    names = [*DATASETS, MADE_HERE]
    near = get_close_matches(name.lower(), names, n=2, cutoff=0.5) or [n for n in names if name.lower() in n]
    meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)};"
    raise UserError(f"there is no data set {name!r}; {meant} --list shows all")
