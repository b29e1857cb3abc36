"""The sections that a training learns from and is measured on: of one data set, or of several together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emlib.annotations.classes import Classes, default_colour, hex_colour
from emlib.errors import UserError, nearest
from emlib.learn.datasets.domain import find_split
from emlib.learn.datasets.fingerprint import fingerprint
from emlib.learn.datasets.joined import JoinedSections, common_organelles, join
from emlib.learn.datasets.patches import PatchBatches
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.datasets.resampling import zoom_to
from emlib.learn.datasets.sections import Sections, grey_statistics, open_splits
from emlib.learn.datasets.split import Split
from emlib.learn.normalisation import Normalisation
from emlib.learn.training.validation import DomainScores, SectionScores, tiles_within
from emlib.runs.catalogue import DATASETS
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class DataSettings:
    """Which data are trained on.

    Attributes
    ----------
    root : path
        The folder of the data sets.
    domains : tuple of str
        Their names there.
    organelles : tuple of str, optional
        Default: all folders of masks. Of several data sets one may lack some of them.
    voxel_size : floats in nm, optional
        (z, y, x) of all data sets, or of each in turn. Default: those of the public data sets of these names.
    ignore_index : int, optional
        The value of pixels of masks that nobody annotated.
    resample_nm : float, optional
        Side of a pixel in nm that all sections are brought to.
    memory_gb : float
        What sections and masks may take in memory, in each process.
    """

    root: str | Path
    domains: tuple[str, ...]
    organelles: tuple[str, ...] | None = None
    voxel_size: tuple[float, ...] | None = None
    ignore_index: int | None = None
    resample_nm: float | None = None
    memory_gb: float = 2.0

    @property
    def flags(self) -> dict[str, Any]:
        """What names the data sets again, by the names of flags."""
        domains = self.domains[0] if len(self.domains) == 1 else list(self.domains)
        return {"data_root": self.root, "domain": domains}

    def open(self, patch_size: int, note: Callable[[str], None]) -> TrainingData:
        """Find, check and open the sections; see `open_data`."""
        return open_data(self, patch_size, note)


@dataclass(frozen=True)
class TrainingData:
    """Sections, opened.

    Attributes
    ----------
    domains : tuple of str
    organelles : tuple of str
        Channels of the network: organelles of any data set, or classes, background first.
    activation : "sigmoid" or "softmax"
    classes : Classes, optional
        Of index masks.
    train : Sections or JoinedSections
    val : list of Sections
        One for each data set.
    voxel_size_nm : (z, y, x), optional
        Of the sections as the network sees them, where it is known and the same in all data sets.
    fingerprints : dict of str
        By ``domain/split``: what tells whether files have changed.
    """

    domains: tuple[str, ...]
    organelles: tuple[str, ...]
    activation: str
    classes: Classes | None
    train: Sections | JoinedSections
    val: list[Sections]
    voxel_size_nm: ZYX | None
    fingerprints: dict[str, str]

    @property
    def network(self) -> dict[str, Any]:
        """What the data decide of the network besides its channels: nothing, it sees one section at a time."""
        return {}

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the grey that is trained on."""
        return grey_statistics(self.train)

    def batches(self, settings: PatchSettings, **how: Any) -> PatchBatches:
        """Patches to train on, as `PatchBatches` takes them."""
        return PatchBatches(self.train, settings, **how)

    def scores(self, normalisation: Normalisation, device: torch.device | str, patches: PatchSettings) -> DomainScores:
        """What judges a network on the val sections, in tiles that fit where these patches do."""
        tiles = tiles_within(patches)
        return DomainScores([SectionScores(each, normalisation, device, tiles) for each in self.val])

    def lines(self, batches: PatchBatches) -> list[str]:
        """What is trained on, for the shell."""
        counts = f"{len(self.train)} train and {sum(map(len, self.val))} val sections"
        kind = "" if self.activation == "sigmoid" else f"{len(self.organelles)} classes: "
        lines = [f"{', '.join(self.domains)}: {counts}, {kind}{', '.join(self.organelles)}"]
        if len(self.domains) > 1:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(self.domains, batches.shares, strict=True))
            weighted = batches.settings.domain_weights
            given = "by --domain_weights" if weighted else "by their number; --domain_weights changes it"
            lines.append(f"patches from {shares} ({given})")
        return lines

    @property
    def about(self) -> dict[str, object]:
        """What inference needs to know of the channels: colours by name, and the ids of classes."""
        if self.classes is None:
            return {"colours": {name: hex_colour(default_colour(i)) for i, name in enumerate(self.organelles, start=1)}}
        colours = {one.name: hex_colour(one.colour) for one in self.classes.classes}
        return {"colours": colours, "class_ids": list(self.classes.ids)}


