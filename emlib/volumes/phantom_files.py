"""The phantom as files: its EM, and the truth beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.phantom import Phantom, PhantomSettings, make_phantom
from emlib.volumes.tiff import write_tiff

README = """# Synthetic phantom, not real data

Made by `python fetch_data.py phantom`, seed {seed}, {shape} voxels (x y z), {size} nm (z y x). Everything lies in the
frame of `em_u8_zyx.tif`, whose sections are displaced by `shifts.csv` (pixels; positive is down and right).

- `neurites_i32_zyx.tif`: true neurites, 0 on membranes
- `mitochondria_u8_zyx.tif`, `membranes_u8_zyx.tif`, `vesicles_u8_zyx.tif`: masks, 255 inside
- `clefts_i32_zyx.tif`: synaptic clefts, the row of `synapses.csv` plus one
- `synapses.csv`: position, pre- and postsynaptic neurite of each synapse, in voxels

    python run_pipeline.py --dataset {folder}/em_u8_zyx.tif --truth {folder}/neurites_i32_zyx.tif
"""


def phantom_settings(
    shape_xyz: Sequence[int] | None,
    voxel_size_nm: Sequence[float] | None,
    seed: int,
    damaged_section: int | None = None,
) -> PhantomSettings:
    """Turn what was typed into settings.

    Raises
    ------
    UserError
        If the phantom refuses them.
    """
    given = {"seed": seed, "damaged_section": damaged_section}
    if shape_xyz is not None:
        given["shape"] = tuple(reversed(shape_xyz))
    if voxel_size_nm is not None:
        given["voxel_size_nm"] = tuple(voxel_size_nm)
    try:
        return PhantomSettings(**given)
    except ValueError as error:
        raise UserError(f"phantom: {error}") from error


def write_phantom(settings: PhantomSettings, folder: str | Path) -> list[Path]:
    """Make a phantom and write it with its truth.

    Parameters
    ----------
    settings : PhantomSettings
    folder : path
        Made if missing; files of an earlier phantom are replaced.

    Returns
    -------
    list of Path
        The files written.
    """
    folder, phantom = Path(folder), make_phantom(settings)
    written = []
    for name, array in _arrays(phantom).items():
        path = folder / f"{name}.tif"
        write_tiff(path, array, settings.voxel_size_nm)
        written.append(path)
    for name, table in (("synapses", phantom.synapses), ("shifts", phantom.shifts)):
        path = folder / f"{name}.csv"
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        written.append(path)
    readme = README.format(
        seed=settings.seed,
        shape=" ".join(map(str, reversed(settings.shape))),
        size=" ".join(f"{v:g}" for v in settings.voxel_size_nm),
        folder=folder.as_posix(),
    )
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(readme, encoding="utf-8")
    return [*written, folder / "README.md"]


def _arrays(phantom: Phantom) -> dict[str, np.ndarray]:
    masks = {name: getattr(phantom, name) for name in ("mitochondria", "membranes", "vesicles")}
    return {
        "em_u8_zyx": phantom.em,
        "neurites_i32_zyx": phantom.labels,
        "clefts_i32_zyx": phantom.clefts,
        **{f"{name}_u8_zyx": np.where(mask, 255, 0).astype(np.uint8) for name, mask in masks.items()},
    }
