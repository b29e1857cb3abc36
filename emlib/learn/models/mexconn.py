"""Weights of the published multi-expert model (MExConn): a bare state dict, recognised by the names of its tensors.

Its modules have the names of `emlib.learn.models.experts_paper`; what training wrappers put around them is taken off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from emlib.errors import UserError

FIRST = "encoder.layers.0.conv1.weight"
WRAPPERS = ("model_state_dict", "state_dict", "model_state", "model", "net", "network")


def mexconn_weights(content: Any) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a MExConn state dict by their own names; None if it is none.

    Parameters
    ----------
    content : anything
        What a file held: the state dict, or a dict that holds it under a usual name (`WRAPPERS`). Prefixes such as
        ``module.`` are taken off; what has not the prefix belongs to something else and is left out.

    Examples
    --------
    >>> list(mexconn_weights({"state_dict": {f"module.{FIRST}": torch.zeros(1)}})), mexconn_weights([1])
    (['encoder.layers.0.conv1.weight'], None)
    """
    if not isinstance(content, Mapping):
        return None
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    first = next((key for key in tensors if key == FIRST or key.endswith(f".{FIRST}")), None)
    if first is not None:
        start = len(first) - len(FIRST)
        return {key[start:]: value for key, value in tensors.items() if key.startswith(first[:start])}
    inner = (content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping))
    return next((found for found in map(_bare, inner) if found is not None), None)


def mexconn_architecture(
    weights: Mapping[str, torch.Tensor], organelles: Sequence[str] | None = None
) -> dict[str, Any]:
    """Read from the shapes of weights which network they belong to.

    Parameters
    ----------
    weights : mapping
        From `mexconn_weights`.
    organelles : sequence of str, optional
        Names of the experts, in their order; the weights carry none. Default: ``expert_0``, ``expert_1`` …

    Returns
    -------
    dict
        For `emlib.learn.models.build.build_model`.

    Raises
    ------
    UserError
        If there is no expert, the first convolution does not take one grey value, or there are not as many names as
        experts.

    Examples
    --------
    >>> from emlib.learn.models.experts_paper import PaperExperts
    >>> mexconn_architecture(PaperExperts("ab", widths=(16, 32)).state_dict())
    {'name': 'experts-paper', 'organelles': ['expert_0', 'expert_1'], 'widths': [16, 32]}
    """
    widths = []
    while (first := weights.get(f"encoder.layers.{len(widths)}.conv1.weight")) is not None:
        if first.ndim != 4:
            raise UserError("the weights of its encoder are not those of 2D convolutions")
        widths.append(first.shape[0])
    if weights[FIRST].shape[1] != 1:
        raise UserError(f"its network takes {weights[FIRST].shape[1]} values per pixel; only grey ones are supported")
    experts = len({found[1] for key in weights if (found := re.match(r"decoders\.(\d+)\.", key))})
    if not experts:
        raise UserError("it holds an encoder and no expert (decoders.0. …)")
    names = list(organelles) if organelles else [f"expert_{k}" for k in range(experts)]
    if len(names) != experts:
        raise UserError(f"it holds {experts} experts, and {len(names)} organelles were named ({', '.join(names)})")
    return {"name": "experts-paper", "organelles": names, "widths": widths}


def _bare(content: Mapping) -> dict[str, torch.Tensor] | None:
    """As `mexconn_weights`, of what lies in a wrapper; one deep, since a file may nest without end."""
    return mexconn_weights({key: value for key, value in content.items() if isinstance(value, torch.Tensor)})
