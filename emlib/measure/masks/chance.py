"""What masks score that know nothing of the image: the lines that every prediction has to beat."""

from __future__ import annotations

import numpy as np

CHANCE = ("all_background", "all_foreground", "random")


def chance_masks(pred: np.ndarray, seed: int, section: int) -> dict[str, np.ndarray]:
    """Make the three chance predictions of one section.

    Parameters
    ----------
    pred : (Y, X) bool array
        The prediction; only its size and its count of pixels matter.
    seed : int
        At least 0.
    section : int
        Number of the section, so that each has its own draw whatever is computed beside it.

    Returns
    -------
    dict of (Y, X) bool arrays
        ``all_background``, ``all_foreground``, and ``random``: as many pixels as predicted, anywhere.

    Examples
    --------
    >>> lines = chance_masks(np.eye(4, dtype=bool), seed=0, section=0)
    >>> {name: int(mask.sum()) for name, mask in lines.items()}
    {'all_background': 0, 'all_foreground': 16, 'random': 4}
    """
    count = np.count_nonzero(pred)
    drawn = np.random.default_rng([seed, section]).choice(pred.size, count, replace=False, shuffle=False)
    scattered = np.zeros(pred.size, bool)
    scattered[drawn] = True
    masks = (np.zeros(pred.shape, bool), np.ones(pred.shape, bool), scattered.reshape(pred.shape))
    return dict(zip(CHANCE, masks, strict=True))
