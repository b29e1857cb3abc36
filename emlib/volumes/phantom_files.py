"""The phantom as files: a volume with the truth beside it, or sections with organelle masks, split for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path, left_by_system
from emlib.volumes.phantom import Phantom, PhantomSettings, make_phantom
from emlib.volumes.synthetic import SYNTHETIC_MARK
from emlib.volumes.tiff import write_tiff

README = """{title}

Made by `python fetch_data.py phantom`, seed {seed}, {shape} voxels (x y z), {size} nm (z y x). Everything lies in the
frame of `em_u8_zyx.tif`, whose sections are displaced by `shifts.csv` (pixels; positive is down and right).

- `neurites_i32_zyx.tif`: true neurites, 0 on membranes
- `mitochondria_u8_zyx.tif`, `membranes_u8_zyx.tif`, `vesicles_u8_zyx.tif`: masks, 255 inside
- `clefts_i32_zyx.tif`: synaptic clefts, the row of `synapses.csv` plus one
- `synapses.csv`: position, pre- and postsynaptic neurite of each synapse, in voxels

    python run_pipeline.py --dataset {folder}/em_u8_zyx.tif --truth {folder}/neurites_i32_zyx.tif
"""
TITLE = "# Synthetic phantom, not real data"


DOMAIN_README = """{title}

Made by `python fetch_data.py phantom --domain`, seed {seed}, {shape} voxels (x y z), {size} nm (z y x). Laid out as
drosophila-vnc: `train`, `val` and `test`, in each of them `raw` and the masks `membranes`, `mitochondria`, `vesicles`
and `synapses` (their clefts), 255 inside. A file's name is its section; sections are shifted against each other by
some pixels, the masks with them. train {train}, val {val}, test {test}.
"""
DOMAIN_TITLE = "# Synthetic sections for training, not real data"
DOMAIN_SHAPE = (20, 384, 384)
SHARE_HELD_OUT = 0.15  # of the sections, for val and for test each: 3 of 20, as in drosophila-vnc


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
        raise UserError(f"phantom: {_as_typed(str(error), given.get('shape'))}") from error


def _as_typed(text: str, shape: tuple[int, ...] | None) -> str:
    """The text of an error with the shape in the order of ``--shape``, X Y Z."""
    if shape is None:
        return text
    typed = f"{' '.join(map(str, reversed(shape)))} (x y z)"
    return text.replace(str(shape), typed).replace("(Z, Y, X) ", "")


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

    Raises
    ------
    UserError
        If the folder holds other data, or cannot be written.
    """
    folder = Path(folder)
    _check_own(folder, TITLE)
    phantom, written = make_phantom(settings), []
    readme = README.format(
        title=TITLE,
        seed=settings.seed,
        shape=" ".join(map(str, reversed(settings.shape))),
        size=" ".join(f"{v:g}" for v in settings.voxel_size_nm),
        folder=folder.as_posix(),
    )
    with atomic_path(folder / "README.md") as temporary:  # first, so that a run cut short can be run again
        temporary.write_text(readme, encoding="utf-8")
    for name, array in _arrays(phantom).items():
        path = folder / f"{name}.tif"
        write_tiff(path, array, settings.voxel_size_nm)
        written.append(path)
    for name, table in (("synapses", phantom.synapses), ("shifts", phantom.shifts)):
        path = folder / f"{name}.csv"
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        written.append(path)
    return [*written, folder / "README.md"]


def domain_settings(
    shape_xyz: Sequence[int] | None,
    voxel_size_nm: Sequence[float] | None,
    seed: int,
    damaged_section: int | None = None,
) -> PhantomSettings:
    """Turn what was typed into settings of the sections for training.

    Raises
    ------
    UserError
        If the phantom refuses them, or there are fewer sections than splits.
    """
    shape = tuple(reversed(DOMAIN_SHAPE)) if shape_xyz is None else shape_xyz
    if shape[2] < 3:
        raise UserError(
            f"phantom: --shape {shape[0]} {shape[1]} {shape[2]} gives {shape[2]} sections; --domain splits 3"
        )
    return phantom_settings(shape, voxel_size_nm, seed, damaged_section)


