"""Weights into the network that they belong to, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.models.build import build_model


def fill_network(architecture: Mapping[str, Any], weights: Mapping[str, Any]) -> nn.Module:
    """Build a network and give it weights, all of which must fit; PyTorch's generator is left as it was.

    Parameters
    ----------
    architecture : mapping
        For `emlib.learn.models.build.build_model`.
    weights : mapping
        Tensors by the names of ``state_dict``, of any floating type; the network has its own.

    Raises
    ------
    UserError
        If a weight is missing, of another shape, no such network has it, or it is no ordinary tensor. Shapes are
        compared before the network is built, so that a file cannot ask for more memory than it has bytes.

    Examples
    --------
    >>> architecture = {"name": "experts-paper", "organelles": ["synapses"], "widths": [4]}
    >>> fill_network(architecture, build_model(architecture).state_dict()).level_channels
    (4,)
    """
    name, weights = architecture["name"], dict(weights)
    with torch.device("meta"):
        expected = build_model(architecture).state_dict()
    for key, tensor in expected.items():
        if key.endswith("num_batches_tracked"):  # older PyTorch did not store it, and nothing here reads it
            weights.setdefault(key, torch.zeros((), dtype=torch.int64))
        if key not in weights:
            raise UserError(f"its weights lack {key}, which the network {name} needs")
        if not _is_ordinary(weights[key]):
            raise UserError(f"its weights {key} are no ordinary tensor")
        if weights[key].shape != tensor.shape:
            found, wanted = (" × ".join(map(str, t.shape)) or "one number" for t in (weights[key], tensor))
            raise UserError(f"its weights {key} are {found}, the network {name} needs {wanted}")
    if unknown := [key for key in weights if key not in expected]:
        raise UserError(f"it holds weights that the network {name} has not, such as {str(unknown[0])[:60]!r}")
    with torch.random.fork_rng(devices=[]):
        model = build_model(architecture)
    model.load_state_dict(weights)
    return model


def _is_ordinary(value: Any) -> bool:
    """Whether it is a dense tensor of real numbers that all lie in memory; one number can be expanded to gigabytes."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.device.type == "meta":
        return False
    if value.is_complex() or value.is_quantized:
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()