def open_data(settings: DataSettings, patch_size: int, note: Callable[[str], None]) -> TrainingData:
    """Find, check and open the train and val sections of all data sets; each file is decoded once.

    Parameters
    ----------
    settings : DataSettings
    patch_size : int
        Side of the patches in pixels; sections must not be smaller.
    note : callable
        Takes warnings and notes.

    Raises
    ------
    UserError
        If data sets cannot be trained together, or as `find_split` and `open_splits`.
    """
    if twice := {name for name in settings.domains if settings.domains.count(name) > 1}:
        raise UserError(f"--domain names {min(twice)} twice; name each data set once")
    train = [_found(settings, domain) for domain in settings.domains]
    organelles = _asked_order(settings, common_organelles(train), train)
    val = [
        find_split(settings.root, s.domain, "val", s.organelles, ignore_index=settings.ignore_index, classes=s.classes)
        for s in train
    ]
    sizes = voxel_sizes(settings)
    zooms = [zoom_to(settings.resample_nm, size) for size in sizes]
    opened, warnings = open_splits(
        [*train, *val],
        patch_size=patch_size,
        memory_gb=settings.memory_gb,
        organelles=organelles,
        zooms=[*zooms, *zooms],
    )
    for warning in warnings:
        note(f"warning: {warning}")
    size = _common_voxel_size(settings, sizes, note)
    joined, held_out = join(opened[: len(train)]), opened[len(train) :]
    _check_measurable(held_out)
    prints = {f"{split.domain}/{split.split}": fingerprint(split) for split in (*train, *val)}
    return TrainingData(
        settings.domains, organelles, joined.activation, train[0].classes, joined, held_out, size, prints
    )


def _check_measurable(held_out: Sequence[Sections]) -> None:
    """Refuse val sections by which no epoch can be judged, before one is trained."""
    for sections in held_out:
        first = 1 if sections.activation == "softmax" else 0  # the background is not scored
        if not any((sections.masks(index)[first:] == 1).any() for index in range(len(sections))):
            raise UserError(
                f"{sections.split.folder}: all masks are empty, so no epoch can be measured; add sections that show "
                "what is to be learnt"
            )


def voxel_sizes(settings: DataSettings) -> list[ZYX | None]:
    """Return the voxel size of each data set, None where it is unknown.

    Raises
    ------
    UserError
        If there are neither three numbers nor three for each data set.

    Examples
    --------
    >>> voxel_sizes(DataSettings("data", ("drosophila-vnc", "mine")))
    [(50.0, 4.6, 4.6), None]
    """
    given, count = settings.voxel_size, len(settings.domains)
    if given is None:
        known = [DATASETS[domain].voxel_size_nm if domain in DATASETS else None for domain in settings.domains]
    elif len(given) == 3:
        known = [given] * count
    elif len(given) == 3 * count:
        known = [given[3 * i : 3 * i + 3] for i in range(count)]
    else:
        raise UserError(
            f"--voxel_size has {len(given)} numbers; give Z Y X in nm"
            + (f" once, or for each of the {count} data sets in turn" if count > 1 else "")
        )
    return [None if size is None else tuple(map(float, size)) for size in known]


def _found(settings: DataSettings, domain: str) -> Split:
    """The train split of a data set; of several, with those of the organelles asked for that it has."""
    options = {"ignore_index": settings.ignore_index}
    if len(settings.domains) == 1 or settings.organelles is None:
        return find_split(settings.root, domain, "train", settings.organelles, **options)
    whole = find_split(settings.root, domain, "train", **options)
    if whole.classes is not None:
        return find_split(settings.root, domain, "train", settings.organelles, classes=whole.classes, **options)
    own = [name for name in settings.organelles if name in whole.organelles]
    if not own:
        raise UserError(
            f"{whole.folder} has no masks of {', '.join(settings.organelles)}; it has {', '.join(whole.organelles)}: "
            "leave it out of --domain, or name other --organelles"
        )
    return find_split(settings.root, domain, "train", own, **options)


def _asked_order(settings: DataSettings, there: tuple[str, ...], splits: Sequence[Split]) -> tuple[str, ...]:
    """The channels in the order asked for; every organelle that was must be somewhere."""
    if settings.organelles is None or splits[0].classes is not None:
        return there
    for name in settings.organelles:
        if name not in there:
            raise UserError(
                f"none of {', '.join(settings.domains)} has masks of {name!r}; {nearest(name, list(there))}"
            )
    return tuple(dict.fromkeys(settings.organelles))


def _common_voxel_size(settings: DataSettings, sizes: Sequence[ZYX | None], note: Callable[[str], None]) -> ZYX | None:
    """The voxel size that the model is for, and what has to be said of it."""
    to = settings.resample_nm
    for domain, size in zip(settings.domains, sizes, strict=True):
        if to is not None and size is None:
            note(
                f"warning: --resample_nm {to:g}: the voxel size of {domain} is unknown and its sections stay as "
                "they are; give it with --voxel_size"
            )
    known = [size for size in sizes if size is not None]
    if to is not None:
        return (known[0][0], float(to), float(to)) if known else None
    if len(known) < len(sizes):
        if known:
            note("note: the voxel size is not known of all data sets, so that the model carries none")
        return None
    alike = all(abs(a - b) <= 0.01 * b for size in known for a, b in zip(size[1:], known[0][1:], strict=True))
    if not alike:
        told = ", ".join(
            f"{domain} {size[1]:g} × {size[2]:g}" for domain, size in zip(settings.domains, sizes, strict=True)
        )
        note(
            f"warning: pixels differ in size ({told} nm), so that the model carries no voxel size; --resample_nm NM "
            "makes them alike"
        )
        return None
    return known[0]
