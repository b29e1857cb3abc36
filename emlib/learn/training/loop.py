"""The training loop of every network.

1. Every step: learning rate by progress, batch, loss, gradient, update, moving average.
2. On the CPU after each step, on an accelerator after ten: is the loss a number, was an end asked for, is time up?
3. After every epoch, in the first process: validate the averaged weights, keep them if better, write the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import nn
from tqdm import tqdm

from emlib.learn.training.averaging import MovingAverage
from emlib.learn.training.device import resolve_precision, start_fabric
from emlib.learn.training.failures import memory_told, not_finite, single_values_told
from emlib.learn.training.interrupts import Interrupts
from emlib.learn.training.journal import Journal, epoch_line, scores_of
from emlib.learn.training.processes import Processes
from emlib.learn.training.schedule import Clock, lr_factor
from emlib.learn.training.settings import TrainPaths, TrainResult, TrainSettings
from emlib.learn.training.state import TrainState, make_optimizer, step_seed

ACCELERATOR_STEPS = 10  # from one look at the loss to the next: each look waits for the device

Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[Path, nn.Module, dict[str, float], "dict[str, Any] | None"], None]
BeforeEpoch = Callable[[int, nn.Module], None]


class Batches(Protocol):
    """What the loop asks of its data, as `emlib.learn.datasets.patches.PatchBatches`."""

    steps_per_epoch: int

    def loader(
        self, epoch: int, first_step: int = 0, workers: int = 0, device: Any = None
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (input, target) of the steps of an epoch from ``first_step`` on, the same at every call."""


def train(
    model: nn.Module,
    batches: Batches,
    validate: Validate,
    loss: nn.Module,
    settings: TrainSettings,
    *,
    paths: TrainPaths,
    save: Save,
    fabric: Fabric | None = None,
    resume: dict[str, Any] | None = None,
    before_epoch: BeforeEpoch | None = None,
    note: Callable[[str], None] = print,
    progress: bool = True,
) -> TrainResult:
    """Train a network.

    Parameters
    ----------
    model : nn.Module
        Trained in place; the best weights are in ``paths.best`` alone.
    batches : Batches
        With several processes those of this one.
    validate : callable
        Takes the network in evaluation mode, returns scores: at least ``iou``, by which the best epoch is chosen.
    loss : nn.Module
        (output, target) -> scalar.
    settings : TrainSettings
    paths : TrainPaths
    save : callable
        Takes path, network, scores and what else is to be stored, a dict of tensors and plain values or None; writes
        the file whole or not at all.
    fabric : Fabric, optional
        From `emlib.learn.training.device.start_fabric`, when the batches had to know of the processes.
    resume : dict, optional
        What ``save`` was given to store in ``paths.last``.
    before_epoch : callable, optional
        Called in each process before the first step of an epoch, or of the rest of one that is resumed, with its
        number, from 0, and the averaged network in evaluation mode: it may change what ``batches`` gives.
    note : callable
        Takes lines for the user.
    progress : bool
        Show a bar where there is a terminal.

    Returns
    -------
    TrainResult

    Raises
    ------
    UserError
        If the loss is not finite, a batch is too small to normalise, memory or disk run out, or ``resume`` belongs to
        another training.

    Notes
    -----
    PyTorch's global generator is seeded in every step. Equal calls give equal weights on a CPU with equal threads,
    interrupted and resumed or not; with a time budget they do not, as the clock sets the learning rate.
    """
    fabric = fabric or start_fabric(settings, note)
    main = fabric.global_rank == 0
    with Interrupts(quiet=not main) as interrupts, memory_told("training"), single_values_told():
        run = _Training(model, batches, validate, loss, settings, paths, save, fabric, interrupts)
        if resume is not None:
            run.state.load_state_dict(resume)
        run.note, run.progress = (note, progress) if main else (lambda line: None, False)
        run.before_epoch = before_epoch
        return run.all_epochs()


