"""A network from a checkpoint or an ONNX file, with all that inference needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from emlib.annotations.classes import MaskClass
from emlib.errors import UserError
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.models.multi_expert import MultiExpert
from emlib.learn.normalisation import Normalisation
from emlib.learn.prediction.channels import channel_classes, chosen_channels
from emlib.learn.volumes.boundary_model import refuse_neighbours
from emlib.volumes.volume import ZYX

SCRIPTED = (".pt", ".ts", ".torchscript")


@dataclass(frozen=True)
class Predictor:
    """A network and how to use it.

    Attributes
    ----------
    network : nn.Module
        (B, 1, Y, X) normalised grey values to (B, E, Y, X) logits.
    classes : tuple of MaskClass
        One for each channel of the network.
    activation : "sigmoid" or "softmax"
    normalisation : Normalisation
    voxel_size_nm : (z, y, x) in nm, or None
        Of the data that it was trained on.
    path : Path
    sha256 : str
        Of the file.
    bytes_per_pixel : float or None
        Memory of a forward pass where the file says so; else it is measured.
    """

    network: nn.Module
    classes: tuple[MaskClass, ...]
    activation: str
    normalisation: Normalisation
    voxel_size_nm: ZYX | None
    path: Path
    sha256: str
    bytes_per_pixel: float | None = None

    def choose(self, organelles: Sequence[str] | None) -> tuple[tuple[int, ...], Predictor]:
        """Return which channels to write, and a predictor that computes no more than it must for them.

        Raises
        ------
        UserError
            If the model has no such organelle (the nearest is told).
        """
        channels = chosen_channels(self.classes, self.activation, organelles, str(self.path))
        few = self.activation == "sigmoid" and len(channels) < len(self.classes)
        if not few:
            return channels, self
        classes = tuple(self.classes[k] for k in channels)
        fields = {**vars(self), "network": SomeChannels(self.network, channels), "classes": classes}
        return tuple(range(len(channels))), Predictor(**fields)


class SomeChannels(nn.Module):
    """A network with fewer channels; of a multi-expert one only these experts decode.

    Examples
    --------
    >>> SomeChannels(nn.Conv2d(1, 4, 1), [2])(torch.zeros(1, 1, 5, 5)).shape
    torch.Size([1, 1, 5, 5])
    """

    def __init__(self, network: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.network, self.channels = network, list(channels)
        self.activation = getattr(network, "activation", "sigmoid")
        # a network with a forward of its own may pad in another way than MultiExpert
        self.decodes = isinstance(network, MultiExpert) and type(network).forward is MultiExpert.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of the chosen channels."""
        if self.decodes:
            return self.network.decode(self.network.encode(x), self.channels)[..., : x.shape[-2], : x.shape[-1]]
        return self.network(x)[:, self.channels]


def load_predictor(
    model_path: str | Path | None, device: str, organelles: Sequence[str] | None, note: Callable[[str], None]
) -> Predictor:
    """Load a checkpoint, a bundled model by its name, or an ONNX file that ``--export onnx`` wrote.

    Parameters
    ----------
    model_path : path or name
    device : "cpu", "cuda" or "mps"
    organelles : names, optional
        For plain MExConn weights the names of their experts; see `emlib.learn.models.checkpoint.load_checkpoint`.
    note : function of a line
        Told what the user should know.

    Raises
    ------
    UserError
        If there is no such file, it is no model of ours, or it is TorchScript, which runs code as it is loaded.
    """
    suffix = Path(model_path).suffix.lower() if model_path is not None else ""
    if suffix == ".onnx":
        from emlib.learn.prediction.onnx_file import load_onnx

        if device != "cpu":
            note(f"note: an ONNX file runs on the CPU here, not on {device}")
        return load_onnx(Path(model_path).expanduser())
    if suffix in SCRIPTED:
        raise UserError(
            f"{model_path} is TorchScript by its name, which can run any code as it is loaded; give the checkpoint "
            "(.pth) that it was exported from, or an ONNX file"
        )
    checkpoint = load_checkpoint(model_path, device, organelles=organelles)
    refuse_neighbours(checkpoint)
    activation = getattr(checkpoint.model, "activation", "sigmoid")
    return Predictor(
        checkpoint.model.to(memory_format=torch.channels_last),  # a CPU takes two thirds of the time
        channel_classes(checkpoint.organelles, activation, checkpoint.settings),
        activation,
        checkpoint.normalisation,
        checkpoint.voxel_size_nm,
        checkpoint.path,
        checkpoint.sha256,
    )
