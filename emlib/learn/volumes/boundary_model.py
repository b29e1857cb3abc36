"""A network that can drive a segmentation: which of its channels tells boundaries, and how it wants to see a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from emlib.errors import UserError
from emlib.learn.models.checkpoint import Checkpoint, load_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.volumes.volume import ZYX

# Words in the names of channels, after singular and plural are made the same.
BOUNDARY = ("membrane", "boundary", "border", "outline", "cell_membrane", "plasma_membrane", "boundaries")
INSIDE = ("neurite", "neuron", "cell", "intracellular", "cytoplasm")
MITOCHONDRIA = ("mitochondrion", "mitochondria", "mito")
SYNAPSES = ("synapse", "cleft", "synaptic_cleft", "synaptic_junction", "active_zone", "t_bar")
WANTED = "a membrane or boundary output, or a neurite output"


@dataclass(frozen=True)
class BoundaryModel:
    """A network and how to use it.

    Attributes
    ----------
    network : nn.Module
    names : tuple of str
        Of its channels.
    boundary : int or None
        The channel that boundaries are taken from; None where it has none and none was asked for.
    inverted : bool
        Whether it tells the inside of neurites: the boundary is what lacks to 1.
    sections : int
        Neighbouring sections that it sees.
    axes : int or None
        Along how many axes it was trained, where the file says so.
    normalisation : Normalisation
    voxel_size_nm : (z, y, x) or None
    trained_on : dict
        ``volume``, ``sha256``, ``z``, ``val_z`` of the labelled volume that it was trained on; empty for others.
    path : Path
    sha256 : str
        Of the file.
    """

    network: nn.Module
    names: tuple[str, ...]
    boundary: int | None
    inverted: bool
    sections: int
    axes: int | None
    normalisation: Normalisation
    voxel_size_nm: ZYX | None
    trained_on: dict[str, Any]
    path: Path
    sha256: str

    @property
    def mitochondria(self) -> int | None:
        """The channel that tells mitochondria, or None."""
        return _find(self.names, MITOCHONDRIA)

    @property
    def synapses(self) -> int | None:
        """The channel that tells synapses, or None."""
        return _find(self.names, SYNAPSES)


def load_boundary_model(path_or_name: str | Path | None, *, boundary: bool = True) -> BoundaryModel:
    """Load a network whose output tells boundaries.

    Parameters
    ----------
    path_or_name : path or name
        As for `emlib.learn.models.checkpoint.load_checkpoint`.
    boundary : bool
        Whether an output that tells boundaries is needed; without, it may tell other things alone.

    Returns
    -------
    BoundaryModel

    Raises
    ------
    UserError
        If there is no such file, or the network has no such output, or sees an even number of sections.
    """
    checkpoint = load_checkpoint(path_or_name)
    names = checkpoint.organelles
    channel, inverted = None, False
    if boundary or _find(names, BOUNDARY + INSIDE) is not None:
        channel, inverted = boundary_channel(names, str(checkpoint.path))
    told = checkpoint.settings.get("input")
    told = told if isinstance(told, dict) else {}
    sections = sections_seen(checkpoint)
    if sections % 2 == 0:
        raise UserError(
            f"{checkpoint.path} takes {sections} channels, and a section with its neighbours is an odd number of them; "
            "it was made for images of another kind"
        )
    if sections > 1 and told.get("sections") != sections:
        raise UserError(
            f"{checkpoint.path} takes {sections} channels and does not say that they are neighbouring sections; train "
            "it with train.py --volume"
        )
    trained_on = checkpoint.settings.get("trained_on")
    return BoundaryModel(
        checkpoint.model,
        names,
        channel,
        inverted,
        sections,
        told.get("axes") if told.get("axes") in (1, 3) else None,
        checkpoint.normalisation,
        checkpoint.voxel_size_nm,
        trained_on if isinstance(trained_on, dict) else {},
        checkpoint.path,
        checkpoint.sha256,
    )


def sections_seen(checkpoint: Checkpoint) -> int:
    """Return how many channels of grey a network takes."""
    return int(checkpoint.architecture.get("in_channels", 1))


def refuse_neighbours(checkpoint: Checkpoint) -> None:
    """Refuse a network of neighbouring sections where it would be shown one.

    Raises
    ------
    UserError
    """
    if (sections := sections_seen(checkpoint)) > 1:
        raise UserError(
            f"{checkpoint.path} sees {sections} neighbouring sections at once, and here it would be shown one; "
            "run_pipeline.py --boundaries experts runs it on a volume"
        )


def boundary_channel(names: Sequence[str], where: str = "the model") -> tuple[int, bool]:
    """Return the channel that tells boundaries, and whether it does so by telling the inside of neurites.

    Parameters
    ----------
    names : sequence of str
        Of the channels.
    where : str
        The model, for the message.

    Raises
    ------
    UserError
        If none of them does.

    Examples
    --------
    >>> boundary_channel(["mitochondria", "Membranes"]), boundary_channel(["background", "neurites"])
    ((1, False), (1, True))
    """
    for words, inverted in ((BOUNDARY, False), (INSIDE, True)):
        if (found := _find(names, words)) is not None:
            return found, inverted
    raise UserError(
        f"{where} has no output that tells boundaries, only {', '.join(names)}; give a model with {WANTED}, or leave "
        "--boundaries experts out"
    )


def refuse_without_synapses(model: BoundaryModel) -> None:
    """Refuse a network that has no output for synapses where one was asked for.

    Raises
    ------
    UserError
    """
    if model.synapses is None:
        raise UserError(
            f"{model.path} has no output that tells synapses, only {', '.join(model.names)}; give a model with a "
            "synapse or cleft output, or take --synapses heuristic"
        )


def _find(names: Sequence[str], words: Sequence[str]) -> int | None:
    """The first channel whose name is one of the words."""
    plain = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in names]
    wanted = {*words, *(f"{word}s" for word in words)}
    return next((index for index, name in enumerate(plain) if name in wanted), None)