class _Training:
    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        validate: Validate,
        loss: nn.Module,
        settings: TrainSettings,
        paths: TrainPaths,
        save: Save,
        fabric: Fabric,
        interrupts: Interrupts,
    ) -> None:
        self.batches, self.validate, self.settings = batches, validate, settings
        self.paths, self.save, self.interrupts = paths, save, interrupts
        self.fabric, self.processes = fabric, Processes(fabric)
        chosen = settings.channels_last
        bf16 = resolve_precision(settings.precision, fabric.device.type, lambda line: None) == "bf16"
        self.channels_last = bf16 if chosen is None else chosen
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(model, settings)
        self.module, _ = fabric.setup(model, optimizer)
        self.loss = loss.to(fabric.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.state = TrainState(
            model,
            optimizer,
            MovingAverage(model, settings.ema) if settings.ema else None,
            Clock(None if settings.time_budget_min is None else settings.time_budget_min * 60),
            batches.steps_per_epoch,
            torch.zeros((), device=fabric.device),
        )
        self.bad = torch.full((), -1, device=fabric.device)  # the first step whose loss is no number
        self.every = 1 if fabric.device.type == "cpu" else ACCELERATOR_STEPS
        self.patches, self.saved = 0, time.monotonic()

    def all_epochs(self) -> TrainResult:
        """Train until something ends it."""
        state, settings = self.state, self.settings
        ended = self._ended_before()
        self.journal = Journal(self.paths, len(state.history)) if self.processes.main else None
        if not ended and state.clock.budget_s and not state.clock.tail_s:
            state.clock.tail_s = self.processes.on_main(self._time_validation)
        while not ended:
            began, self.patches = time.monotonic(), 0
            why = self._epoch()
            if why == "interrupted":
                self.processes.on_main(self._save_last)
                ended = why
                break
            trained = time.monotonic()
            state.history.append(self.processes.on_main(partial(self._validated, began, trained)))
            state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, torch.zeros_like(state.loss_sum)
            state.clock.tail_s = self.processes.on_main(partial(self._keep, trained))
            (state.clock.elapsed_s,) = self.processes.largest([state.clock.now()])
            ended = why or self._ended_before()
        if self.processes.main:
            self.journal.write(state.history, last=True)
            self.journal.close()
        self.fabric.barrier()
        place = f"epoch {state.epoch + 1} of {settings.epochs}, step {state.step} of {state.steps_per_epoch}"
        return TrainResult(ended, len(state.history), state.best, state.history, place, self.processes.main)

    def _ended_before(self) -> str:
        """Why there is nothing (more) to train between two epochs; empty if there is."""
        state, patience = self.state, self.settings.patience
        if state.epoch >= self.settings.epochs:
            return "all epochs"
        if patience and state.history and state.epoch - state.best["epoch"] >= patience:
            return "patience"
        return "time budget" if state.clock.share >= 1 else ""

    def _epoch(self) -> str:
        """Train to the end of the epoch, or until something ends it; why."""
        state = self.state
        if self.before_epoch is not None:
            self.before_epoch(state.epoch, state.weights.eval())
        self.module.train()
        loader = self.batches.loader(state.epoch, state.step, self.settings.workers, self.fabric.device)
        title = f"epoch {state.epoch + 1}/{self.settings.epochs}"
        shown = {"disable": None if self.progress else True, "leave": False, "unit": "step", "initial": state.step}
        with tqdm(total=state.steps_per_epoch, desc=title, **shown) as bar:
            try:
                for inputs, targets in loader:
                    self._step(inputs, targets)
                    bar.update()
                    if state.step % self.every == 0 or state.step == state.steps_per_epoch:
                        if why := self._look():
                            return why
                        bar.set_postfix_str(f"loss {float(state.loss_sum) / state.step:.3f}", refresh=False)
            except RuntimeError:
                # The signal may have ended the workers as well; processes that wait for this one are lost then.
                if self.interrupts.requested and self.settings.workers and self.processes.count == 1:
                    return "interrupted"
                raise
        return ""

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        state, settings = self.state, self.settings
        share = state.clock.progress(state.steps, settings.epochs * state.steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = settings.lr * lr_factor(share, settings.warmup, settings.schedule)
        torch.manual_seed(step_seed(settings.seed, state.steps, self.fabric.global_rank))
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        value = self.loss(self.module(inputs), targets)
        state.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(value)
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.clip or float("inf"))
        state.optimizer.step()
        if state.average is not None:
            state.average.update()
        value = value.detach()
        state.loss_sum = state.loss_sum + value
        broken = ~(torch.isfinite(value) & torch.isfinite(norm))
        self.bad = torch.where((self.bad < 0) & broken, state.step, self.bad)
        self.patches += len(inputs)
        state.step += 1

    def _look(self) -> str:
        """Agree with the other processes on what to do next; why to end the epoch, or nothing."""
        state = self.state
        bad = int(self.bad)
        late = time.monotonic() - self.saved > 60 * self.settings.save_min
        rank = self.fabric.global_rank
        told = [rank + 1 if bad >= 0 else 0, self.interrupts.requested, late, state.clock.now()]
        broken, stop, late, state.clock.elapsed_s = self.processes.largest(told)
        state.loss_sum = self.processes.mean(state.loss_sum)  # so that each has, and saves, that of all patches
        if broken:
            said = not_finite(self.batches, state.epoch, bad) if bad >= 0 else ""
            raise self.processes.fail(said, int(broken) - 1)
        if stop:
            return "interrupted"
        if late and state.step < state.steps_per_epoch:
            self.processes.on_main(self._save_last)
        return "time budget" if state.clock.share >= 1 else ""

    def _time_validation(self) -> float:
        """How long the end of an epoch may take, before there was one: a validation, and some to write and draw."""
        began = time.monotonic()
        self.validate(self.state.weights.eval())
        return 1.2 * (time.monotonic() - began) + 1.0

    def _validated(self, began: float, trained: float) -> dict[str, Any]:
        """Validate; the row of the history."""
        state = self.state
        scores = {name: float(score) for name, score in self.validate(state.weights.eval()).items()}
        return {
            "epoch": state.epoch + 1,
            "steps": state.step,
            "loss": float(state.loss_sum) / max(state.step, 1),
            "lr": state.optimizer.param_groups[0]["lr"],
            **scores,
            "patches_per_s": self.patches * self.processes.count / max(trained - began, 1e-9),
            "seconds": time.monotonic() - began,
        }

    def _keep(self, trained: float) -> float:
        """Save the model if it is the best, the state, the history; how long the longest end of an epoch took."""
        state = self.state
        row, better = state.history[-1], state.best is state.history[-1]
        if better:
            self.save(self.paths.best, state.weights, scores_of(row), None)
        self._save_last()
        self.journal.write(state.history)
        self.note(epoch_line(row, self.settings.epochs, better))
        return max(state.clock.tail_s, time.monotonic() - trained)

    def _save_last(self) -> None:
        scores = scores_of(self.state.history[-1]) if self.state.history else {}
        self.save(self.paths.last, self.state.weights, scores, self.state.state_dict())
        self.saved = time.monotonic()
