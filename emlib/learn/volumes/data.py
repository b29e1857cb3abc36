"""The volume that a network of boundaries learns from: one part to train on, another to judge epochs by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emlib.annotations.classes import default_colour, hex_colour
from emlib.errors import UserError
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.normalisation import Normalisation, own_normalisation
from emlib.learn.volumes.batches import VolumeBatches
from emlib.learn.volumes.labelled import NAME, LabelledVolume
from emlib.learn.volumes.targets import boundary_targets
from emlib.learn.volumes.validation import VolumeScores
from emlib.volumes.companions import open_labels
from emlib.volumes.cutout import read_cutout
from emlib.volumes.identity import volume_sha256
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, VolumeSource, near_isotropic

NEAR, FAR = 5, 3  # sections that a network sees: of a near-isotropic volume, of one with thick sections
VAL_SHARE = 6  # the last sixth of the sections judges the epochs
LEAST = 8  # sections to train on


@dataclass(frozen=True)
class VolumeDataSettings:
    """Which labelled volume is trained on.

    Attributes
    ----------
    volume, labels : path
        EM and neurite labels of one shape.
    z : (first, end), optional
        The sections to learn from, those that judge included; default: all.
    val_z : (first, end), optional
        The sections that judge the epochs; default: the last sixth of ``z``.
    voxel_size : (z, y, x) in nm, optional
        Default: the file's.
    sections : int, optional
        Odd: how many neighbouring sections the network sees. Default: 5 where near isotropic, else 3.
    axes : 1 or 3, optional
        Learn sections along z alone or along all three axes; default: 3 where near isotropic.
    ignore : int, optional
        The label of voxels that nobody annotated.
    """

    volume: str | Path
    labels: str | Path
    z: tuple[int, int] | None = None
    val_z: tuple[int, int] | None = None
    voxel_size: tuple[float, ...] | None = None
    sections: int | None = None
    axes: int | None = None
    ignore: int | None = None

    @property
    def flags(self) -> dict[str, Any]:
        """What repeats it, by the names of flags."""
        names = {"volume": str(self.volume), "labels": str(self.labels), "z": self.z, "val_z": self.val_z}
        return {**names, "sections": self.sections, "axes": self.axes}

    def open(self, patch_size: int, note: Callable[[str], None]) -> VolumeTraining:
        """Read the volume; see `open_labelled`."""
        return open_labelled(self, note)


@dataclass(frozen=True)
class VolumeTraining:
    """A labelled volume, opened for `emlib.learn.training.fit.fit`.

    Attributes
    ----------
    train, val : LabelledVolume
        Apart by as many sections as the network sees on either side.
    voxel_size_nm : (z, y, x)
    name : str
        Of the file.
    sha256 : str
        Of the whole volume, see `emlib.volumes.identity.volume_sha256`.
    labels_sha256 : str
        Of the targets.
    """

    train: LabelledVolume
    val: LabelledVolume
    voxel_size_nm: ZYX
    name: str
    sha256: str
    labels_sha256: str

    organelles = (NAME,)
    activation = "sigmoid"

    @property
    def fingerprints(self) -> dict[str, str]:
        """What tells whether files have changed."""
        return {f"{self.name}/em": self.sha256, f"{self.name}/labels": self.labels_sha256}

    @property
    def network(self) -> dict[str, Any]:
        """What the data decide of the network."""
        return {"in_channels": self.train.sections}

    @property
    def about(self) -> dict[str, Any]:
        """What inference needs to know: how many sections, which axes, and what was seen in training."""
        z = {name: [part.first_z, part.first_z + len(part.em)] for name, part in self._parts}
        return {
            "colours": {NAME: hex_colour(default_colour(1))},
            "input": {"sections": self.train.sections, "axes": len(self.train.axes)},
            "trained_on": {"volume": self.name, "sha256": self.sha256, "z": z["train"], "val_z": z["val"]},
        }

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the grey that is trained on."""
        return own_normalisation(self.train.em)

    def batches(self, settings: PatchSettings, **how: Any) -> VolumeBatches:
        """Patches to train on, as `VolumeBatches` takes them."""
        return VolumeBatches(self.train, settings, **how)

    def scores(self, normalisation: Normalisation, device: torch.device | str, patches: PatchSettings) -> VolumeScores:
        """What judges a network."""
        return VolumeScores(self.val, normalisation, device)

    def lines(self, batches: VolumeBatches) -> list[str]:
        """What is trained on, for the shell."""
        size = " × ".join(f"{side:g}" for side in self.voxel_size_nm)
        parts = " and ".join(
            f"z {part.first_z}-{part.first_z + len(part.em) - 1} to {verb}"
            for verb, part in (("learn from", self.train), ("judge by", self.val))
        )
        how = f"{self.train.sections} sections at once along {'three axes' if len(self.train.axes) == 3 else 'z'}"
        share = np.bincount(self.train.targets.ravel(), minlength=256)
        return [
            f"{self.name}: {size} nm, {parts}; {how}; {share[1] / max(share[:2].sum(), 1):.0%} of the voxels on {NAME}"
        ]

    @property
    def _parts(self) -> tuple[tuple[str, LabelledVolume], ...]:
        return (("train", self.train), ("val", self.val))


