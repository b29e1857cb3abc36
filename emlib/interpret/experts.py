"""Some experts of a network, as a network of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from emlib.errors import UserError


class ChosenExperts(nn.Module):
    """A network with a shared encoder that knows of some of its experts alone; the weights are the network's.

    Parameters
    ----------
    model : nn.Module
        With ``organelles``, ``level_channels``, ``encode(x, edit)`` and ``decode(features, experts)``.
    organelles : names of experts, in the order that they are to have

    Attributes
    ----------
    organelles : tuple of str
    level_channels : tuple of int

    Raises
    ------
    UserError
        If the network has no experts, or its channels are classes that exclude each other.

    Examples
    --------
    >>> from emlib.learn.models.build import build_model
    >>> model = build_model({"name": "experts-paper", "organelles": ["a", "b", "c"], "widths": [2, 4]}).eval()
    >>> chosen, image = ChosenExperts(model, ["c", "a"]), torch.zeros(1, 1, 16, 16)
    >>> bool((chosen.decode(chosen.encode(image)) == model(image)[:, [2, 0]]).all())
    True
    """

    def __init__(self, model: nn.Module, organelles: Sequence[str]) -> None:
        super().__init__()
        if not hasattr(model, "decode"):
            raise UserError(
                f"{type(model).__name__} has one decoder for all organelles; channels are analysed of networks with an "
                "expert for each (--preset, or --head experts of train.py)"
            )
        if getattr(model, "activation", "sigmoid") != "sigmoid":
            raise UserError("the classes of this network exclude each other; channels are analysed of separate experts")
        self.model, self.organelles = model, tuple(organelles)
        self.level_channels = tuple(model.level_channels)
        self._numbers = [tuple(model.organelles).index(name) for name in organelles]

    def encode(self, x: torch.Tensor, edit=None) -> list[torch.Tensor]:
        """As the network does."""
        return self.model.encode(x, edit)

    def decode(self, features: Sequence[torch.Tensor], experts: Sequence[int] | None = None) -> torch.Tensor:
        """Return the logits of all chosen experts, or of those numbered among them."""
        wanted = range(len(self._numbers)) if experts is None else experts
        return self.model.decode(features, experts=[self._numbers[k] for k in wanted])
