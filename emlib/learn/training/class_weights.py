"""How much each organelle or class counts in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emlib.errors import UserError


def loss_weights(
    asked: str | Sequence[float] | None, balance: np.ndarray | None, names: Sequence[str], activation: str
) -> list[float] | None:
    """Return the weights of a loss.

    Parameters
    ----------
    asked : "auto", floats or None
        Of the recipe.
    balance : (E,) array, or None
        Share of the pixels of each organelle or class; only auto looks at it.
    names : names of organelles or classes
    activation : "sigmoid" or "softmax"

    Raises
    ------
    UserError
        If there is not one weight for each.

    Examples
    --------
    >>> loss_weights([1, 4], None, ["membranes", "synapses"], "sigmoid")
    [1.0, 4.0]
    """
    if asked is None:
        return None
    if asked == "auto":
        return organelle_weights(balance)
    if len(asked) != len(names):
        kind = "organelles" if activation == "sigmoid" else "classes"
        raise UserError(
            f"--class_weights has {len(asked)} numbers for {len(names)} {kind}; give one for each of "
            f"{', '.join(names)}, in this order, or auto"
        )
    return [float(weight) for weight in asked]


def organelle_weights(balance: np.ndarray) -> list[float]:
    """Return weights that rise as organelles get rarer, with the inverse root of their share of pixels; mean 1.

    Examples
    --------
    >>> organelle_weights(np.array([0.25, 0.01]))
    [0.3333, 1.6667]
    """
    raw = 1 / np.sqrt(np.maximum(balance, 1e-4))  # one without pixels must not outweigh all others
    return [float(w) for w in np.round(raw / raw.mean(), 4)]
