"""The volume that a network of boundaries learns from: one part to train on, another to judge epochs by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emlib.annotations.classes import default_colour, hex_colour
from emlib.errors import UserError
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.normalisation import Normalisation, counted_normalisation
from emlib.learn.volumes.batches import VolumeBatches
from emlib.learn.volumes.counts import looked_at
from emlib.learn.volumes.labelled import NAME, LabelledVolume
from emlib.learn.volumes.reading_cost import check_pieces
from emlib.learn.volumes.stored import StoredTargets, in_memory, open_grey
from emlib.learn.volumes.validation import VolumeScores
from emlib.volumes.companions import open_labels
from emlib.volumes.cutout import refuse_palette, size_of_voxels
from emlib.volumes.identity import volume_sha256
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, VolumeSource, near_isotropic

NEAR, FAR = 5, 3  # sections that a network sees: of a near-isotropic volume, of one with thick sections
VAL_SHARE = 6  # the last sixth of the sections judges the epochs
LEAST = 8  # sections to train on
GB = 10**9


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
    memory_gb : float
        EM and targets that take more are not kept in memory: every patch is read from the files, which changes nothing
        of what is learnt.
    """

    volume: str | Path
    labels: str | Path
    z: tuple[int, int] | None = None
    val_z: tuple[int, int] | None = None
    voxel_size: tuple[float, ...] | None = None
    sections: int | None = None
    axes: int | None = None
    ignore: int | None = None
    memory_gb: float = 2.0

    @property
    def flags(self) -> dict[str, Any]:
        """What repeats it, by the names of flags."""
        names = {"volume": str(self.volume), "labels": str(self.labels), "z": self.z, "val_z": self.val_z}
        return {**names, "sections": self.sections, "axes": self.axes}

    def open(self, patch_size: int, note: Callable[[str], None]) -> VolumeTraining:
        """Open the volume; see `open_labelled`."""
        return open_labelled(self, note, patch_size)


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
    share : float
        Of the annotated voxels that are learnt from which lie on boundaries.
    """

    train: LabelledVolume
    val: LabelledVolume
    voxel_size_nm: ZYX
    name: str
    sha256: str
    labels_sha256: str
    share: float

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
        z = {name: [part.first_z, part.first_z + part.em.shape[0]] for name, part in self._parts}
        return {
            "colours": {NAME: hex_colour(default_colour(1))},
            "input": {"sections": self.train.sections, "axes": len(self.train.axes)},
            "trained_on": {"volume": self.name, "sha256": self.sha256, "z": z["train"], "val_z": z["val"]},
        }

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the grey that is trained on."""
        return counted_normalisation(self.train.grey_counts, 255)

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
            f"z {part.first_z}-{part.first_z + part.em.shape[0] - 1} to {verb}"
            for verb, part in (("learn from", self.train), ("judge by", self.val))
        )
        how = f"{self.train.sections} sections at once along {'three axes' if len(self.train.axes) == 3 else 'z'}"
        return [f"{self.name}: {size} nm, {parts}; {how}; {self.share:.0%} of the voxels on {NAME}"]

    @property
    def _parts(self) -> tuple[tuple[str, LabelledVolume], ...]:
        return (("train", self.train), ("val", self.val))


def open_labelled(settings: VolumeDataSettings, note: Callable[[str], None], patch_size: int = 128) -> VolumeTraining:
    """Open a labelled volume and part it; it is read into memory where it fits.

    Parameters
    ----------
    settings : VolumeDataSettings
    note : callable
        Takes warnings and notes.
    patch_size : int
        In pixels: what a patch costs that is read from the files is told.

    Raises
    ------
    UserError
        If EM and labels differ in shape, the voxel size is unknown, sections lie outside or are too few, there is no
        boundary or nothing else, a file cannot be read, or does not fit into memory and cannot be read in parts.
    """
    source, labels = open_volume(settings.volume), open_labels(settings.labels)
    if tuple(labels.shape) != tuple(source.shape):
        raise UserError(
            f"{labels.uri} has shape {labels.shape} and {source.uri} {source.shape} (z, y, x); give labels of the very "
            "same voxels"
        )
    refuse_palette(source)
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
    patch = sections, patch_size, patch_size
    held = _fits(settings, source, labels, spans, tuple(range(axes)), patch, note)
    parts, digest, shares = {}, hashlib.sha256(), {}
    for name, (first, end) in spans.items():
        grey = open_grey(source, first, end)
        targets = StoredTargets(labels, first, end, size, (0, 1, 2) if near else (1, 2), settings.ignore)
        part = LabelledVolume(grey, targets, tuple(range(axes)), sections, first)
        parts[name] = part if not held else replace(part, em=in_memory(grey, first), targets=in_memory(targets, first))
        shares[name] = _look_through(parts[name], digest, source.uri, labels.uri)
    name, sha256 = Path(str(settings.volume)).name, volume_sha256(source)
    return VolumeTraining(parts["train"], parts["val"], size, name, sha256, digest.hexdigest(), shares["train"])


def _fits(
    settings: VolumeDataSettings,
    source: VolumeSource,
    labels: VolumeSource,
    spans: dict[str, tuple[int, int]],
    axes: tuple[int, ...],
    patch: tuple[int, int, int],
    note: Callable[[str], None],
) -> bool:
    """Whether EM and targets are read into memory; where not, what their files make of that is told."""
    needed = 2 * prod(source.shape[1:]) * sum(end - first for first, end in spans.values())
    if needed <= settings.memory_gb * GB:
        return True
    for one, flag in ((source, "--volume"), (labels, "--labels")):
        check_pieces(one, flag, axes, patch, settings.memory_gb, note)
    note(
        f"note: EM and targets would take {needed / GB:.1f} GB, more than --memory_gb {settings.memory_gb:g}; patches "
        "are read from the files"
    )
    return False


def _look_through(part: LabelledVolume, digest: hashlib._Hash, em: str, labels: str) -> float:
    """Add the targets of a part to their checksum and return the share of boundaries.

    Raises
    ------
    UserError
        If the EM has a single grey value, or there is nothing to learn.
    """
    counts = np.zeros(256, np.int64)
    for box in looked_at(part.targets.shape, part.first_z):
        targets = np.ascontiguousarray(part.targets[box])
        digest.update(targets)
        counts += np.bincount(targets.ravel(), minlength=256)
    where = f"z {part.first_z}-{part.first_z + part.em.shape[0] - 1}"
    if not counts[0] or not counts[1]:
        what = "no boundary" if not counts[1] else "nothing but boundaries"
        raise UserError(f"{labels} has {what} in {where}; give other sections with --z, --val_z")
    grey = np.flatnonzero(part.grey_counts)
    if len(grey) == 1:
        raise UserError(f"{em} holds a single grey value {grey[0]} in {where}; give other sections with --z, --val_z")
    return float(counts[1] / counts[:2].sum())


def _voxel_size(settings: VolumeDataSettings, source: VolumeSource) -> ZYX:
    given = settings.voxel_size if settings.voxel_size is not None else source.voxel_size_nm
    if given is None or len(given) != 3:
        raise UserError(
            f"{source.uri}: the voxel size decides what is learnt and is {'unknown' if given is None else 'no three'}"
            "; give --voxel_size Z Y X in nm"
        )
    return tuple(map(float, size_of_voxels(source, tuple(given), [])[0]))


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