def split_sections(count: int) -> dict[str, list[int]]:
    """Share sections out among train, val and test; val and test are spread evenly through the stack.

    Examples
    --------
    >>> {name: len(sections) for name, sections in split_sections(20).items()}
    {'train': 14, 'val': 3, 'test': 3}
    >>> split_sections(3)
    {'train': [1], 'val': [2], 'test': [0]}
    """
    each = max(1, round(SHARE_HELD_OUT * count))
    held_out = np.linspace(0, count, 2 * each + 1)[:-1] + count / (4 * each)
    picked = [int(z) for z in np.unique(held_out.astype(int))]
    test, val = picked[::2], picked[1::2]
    return {"train": sorted(set(range(count)) - set(picked)), "val": val, "test": test}


def write_domain(settings: PhantomSettings, folder: str | Path) -> list[Path]:
    """Make a phantom and write its sections as a data set for training: ``split/organelle/NN.png``.

    Parameters
    ----------
    settings : PhantomSettings
        As from `domain_settings`.
    folder : path
        Made if missing; sections of an earlier phantom are replaced.

    Returns
    -------
    list of Path
        The folders of the splits, the README, and the file that marks them as synthetic.

    Raises
    ------
    UserError
        If the folder holds other data, or cannot be written.
    """
    folder = Path(folder)
    _check_own(folder, DOMAIN_TITLE)
    phantom, splits = make_phantom(settings), split_sections(settings.shape[0])
    masks = {name: getattr(phantom, name) for name in ("membranes", "mitochondria", "vesicles")}
    masks["synapses"] = phantom.clefts > 0
    images = {"raw": phantom.em} | {name: np.where(m, 255, 0).astype(np.uint8) for name, m in masks.items()}
    readme = DOMAIN_README.format(
        title=DOMAIN_TITLE,
        seed=settings.seed,
        shape=" ".join(map(str, reversed(settings.shape))),
        size=" ".join(f"{v:g}" for v in settings.voxel_size_nm),
        **{name: len(sections) for name, sections in splits.items()},
    )
    with atomic_path(folder / "README.md") as temporary:  # first, so that a run cut short can be run again
        temporary.write_text(readme, encoding="utf-8")
    with atomic_path(folder / SYNTHETIC_MARK) as temporary:
        temporary.write_text(f"{DOMAIN_TITLE[2:]}; see README.md\n", encoding="utf-8")
    for split, sections in splits.items():
        _write_split(folder / split, images, sections)
    return [*(folder / split for split in splits), folder / "README.md", folder / SYNTHETIC_MARK]


def _write_split(folder: Path, images: dict[str, np.ndarray], sections: list[int]) -> None:
    from PIL import Image

    with atomic_path(folder) as temporary:
        for name, array in images.items():
            (temporary / name).mkdir(parents=True)
            for z in sections:
                Image.fromarray(array[z]).save(temporary / name / f"{z:02d}.png")


def _check_own(folder: Path, title: str) -> None:
    """Refuse a folder that holds anything but an earlier phantom of this kind, since its files are replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder")
    readme = folder / "README.md"
    own = readme.is_file() and readme.read_bytes().startswith(title.encode())
    if folder.is_dir() and not own and any(not left_by_system(path.name) for path in folder.iterdir()):
        raise UserError(f"--output {folder} holds other data; name an empty folder for the phantom")


def _arrays(phantom: Phantom) -> dict[str, np.ndarray]:
    masks = {name: getattr(phantom, name) for name in ("mitochondria", "membranes", "vesicles")}
    return {
        "em_u8_zyx": phantom.em,
        "neurites_i32_zyx": phantom.labels,
        "clefts_i32_zyx": phantom.clefts,
        **{f"{name}_u8_zyx": np.where(mask, 255, 0).astype(np.uint8) for name, mask in masks.items()},
    }
