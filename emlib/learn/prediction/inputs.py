"""What ``--input`` names: single images, and volumes, each with a name for its results."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.images import image_shape, read_grey, read_mask
from emlib.volumes.image_file import grey_of, open_with_pillow, read_tiff_image
from emlib.volumes.ome_zarr import MARKS, is_zarr
from emlib.volumes.open import HDF5, open_volume
from emlib.volumes.reading import reading
from emlib.volumes.sections import list_sections
from emlib.volumes.tiff import opened
from emlib.volumes.volume import VolumeSource

NUMBERS = "buif"  # kinds of dtypes that hold grey values


@dataclass(frozen=True)
class ImageInput:
    """One image: PNG, TIFF with one page, or a two-dimensional ``.npy``."""

    name: str
    path: Path

    def read(self, note: Callable[[str], None] = lambda line: None) -> np.ndarray:
        """Return the image (Y, X); colour becomes grey, which ``note`` is told.

        Raises
        ------
        UserError
            If the file is damaged or no image.
        """
        if self.path.suffix.lower() == ".npy":
            with reading(self.path):
                array = np.load(self.path, allow_pickle=False)
            if array.dtype.kind not in NUMBERS:
                raise UserError(f"{self.path} holds {array.dtype}; grey values are whole or decimal numbers")
            return array
        with reading(self.path):
            colour = _read_colour(self.path)
        if colour is None:
            return read_mask(self.path) if _holds_floats(self.path) else read_grey(self.path)
        if (colour != colour[..., :1]).any():
            note(f"note: {self.path} is in colour; its brightness is taken")
        return grey_of(colour)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the image, (Y, X), from the head of the file."""
        if self.path.suffix.lower() == ".npy":
            with reading(self.path):
                return np.load(self.path, mmap_mode="r", allow_pickle=False).shape
        return image_shape(self.path)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this file from another, without reading it."""
        return {"name": self.name, "path": str(self.path), **_stat([self.path])}


@dataclass(frozen=True)
class VolumeInput:
    """A volume, opened and not read."""

    name: str
    source: VolumeSource
    files: tuple[Path, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this volume from another, without reading its voxels."""
        shape = {"shape": list(self.source.shape), "dtype": str(self.source.dtype)}
        return {"name": self.name, "path": self.source.uri, **shape, **_stat(self.files)}


Input = ImageInput | VolumeInput


