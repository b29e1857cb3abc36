"""What can be watched while a network trains: history.csv, curves, TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import time
from typing import Any

import pandas as pd

from emlib.learn.training.settings import TrainPaths
from emlib.publish.figure_training import figure_training
from emlib.publish.page import save_figure
from emlib.volumes.atomic import atomic_path

DRAWING_SHARE = 20  # curves are drawn again after so many times the seconds it took last time
SHOWN, WORST = 6, 3  # organelles in the line of an epoch; of more than these so many


class Journal:
    """Writes the history of a training after each epoch.

    Parameters
    ----------
    paths : TrainPaths
    epochs : int
        Already in the history.
    """

    def __init__(self, paths: TrainPaths, epochs: int = 0) -> None:
        self.paths = paths
        self.title = f"{paths.best.absolute().parent.name}/{paths.best.stem}"
        self._drawn = self._cost = 0.0
        self._board = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(paths.folder / "tensorboard"), purge_step=epochs + 1)

    def write(self, history: list[dict[str, Any]], last: bool = False) -> None:
        """Write ``history.csv``, and curves unless they were drawn a moment ago; always with ``last``.

        Parameters
        ----------
        history : list of dict
            All epochs; the last row is new unless ``last``.
        last : bool
            The training ends here.

        Raises
        ------
        UserError
            If the disk is full.
        """
        if not history:
            return
        table = pd.DataFrame(history)
        with atomic_path(self.paths.folder / "history.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        if self._board and not last:
            row = history[-1]
            for name, value in row.items():
                if name != "epoch":
                    self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()
        started = time.monotonic()
        if last or started - self._drawn > DRAWING_SHARE * self._cost:
            save_figure(figure_training(table, self.title), self.paths.folder, "curves")
            self._drawn = time.monotonic()
            self._cost = self._drawn - started

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board:
            self._board.close()


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """What of a row of the history is the same in equal runs, for a checkpoint."""
    return {name: value for name, value in row.items() if name not in ("patches_per_s", "seconds")}


def epoch_line(row: dict[str, Any], epochs: int, better: bool) -> str:
    """One epoch in one line; of many organelles the worst alone.

    Examples
    --------
    >>> row = {"epoch": 3, "loss": 0.51234, "iou": 0.7, "iou/a": 0.6, "iou/b": 0.8}
    >>> row |= {"patches_per_s": 15.51, "seconds": 44}
    >>> epoch_line(row, 20, better=True)
    'epoch  3/20  loss 0.512  IoU 0.700 (a 0.600, b 0.800)  15.5 patches/s  44.0 s  best'
    """
    each = [(name[4:], value) for name, value in row.items() if name.startswith("iou/")]
    worst = ""
    if len(each) > SHOWN:
        measured = [pair for pair in each if not math.isnan(pair[1])]
        each, worst = sorted(measured, key=lambda pair: pair[1])[:WORST], "lowest: "
    told = worst + ", ".join(f"{name} {value:.3f}" for name, value in each)
    width = len(str(epochs))
    return (
        f"epoch {row['epoch']:{width}}/{epochs}  loss {row['loss']:.3f}  IoU {row['iou']:.3f} ({told})  "
        f"{row['patches_per_s']:.1f} patches/s  {row['seconds']:.1f} s{'  best' if better else ''}"
    )
