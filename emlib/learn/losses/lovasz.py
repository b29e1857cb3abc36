"""The Lovász losses: the IoU of a batch made convex, so that its own gradient is followed."""

from __future__ import annotations

import torch

from emlib.learn.losses.comparison import Comparison


def lovasz_loss(both: Comparison) -> torch.Tensor:
    """Return the Lovász hinge with sigmoid, Lovász-Softmax with softmax; the mean over organelles.

    The pixels of all images of a batch are one set, since few patches show every organelle. An organelle without true
    pixels costs its one worst hinge with sigmoid, and is left out with softmax, as in the authors' code.

    Notes
    -----
    Berman, Rannen Triki & Blaschko 2018 (The Lovász-Softmax loss): errors, sorted from the worst, times the growth of
    the Jaccard loss as each is added to the wrong ones.

    Examples
    --------
    Logits of 0 leave each pixel a hinge of 1, and the growth adds up to 1.

    >>> lovasz_loss(Comparison(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))).item()
    1.0
    """
    true = both.targets.transpose(0, 1).flatten(1) > 0.5
    if both.softmax:
        errors = (both.targets - both.probability).abs()
    else:
        errors = torch.relu(1 - both.logits * (2 * both.targets - 1))
    # one that is left out has no error, stands last and multiplies its growth by 0
    errors = both.known_only(errors).transpose(0, 1).flatten(1)
    errors, order = errors.sort(1, descending=True)
    losses = (errors * jaccard_growth(true.gather(1, order)).to(errors.dtype)).sum(1)
    present = true.any(1)[None] if both.softmax else both.annotated(batch=True)
    return both.organelle_mean(losses[None], present)


def jaccard_growth(true: torch.Tensor) -> torch.Tensor:
    """Return how much 1 - IoU grows as the pixels become wrong one after the other.

    Parameters
    ----------
    true : (E, N) bool tensor

    Returns
    -------
    (E, N) float32 tensor
        0 or above; rows add up to 1.

    Examples
    --------
    >>> jaccard_growth(torch.tensor([[True, False, True]])).mul(6).tolist()
    [[3.0, 1.0, 2.0]]
    """
    found = true.cumsum(1)  # whole numbers: float32 would lose count at 2²⁴ pixels
    total = found[:, -1:]
    union = total - found + torch.arange(1, true.shape[1] + 1, device=true.device)
    # a missed pixel leaves the union and shrinks the overlap, a false one grows the union: no small differences
    growth = torch.where(true, 1 / union, (total - found) / (union * (union - 1)).clamp(min=1))
    growth[:, :1] = growth[:, :1].where(total > 0, 1)  # nothing is true: the first wrong pixel is all wrong
    return growth
