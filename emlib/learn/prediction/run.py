"""What all inputs of one prediction share: the network, the settings, where results go and which are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from emlib.annotations.classes import MaskClass
from emlib.errors import UserError
from emlib.learn.prediction.blocks import BlockSettings, block_bytes, lay_blocks
from emlib.learn.prediction.channels import SOFTMAX
from emlib.learn.prediction.predictor import Predictor
from emlib.learn.prediction.record import PARTIAL, Journal
from emlib.learn.prediction.settings import PredictSettings
from emlib.volumes.volume import ZYX, Box, anisotropy

KINDS = ("masks", "probabilities", "instances", "overlay", "colour_masks", "measurements")
RESERVED = (*KINDS, "runs", PARTIAL)
NEAR_ISOTROPIC = 2.0  # as everywhere in emlib: sections at most twice as thick as a pixel
ALIKE = 0.02  # sizes of pixels that differ by less are taken for one


@dataclass(frozen=True)
class Run:
    """One prediction.

    Attributes
    ----------
    predictor : Predictor
    channels : tuple of int
        Those that are written.
    settings : PredictSettings
    blocks : BlockSettings
        Without resampling, see `block_settings`.
    room : int
        Bytes that a block may take.
    memory_gb : float
    root : Path
        The output folder.
    journal : Journal
    note : function of a line
    """

    predictor: Predictor
    channels: tuple[int, ...]
    settings: PredictSettings
    blocks: BlockSettings
    room: int
    memory_gb: float
    root: Path
    journal: Journal
    note: Callable[[str], None]

    @cached_property
    def classes(self) -> dict[MaskClass, int]:
        """The class of each channel that is written, and the number of the channel."""
        return {self.predictor.classes[k]: k for k in self.channels}

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude each other, so that one index mask holds all of them."""
        return self.predictor.activation == SOFTMAX

    def block_settings(self, size: ZYX | None) -> BlockSettings:
        """Return how to predict an input with voxels of ``size`` (z, y, x) in nm."""
        pixel = self.settings.pixel_nm
        if pixel is None:
            return self.blocks
        if size is None:
            raise UserError("--resample needs to know the size of a pixel; give --voxel_size Z Y X in nm")
        factors = [nm / pixel if abs(nm / pixel - 1) > 1e-6 else 1.0 for nm in size]
        if not self.settings.orthogonal:
            factors[0] = 1.0
        return replace(self.blocks, factors=tuple(factors))

    def lay(self, shape: tuple[int, int, int], size: ZYX | None) -> list[Box]:
        """Return the blocks of an input with voxels of ``size`` (z, y, x) in nm, see `lay_blocks`."""
        how = self.block_settings(size)
        voxels = int(self.room / block_bytes(len(self.predictor.classes), 4, how))
        return lay_blocks(shape, voxels, how, self.memory_gb)

    def object_size(self, size: ZYX | None) -> ZYX:
        """Return the voxel size in which objects are found and measured: the input's, else the model's."""
        found = size or self.predictor.voxel_size_nm
        if found is None:
            raise UserError("objects are measured in nm; give --voxel_size Z Y X")
        return found

    def mask_folder(self, one: MaskClass | None) -> str:
        """Where masks go: ``masks`` for classes that exclude each other, else a folder for each organelle."""
        return "masks" if one is None else folder_name(one.name)

    def file(self, kind: str, one: MaskClass | None, name: str) -> str:
        """Return a path without its ending, relative to the output folder."""
        return f"{kind}/{folder_name(one.name)}/{name}" if one is not None else f"{kind}/{name}"


def folder_name(organelle: str) -> str:
    """Return the folder of an organelle: its name, changed where it would be another folder.

    Raises
    ------
    UserError
        If it leads out of the output folder: a checkpoint of unknown origin may hold any name.

    Examples
    --------
    >>> folder_name("mitochondria"), folder_name("overlay")
    ('mitochondria', 'overlay_organelle')
    """
    if not organelle or organelle.startswith(".") or set(organelle) & set('/\\:*?"<>|\0\n'):
        raise UserError(f"the model has an organelle called {organelle[:60]!r}, which is no name for a folder")
    return f"{organelle}_organelle" if organelle.lower() in RESERVED else organelle


def result_folders(classes: Sequence[MaskClass], exclusive: bool, settings: PredictSettings) -> list[str]:
    """Return the folders that results go to, relative to the output folder.

    Examples
    --------
    >>> result_folders([MaskClass(1, "er", (0, 0, 0))], False, PredictSettings(overlay=True))
    ['er', 'overlay']
    """
    names = [folder_name(one.name) for one in classes]
    out = ["masks"] if exclusive else list(names)
    out += [f"probabilities/{name}" for name in names if settings.probabilities]
    out += [f"instances/{name}" for name in names if settings.instances]
    chosen = {"overlay": settings.overlay, "colour_masks": settings.colour_masks, "measurements": settings.measure}
    return out + [name for name, wanted in chosen.items() if wanted]


def check_planes(shape: tuple[int, int, int], size: ZYX | None, where: str) -> str | None:
    """Say whether sections may be cut in all three directions.

    Parameters
    ----------
    shape : (Z, Y, X)
    size : (z, y, x) in nm, or None
    where : str

    Returns
    -------
    str or None
        A warning, where sections are thicker than a pixel and within the limit.

    Raises
    ------
    UserError
        If the voxel size is unknown, or voxels are more than twice as long as wide.

    Examples
    --------
    >>> check_planes((64, 64, 64), (8, 8, 8), "a.tif")
    >>> check_planes((64, 64, 64), (12, 8, 8), "a.tif")[:40]
    'warning: voxels of a.tif are 12 × 8 × 8 '
    """
    if size is None:
        raise UserError(f"--orthogonal: the voxel size of {where} is unknown; give --voxel_size Z Y X in nm")
    ratio = max(anisotropy(size), 1 / anisotropy(size))
    nm = " × ".join(f"{value:g}" for value in size)
    if ratio > NEAR_ISOTROPIC:
        raise UserError(
            f"--orthogonal is for voxels that are about as thick as wide; those of {where} are {nm} nm (z, y, x), a "
            f"factor of {ratio:.3g}: leave it out"
        )
    if ratio > 1 + ALIKE:
        return f"warning: voxels of {where} are {nm} nm (z, y, x); sections across z look stretched to the network"
    return None


def compare_sizes(size: ZYX | None, trained: ZYX | None, resampled: bool) -> str | None:
    """Return a note where pixels of the input are not of the size that the network has learnt.

    Parameters
    ----------
    size, trained : (z, y, x) in nm, or None
        Of the input, of the training.
    resampled : bool
        Whether the input is brought to another size before.

    Examples
    --------
    >>> compare_sizes((50, 8, 8), (50, 4, 4), False)
    'note: pixels of the input are 8 × 8 nm (y x), the model learnt on 4 × 4 nm, a factor of 2; --resample matches them'
    """
    if size is None or trained is None or resampled:
        return None
    if np.allclose(size[1:], trained[1:], rtol=ALIKE):
        return None
    ours, theirs = (" × ".join(f"{value:g}" for value in one[1:]) for one in (size, trained))
    factor = float(np.sqrt(np.prod(size[1:]) / np.prod(trained[1:])))
    return (
        f"note: pixels of the input are {ours} nm (y x), the model learnt on {theirs} nm, a factor of {factor:.3g}; "
        "--resample matches them"
    )
