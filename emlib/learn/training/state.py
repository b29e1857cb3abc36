"""Everything that a training needs to go on exactly where it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.training.averaging import MovingAverage
from emlib.learn.training.schedule import Clock
from emlib.learn.training.settings import TrainSettings

_DROPOUT = 7  # sets the numbers drawn here apart from those of the batches, which have the same seed


@dataclass
class TrainState:
    """Where a training stands.

    Attributes
    ----------
    model : nn.Module
    optimizer : torch.optim.Optimizer
    average : MovingAverage or None
    clock : Clock
    steps_per_epoch : int
    epoch : int
        In training, from 0.
    step : int
        The next one in it, from 0.
    loss_sum : () tensor
        Of the steps of this epoch.
    history : list of dict
        One row for each validated epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    clock: Clock
    steps_per_epoch: int
    loss_sum: torch.Tensor
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps taken since the beginning; an epoch that was cut short counts as whole."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def best(self) -> dict[str, Any]:
        """Row of the epoch with the highest mean validation IoU, the first of equal ones; empty at the beginning."""
        return max(self.history, key=lambda row: row["iou"], default={})

    @property
    def weights(self) -> nn.Module:
        """The network to validate and keep: the average if there is one."""
        return self.model if self.average is None else self.average.model

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values; there is no state of a random generator, see `step_seed`."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "average_updates": 0 if self.average is None else self.average.updates,
            "elapsed_s": self.clock.now(),
            "tail_s": self.clock.tail_s,
            "steps_per_epoch": self.steps_per_epoch,
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": float(self.loss_sum),
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a `state_dict`.

        Raises
        ------
        UserError
            If it is of another network, another optimiser or another number of steps.
        """
        if state["steps_per_epoch"] != self.steps_per_epoch:
            raise UserError(
                f"the training to resume had {state['steps_per_epoch']} steps in an epoch, this one "
                f"{self.steps_per_epoch}: give it the same data, patches and --devices, or train anew to another "
                "--out_path"
            )
        try:
            self.model.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.model.load_state_dict(state["average"] or state["weights"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                "the training to resume had another network or optimiser; give the flags it was started with, or train "
                "anew to another --out_path"
            ) from error
        if self.average is not None:
            self.average.updates = state["average_updates"]
        self.clock = Clock(self.clock.budget_s, state["elapsed_s"], state["tail_s"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.loss_sum = torch.full_like(self.loss_sum, state["loss_sum"])
        self.history = [dict(row) for row in state["history"]]


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return Adam (Kingma & Ba 2015), or AdamW (Loshchilov & Hutter 2019) that decays weights of two and more axes."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if settings.optimizer == "adam":
        return torch.optim.Adam(trained, lr=settings.lr, weight_decay=settings.weight_decay)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.lr)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of PyTorch's generator for one step of one process.

    Dropout is then a function of seed, step and process, as batches are, so that a resumed training needs no state of
    a generator and validation cannot change what follows it.

    Examples
    --------
    >>> step_seed(0, 1, 0) == step_seed(0, 1, 0) != step_seed(0, 1, 1)
    True
    """
    return int(np.random.SeedSequence([seed, _DROPOUT, step, rank]).generate_state(1, np.uint64)[0] >> 1)