def find_inputs(specs: Sequence[str | Path], *, dataset: str | None = None, stack: bool = False) -> list[Input]:
    """Find what is to be predicted.

    Parameters
    ----------
    specs : sequence of str or path
        Images, folders of images, patterns (``'em/*.png'``), or volumes as `emlib.volumes.open.open_volume` takes them.
        A TIFF is a volume from two pages on.
    dataset : str, optional
        Of the HDF5 files, where it does not stand behind a colon.
    stack : bool
        A folder is a volume, its images the sections; else each is an image for itself.

    Returns
    -------
    list of ImageInput and VolumeInput
        In the order given, files of a folder in natural order; no two have one name (see `unique_names`).

    Raises
    ------
    UserError
        If there is no such file, a folder or pattern holds no image, a volume cannot be opened, or an input is named
        twice.
    """
    found: list[Input] = []
    for spec in map(str, specs):
        path = Path(spec).expanduser()
        if "://" in spec:
            found.append(VolumeInput("", open_volume(spec), ()))
        elif glob.has_magic(spec) and not path.exists():
            hits = [Path(hit) for hit in sorted(glob.glob(str(path)))]
            if not hits:
                raise UserError(f"--input {spec}: no file has such a name")
            found += [one for hit in hits for one in _open(hit, dataset, stack)]
        else:
            found += _open(path, dataset, stack)
    if dataset is not None and not any(isinstance(one, VolumeInput) and HDF5.match(one.source.uri) for one in found):
        raise UserError(f"--dataset {dataset} names an array in an HDF5 file, and no --input is one")
    named = [str(one.path.resolve() if isinstance(one, ImageInput) else one.source.uri) for one in found]
    counts = Counter(named)
    if twice := next((name for name in named if counts[name] > 1), None):
        raise UserError(f"--input names {twice} twice; name each input once")
    names = unique_names([_place(one) for one in found])
    return [replace(one, name=name) for one, name in zip(found, names, strict=True)]


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Name results after their inputs: the stem, and as much of the path as tells apart those of one stem.

    Names that differ in upper and lower case alone count as one, as some file systems have it.

    Examples
    --------
    >>> unique_names([Path("a/x.png"), Path("b/x.png"), Path("b/y.png"), Path("b/y.tif")])
    ['a_x', 'b_x', 'y_png', 'y_tif']
    """
    levels = (
        lambda p: p.stem,
        lambda p: f"{p.resolve().parent.name}_{p.stem}",
        lambda p: f"{p.stem}_{p.suffix[1:]}",
        lambda p: f"{p.resolve().parent.name}_{p.stem}_{p.suffix[1:]}",
        lambda p: "_".join(p.resolve().with_suffix("").parts[1:]) + f"_{p.suffix[1:]}",
    )
    names = [levels[0](path) for path in paths]
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name.lower(), []).append(i)
    for members in [group for group in groups.values() if len(group) > 1]:
        others = {name.lower() for i, name in enumerate(names) if i not in members}
        for level in levels[1:]:
            tried = [level(paths[i]) for i in members]
            lower = {name.lower() for name in tried}
            if len(lower) == len(members) and not lower & others:
                break
        for i, name in zip(members, tried, strict=True):
            names[i] = name
    return _numbered(names)


def _open(path: Path, dataset: str | None, stack: bool) -> list[Input]:
    """The images or the volume that a path names."""
    if hdf5 := HDF5.fullmatch(str(path)):
        name = f"{hdf5['file']}:{hdf5['dataset'] or dataset}" if hdf5["dataset"] or dataset else str(path)
        return [VolumeInput("", open_volume(name), (Path(hdf5["file"]),))]
    if path.is_dir():
        if is_zarr(path):
            return [VolumeInput("", open_volume(path), tuple(path / mark for mark in MARKS if (path / mark).is_file()))]
        files = list_sections(path)
        if stack:
            return [VolumeInput("", open_volume(path), tuple(files))]
        return [one for file in files for one in _open(file, None, False)]
    if path.is_file() and _is_image(path):
        return [ImageInput("", path)]
    return [VolumeInput("", open_volume(path), (path,))]


def _is_image(path: Path) -> bool:
    """Whether a file holds one image, not a volume; only its header is read."""
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in (".tif", ".tiff"):
            with opened(path) as tif:
                return len(tif.pages) == 1 and len(tif.series[0].shape) < 4
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False).ndim == 2
    return suffix == ".png"


def _read_colour(path: Path) -> np.ndarray | None:
    """Red, green and blue (Y, X, 3) of an image in colour; None where it is grey."""
    if path.suffix.lower() == ".png":
        with open_with_pillow(path, ("PNG",)) as image:
            return np.asarray(image.convert("RGB")) if image.mode in ("RGB", "RGBA", "P") else None
    with opened(path) as tif:
        page = tif.pages.first
        if page.samplesperpixel < 3 and page.colormap is None:  # grey: left to be decoded once
            return None
    image = read_tiff_image(path, keep_palette=False)
    return image[..., :3] if image.ndim == 3 else None


def _holds_floats(path: Path) -> bool:
    if path.suffix.lower() == ".png":
        return False
    with reading(path), opened(path) as tif:
        return tif.pages.first.dtype is not None and tif.pages.first.dtype.kind == "f"


def _place(one: Input) -> Path:
    """Where an input lies, to name its results after: the path of a file, or what comes nearest to it."""
    if isinstance(one, ImageInput):
        return one.path.resolve()
    if hdf5 := HDF5.fullmatch(one.source.uri):
        return Path(hdf5["file"]).resolve()
    return Path(one.source.uri.replace("://", "/")).resolve()


def _numbered(names: list[str]) -> list[str]:
    """The names, a number behind each that is there before, whatever else failed to tell them apart."""
    seen: set[str] = set()
    out = []
    for name in names:
        free, count = name, 1
        while free.lower() in seen:
            count += 1
            free = f"{name}_{count}"
        seen.add(free.lower())
        out.append(free)
    return out


def _stat(files: Iterable[Path]) -> dict[str, Any]:
    """Bytes and time of the last change of some files."""
    stats = [file.stat() for file in files]
    return {"bytes": sum(s.st_size for s in stats), "changed_ns": max((s.st_mtime_ns for s in stats), default=0)}
