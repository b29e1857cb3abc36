"""The teacher: the slowly following average of the network, which makes new pseudo-labels every few epochs.

1. Predict the whole volume, averaged over the axes.
2. Segment it, as the result will be segmented.
3. Targets where both agree; unless these are much fewer than before.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from torch import nn

from emlib.refine.unet.patches import SelftrainBatches
from emlib.refine.unet.pseudo import pseudo_targets
from emlib.refine.unet.settings import SelftrainSettings
from emlib.stages.segment import segment
from emlib.volumes.atomic import atomic_path
from emlib.volumes.volume import ZYX

LEAST = 0.5  # of the sure boundary and neurite pixels so far, for new pseudo-labels to take their place
Predict = Callable[[nn.Module], np.ndarray]


class Teacher:
    """Renews the pseudo-labels of batches; called by the training loop as an epoch begins.

    Parameters
    ----------
    batches : SelftrainBatches
        With the first pseudo-labels.
    predict : callable
        From a network to the boundary probability of the volume.
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    settings : SelftrainSettings
    path : Path
        Where pseudo-labels are kept, so that a training goes on with those it had.
    note : callable
        Takes lines for the user.
    """

    def __init__(
        self,
        batches: SelftrainBatches,
        predict: Predict,
        em: np.ndarray,
        voxel_size_nm: ZYX,
        settings: SelftrainSettings,
        path: Path,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.batches, self.predict, self.em, self.voxel_size_nm = batches, predict, em, voxel_size_nm
        self.settings, self.path, self.note = settings, path, note
        self.made = 0  # the epoch as which began the present ones were made

    def __call__(self, epoch: int, network: nn.Module) -> None:
        """Renew what is due at the beginning of an epoch, counted from 0; what was made for it before is read."""
        every = self.settings.renew_every
        due = epoch // every * every if every else 0
        if due == self.made:
            return
        kept = self._kept(due)
        if kept is None:
            probability = self.predict(network)
            labels = segment(self.em, self.voxel_size_nm, self.settings.segment, probability)
            chosen = {"certain": self.settings.certain, "band_px": self.settings.band_px}
            kept = pseudo_targets(labels, probability, self.batches.axes, **chosen)
            before, now = _sure(self.batches.pseudo), _sure(kept)
            if (now < LEAST * before).any():  # an average of a few steps is sure of nothing, and would teach that
                self.note(f"no new pseudo-labels: the teacher is sure of {now.sum():.0%} of the pixels only")
                kept = tuple(self.batches.pseudo)
            else:
                self.note(f"new pseudo-labels: {labels.max()} neurites, {now.sum():.0%} of the pixels sure")
            self._keep(due, kept)
        self.batches.pseudo, self.made = kept, due

    def _keep(self, epoch: int, targets: tuple[np.ndarray, ...]) -> None:
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, epoch=epoch, **{f"axis{n}": planes for n, planes in enumerate(targets)})

    def _kept(self, epoch: int) -> tuple[np.ndarray, ...] | None:
        """Pseudo-labels that an interrupted training made for this epoch."""
        if not self.path.is_file():
            return None
        shapes = [planes.shape for planes in self.batches.pseudo]
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                targets = tuple(kept[f"axis{number}"] for number in range(len(shapes)))
                same = int(kept["epoch"]) == epoch and all(planes.dtype == np.uint8 for planes in targets)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):  # damaged: they are made again
            return None
        return targets if same and [planes.shape for planes in targets] == shapes else None


def _sure(targets: Sequence[np.ndarray]) -> np.ndarray:
    """Shares of the pixels that are sure neurite and sure boundary."""
    counts = sum(np.array([np.count_nonzero(planes == kind) for kind in (0, 1)]) for planes in targets)
    return counts / sum(planes.size for planes in targets)
