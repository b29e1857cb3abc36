"""How a network is trained, where its files go, and what a training returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPTIMIZERS = ("adamw", "adam")
SCHEDULES = ("cosine", "constant")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "32", "bf16")


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        Passes over the patches; the training may end before, see ``patience`` and ``time_budget_min``.
    optimizer : "adamw" or "adam"
    lr : float
        Highest learning rate.
    weight_decay : float
        With AdamW of the weights of convolutions alone, not of biases and normalisation; with Adam an L2 term.
    warmup : float in [0, 1)
        Share of the training in which the learning rate rises linearly.
    schedule : "cosine" or "constant"
        What it does afterwards; cosine ends at 0.
    ema : float in [0, 1)
        Decay of the moving average of the weights, which is validated and saved; 0 saves the weights themselves.
    clip : float
        Largest norm of the gradient; 0 leaves it as it is.
    patience : int or None
        End after so many epochs without a better mean validation IoU.
    time_budget_min : float or None
        End after so many minutes, the last validation included; the schedule then runs to its end by the clock.
    device : "auto", "cpu", "cuda" or "mps"
    precision : "auto", "32" or "bf16"
        auto is bf16 where the processor computes in it.
    devices : int
        Processes, one for each device, which share out every step.
    workers : int
        Processes that cut patches ahead, for each device; the result is the same with any number.
    channels_last : bool or None
        Order of images and weights in memory; None is True with bf16.
    save_min : float
        The state to resume from is written after each epoch, and in a longer one after so many minutes.
    seed : int
        Of dropout; at least 0.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    epochs: int = 20
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    schedule: str = "cosine"
    ema: float = 0.99
    clip: float = 1.0
    patience: int | None = None
    time_budget_min: float | None = None
    device: str = "auto"
    precision: str = "auto"
    devices: int = 1
    workers: int = 0
    channels_last: bool | None = None
    save_min: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("device", DEVICES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("epochs", "devices", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainPaths:
    """The files of a training.

    Attributes
    ----------
    best : Path
        The best model. All else lies in a folder of the same name without suffix.

    Examples
    --------
    >>> TrainPaths(Path("models/vnc/model.pth")).last.as_posix()
    'models/vnc/model/last.pth'
    """

    best: Path

    @property
    def folder(self) -> Path:
        """Where history, curves and the state to resume from lie."""
        return self.best.with_suffix("") if self.best.suffix else self.best.with_name(f"{self.best.name}-training")

    @property
    def last(self) -> Path:
        """The last model, with all that is needed to train on."""
        return self.folder / "last.pth"


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes
    ----------
    ended : str
        Why: "all epochs", "patience", "time budget" or "interrupted".
    epochs : int
        Epochs with a validation.
    best : dict
        Row of the history of the best epoch; empty if there was none.
    history : list of dict
        One for each epoch: ``epoch, steps, loss, lr, iou, …``.
    place : str
        Where an interrupted training stands, in words.
    main : bool
        False in processes that only help; they have nothing to print.
    """

    ended: str
    epochs: int
    best: dict[str, Any]
    history: list[dict[str, Any]] = field(repr=False)
    place: str = ""
    main: bool = True

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or a signal ended it."""
        return self.ended == "interrupted"
