"""What ends a training: memory that runs out, a loss that is no number, a batch too small to normalise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emlib.errors import UserError
from emlib.learn.out_of_memory import memory_ran_out


@contextmanager
def memory_told(doing: str) -> Iterator[None]:
    """Turn running out of memory in the block into one line that names the flags that help.

    Parameters
    ----------
    doing : str
        What the block does, for the message.

    Raises
    ------
    UserError

    Examples
    --------
    >>> with memory_told("training"):
    ...     raise MemoryError
    Traceback (most recent call last):
    ...
    emlib.errors.UserError: out of memory while training; use a smaller --batch_size, then a smaller --patch_size
    """
    advice = f"out of memory while {doing}; use a smaller --batch_size, then a smaller --patch_size"
    try:
        yield
    except Exception as error:
        if memory_ran_out(error):
            raise UserError(advice) from error
        raise


@contextmanager
def single_values_told() -> Iterator[None]:
    """Turn PyTorch's refusal to normalise over a single value in the block into one line that names the flags.

    The deepest features of a patch of 32 pixels are one place for each channel, and so is what attention to channels
    pools; of a batch of one there is nothing to take a deviation of.

    Raises
    ------
    UserError
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "the network cannot normalise over a batch of one such patch; use --batch_size 2 or more, or a larger "
            "--patch_size"
        ) from error


def not_finite(batches: Any, epoch: int, step: int) -> str:
    """Say where the loss stopped being a number and what was in the batch.

    Parameters
    ----------
    batches : object
        Its method ``describe(epoch, step)``, if it has one, names sections and crops.
    epoch, step : int
        From 0.
    """
    describe = getattr(batches, "describe", None)
    what = f" (batch: {describe(epoch, step)})" if describe else ""
    return (
        f"the loss or its gradient is not finite in epoch {epoch + 1}, step {step + 1}{what}; look at these sections, "
        "or use a smaller --lr or --clip 1"
    )
