"""From a description to a network: what a preset names and a checkpoint stores."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from emlib.errors import UserError, nearest

# name: (module, class); the module is imported when its network is first asked for
NETWORKS = {
    "experts-laptop": ("emlib.learn.models.experts", "LaptopExperts"),
    "experts-paper": ("emlib.learn.models.experts_paper", "PaperExperts"),
    "experts-backbone": ("emlib.learn.models.segmenters", "BackboneExperts"),
    "unet": ("emlib.learn.models.segmenters", "Unet"),
    "pspnet": ("emlib.learn.models.segmenters", "PspNet"),
    "deeplabv3plus": ("emlib.learn.models.segmenters", "DeepLabV3Plus"),
    "upernet": ("emlib.learn.models.segmenters", "UperNet"),
}
ACTIVATIONS = ("sigmoid", "softmax")


def build_model(architecture: Mapping[str, Any]) -> nn.Module:
    """Return a new network with random weights, drawn from PyTorch's generator.

    Parameters
    ----------
    architecture : mapping
        ``name``, a key of `NETWORKS`; ``organelles``, the name of each channel of the output; ``activation``,
        "sigmoid" (the default: organelles may overlap) or "softmax" (classes exclude each other, the first is
        background); all else goes to the network's class.

    Returns
    -------
    nn.Module
        (B, 1, Y, X) grey values to (B, E, Y, X) logits, one channel for each organelle or class, for any Y and X from
        16. It has ``organelles``, ``activation``, ``level_channels`` (of the levels of ``encode``), ``encode(x, edit)``
        and ``decode(features, experts)``.

    Raises
    ------
    UserError
        If the name or the backbone is unknown (the nearest is told), organelles are missing or named twice, there is
        one class alone for softmax, or the network takes no such argument or refuses its value.

    Examples
    --------
    >>> build_model({"name": "experts-paper", "organelles": ["mitochondria"], "widths": [8, 16]}).organelles
    ('mitochondria',)
    """
    arguments = dict(architecture)
    name, organelles = arguments.pop("name", None), arguments.pop("organelles", ())
    if not isinstance(name, str) or name not in NETWORKS:
        raise UserError(f"there is no network {str(name)[:60]!r}; {nearest(str(name)[:60], [*NETWORKS])}")
    names = organelles if isinstance(organelles, (list, tuple)) else ()
    if not names or not all(isinstance(n, str) and n for n in names):
        raise UserError(f"the network {name} needs the name of at least one organelle")
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise UserError(f"the organelle {twice[0]!r} is named twice; name each once")
    activation = arguments.pop("activation", ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        hint = nearest(str(activation)[:60], ACTIVATIONS)
        raise UserError(f"there is no activation {str(activation)[:60]!r}; {hint}")
    if activation == "softmax" and len(names) < 2:
        raise UserError("softmax needs at least two classes, the first of them background")
    module, kind = NETWORKS[name]
    network = getattr(import_module(module), kind)
    known = [key for key in inspect.signature(network).parameters if key != "organelles"]
    for key in arguments:
        if key not in known:
            raise UserError(f"the network {name} has no setting {str(key)[:60]!r}; {nearest(str(key)[:60], known)}")
    try:
        model = network(tuple(names), **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"the network {name} cannot be built: {' '.join(str(error).split())[:200]}") from error
    model.activation = activation
    return model


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers a network learns.

    Examples
    --------
    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())