def open_labelled(settings: VolumeDataSettings, note: Callable[[str], None]) -> VolumeTraining:
    """Read a labelled volume and part it.

    Parameters
    ----------
    settings : VolumeDataSettings
    note : callable
        Takes warnings and notes.

    Raises
    ------
    UserError
        If EM and labels differ in shape, the voxel size is unknown, sections lie outside or are too few, there is no
        boundary or nothing else, or a file cannot be read.
    """
    source, labels = open_volume(settings.volume), open_labels(settings.labels)
    if tuple(labels.shape) != tuple(source.shape):
        raise UserError(
            f"{labels.uri} has shape {labels.shape} and {source.uri} {source.shape} (z, y, x); give labels of the very "
            "same voxels"
        )
    size = _voxel_size(settings, source)
    near = near_isotropic(size)
    sections, axes = settings.sections or (NEAR if near else FAR), settings.axes or (3 if near else 1)
    if sections % 2 == 0:
        raise UserError(f"--sections {sections}: give an odd number, a section and as many neighbours on either side")
    if axes == 3 and not near:
        note(
            f"warning: --axes 3: sections of {size[0]:g} nm are more than twice as thick as pixels of {size[1]:g} nm "
            "are wide; sections along y and x look nothing like those along z"
        )
    spans = _spans(settings, source, sections // 2)
    compared = (0, 1, 2) if near else (1, 2)
    parts = {}
    for name, (first, end) in spans.items():
        cut = source.shape[2], source.shape[1], end - first
        em = read_cutout(source, cut, (0, 0, first), voxel_size_nm=size)
        ids = labels.read((slice(first, end), *(slice(0, n) for n in source.shape[1:])))
        targets = boundary_targets(ids, size, compared, settings.ignore)
        if len(found := np.unique(targets[targets <= 1])) < 2:
            what = "no boundary" if 1 not in found else "nothing but boundaries"
            raise UserError(f"{labels.uri} has {what} in z {first}-{end - 1}; give other sections with --z, --val_z")
        parts[name] = LabelledVolume(em.array, targets, tuple(range(axes)), sections, first)
    digest = hashlib.sha256(b"".join(part.targets.tobytes() for part in parts.values())).hexdigest()
    return VolumeTraining(
        parts["train"], parts["val"], size, Path(str(settings.volume)).name, volume_sha256(source), digest
    )


def _voxel_size(settings: VolumeDataSettings, source: VolumeSource) -> ZYX:
    given = settings.voxel_size if settings.voxel_size is not None else source.voxel_size_nm
    if given is None or len(given) != 3:
        raise UserError(
            f"{source.uri}: the voxel size decides what is learnt and is {'unknown' if given is None else 'no three'}"
            "; give --voxel_size Z Y X in nm"
        )
    return tuple(map(float, given))


def _spans(settings: VolumeDataSettings, source: VolumeSource, gap: int) -> dict[str, tuple[int, int]]:
    """The sections to learn from and to judge by, with what the network sees of neighbours left out between them."""
    depth = source.shape[0]
    first, end = _within(settings.z or (0, depth), depth, "--z", source)
    if settings.val_z is None:
        val = end - max(1, (end - first) // VAL_SHARE), end
    else:
        val = _within(settings.val_z, depth, "--val_z", source)
    pieces = [(first, min(end, val[0] - gap)), (max(first, val[1] + gap), end)]
    train = max(pieces, key=lambda piece: piece[1] - piece[0])
    if train[1] - train[0] < LEAST:
        raise UserError(
            f"--z {first} {end} leaves {max(train[1] - train[0], 0)} sections to learn from beside z {val[0]}-"
            f"{val[1] - 1}, which judge the epochs, and {LEAST} are the least; widen --z, or narrow --val_z"
        )
    return {"train": train, "val": val}


def _within(span: tuple[int, int], depth: int, flag: str, source: VolumeSource) -> tuple[int, int]:
    first, end = map(int, span)
    if not 0 <= first < end <= depth:
        raise UserError(
            f"{flag} {first} {end}: give the first section and one past the last, within 0 {depth} of {source.uri}"
        )
    return first, end
