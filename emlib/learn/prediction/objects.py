"""Objects in masks: numbered, measured, and their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emlib.errors import UserError
from emlib.learn.prediction.instances import InstanceSettings, find_instances
from emlib.learn.prediction.memory import GB, PROGRAM
from emlib.learn.prediction.run import Run
from emlib.measure.morphometry import measure_objects
from emlib.volumes.atomic import atomic_path
from emlib.volumes.volume import ZYX

if TYPE_CHECKING:
    import pandas as pd

BYTES_PER_VOXEL = {"components": 24, "watershed": 72}  # see `find_instances`; with the mask, the EM and the labels


def number_objects(run: Run, mask: np.ndarray, size: ZYX, em: np.ndarray) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Find the objects of one organelle, and measure them where that is asked for.

    Parameters
    ----------
    run : Run
    mask : (Y, X) or (Z, Y, X) bool array
    size : (z, y, x) in nm
    em : array of the same shape

    Returns
    -------
    labels : int32 array of the same shape
    table : DataFrame or None
        A row for each object.
    """
    labels = find_instances(mask, size, InstanceSettings(run.settings.method))
    return labels, measure_objects(labels, size, em) if run.settings.measure else None


def write_measurements(root: Path, name: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """Write ``measurements/<name>.csv``: the rows of all organelles, the name of the organelle first; return its name.

    Floats have six significant digits, so that equal runs give equal bytes.
    """
    import pandas as pd

    for organelle, table in tables.items():
        table.insert(0, "organelle", organelle)
    filled = [table for table in tables.values() if len(table)] or list(tables.values())[:1]
    file = f"measurements/{name}.csv"
    with atomic_path(root / file) as temporary:
        pd.concat(filled).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return file


def join_measurements(root: Path, names: Sequence[str]) -> str:
    """Write ``objects.csv``: the tables of all images below each other, the name of the image first; return its name.

    One line at a time, so that thousands of images take no memory.
    """
    import csv

    with atomic_path(root / "objects.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer, header = csv.writer(out, lineterminator="\n"), None
        for name in names:
            with (root / f"measurements/{name}.csv").open(encoding="utf-8", newline="") as table:
                rows = csv.reader(table)
                columns = next(rows)
                if header is None:
                    header = columns
                    writer.writerow(["image", *header])
                writer.writerows([name, *row] for row in rows)
    return "objects.csv"


def check_objects_fit(shape: tuple[int, int, int], method: str, memory_gb: float, where: str) -> None:
    """Refuse a volume whose objects cannot be found within the memory limit: an object may reach across all of it.

    Raises
    ------
    UserError
        With the memory that it takes.
    """
    needed = (float(np.prod(shape, dtype=np.float64)) * BYTES_PER_VOXEL[method] + PROGRAM) / GB
    if needed > memory_gb:
        raise UserError(
            f"objects of {where} are found in the whole volume, which takes {needed:.1f} GB; --memory_gb is "
            f"{memory_gb:g}: give more, or leave --instances and --measure out"
        )
