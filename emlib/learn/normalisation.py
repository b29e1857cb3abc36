"""From grey values on disk to what a network sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Normalisation:
    """Subtract a mean and divide by a standard deviation, both of grey values in [0, 1].

    The defaults change nothing, as in the published multi-expert code.
    """

    mean: float = 0.0
    std: float = 1.0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return float32 of the same shape; integers are divided by the largest value of their type first.

        Raises
        ------
        ValueError
            If the integers are signed.

        Examples
        --------
        >>> Normalisation(0.5, 0.25).apply(np.array([0, 255], np.uint8))
        array([-2.,  2.], dtype=float32)
        """
        return (unit_grey(image) - np.float32(self.mean)) / np.float32(self.std)


def own_normalisation(volume: np.ndarray) -> Normalisation:
    """Return the mean and the standard deviation of a volume's own grey; the latter is 1 if all are equal.

    Parameters
    ----------
    volume : uint8, uint16 or float array
        As for `Normalisation.apply`.

    Examples
    --------
    >>> own_normalisation(np.array([0, 0, 255, 255], np.uint8))
    Normalisation(mean=0.5, std=0.5)
    """
    if np.issubdtype(volume.dtype, np.unsignedinteger):
        return counted_normalisation(np.bincount(volume.ravel()), np.iinfo(volume.dtype).max)
    return Normalisation(float(volume.mean(dtype=np.float64)), float(volume.std(dtype=np.float64)) or 1.0)


def counted_normalisation(counts: np.ndarray, largest: int) -> Normalisation:
    """As `own_normalisation`, of voxels that were counted.

    Parameters
    ----------
    counts : int array
        How often each value from 0 on occurs.
    largest : int
        Value of the type.

    Examples
    --------
    >>> counted_normalisation(np.bincount([0, 0, 255, 255]), 255)
    Normalisation(mean=0.5, std=0.5)
    """
    counts = np.trim_zeros(counts, "b")  # sums of floats depend on how many there are
    grey = np.arange(len(counts)) / largest
    mean = float((counts * grey).sum() / counts.sum())
    return Normalisation(mean, float((counts * (grey - mean) ** 2).sum() / counts.sum()) ** 0.5 or 1.0)


def unit_grey(image: np.ndarray) -> np.ndarray:
    """Return grey values as float32 in [0, 1]: unsigned integers over the largest of their type, floats as they are.

    Raises
    ------
    ValueError
        If the integers are signed.

    Examples
    --------
    >>> unit_grey(np.array([0, 65535], np.uint16))
    array([0., 1.], dtype=float32)
    """
    if image.dtype == bool or np.issubdtype(image.dtype, np.floating):
        return image.astype(np.float32)
    if not np.issubdtype(image.dtype, np.unsignedinteger):
        raise ValueError(f"grey values are unsigned integers or floats, not {image.dtype}")
    return image.astype(np.float32) * np.float32(1 / np.iinfo(image.dtype).max)
