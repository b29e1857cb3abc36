"""Settings of the self-training, and those of them that a preset names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from emlib.errors import UserError
from emlib.stages.agglomerate import MulticutSettings
from emlib.stages.segment import SegmentSettings

NETWORK = "experts-laptop"  # of `emlib.learn.models.build`; nothing runs at full resolution


@dataclass(frozen=True)
class SelftrainSettings:
    """Settings of all steps; chosen on fib25-medulla z 0-119 and on phantom seeds that no table shows.

    Attributes
    ----------
    widths, expert_widths : tuple of int
        Channels of the network's levels, see `emlib.learn.models.experts.LaptopExperts`.
    sections : int
        Odd: the section and so many neighbours on either side are what the network sees. ``predict.py`` takes one.
    epochs, steps : int
        An epoch has so many steps.
    patch_px, batch_size : int
        Side of a patch, patches of a step.
    lr, weight_decay, ema, clip
        As `emlib.learn.training.settings.TrainSettings`; ``ema`` is the memory of the teacher.
    patience : int
        End after so many epochs without better agreement on what is held out; 0 trains all epochs.
    augment : str
        For `emlib.learn.transforms.read_augment`.
    corrected_share : float
        Of the patches that lie on corrected sections; the others lie anywhere.
    corrected_weight : float
        What a corrected pixel weighs in the loss, where one of a pseudo-label weighs 1.
    held_out : float
        Share of each corrected section, a strip of it, that is not learnt from but agreed with.
    band_px : int
        Width of the background along the border of two labels, as in `emlib.refine.examples`.
    certain : float in [0.5, 1)
        A pixel has a pseudo-label where the boundary probability is at least this and the segmentation has a border
        there, or where it is at most ``1 - certain`` and there is none.
    renew_every : int
        The teacher makes new pseudo-labels after so many epochs; 0 keeps the first.
    segment : SegmentSettings
        Of the segmentation, the teacher's and the last.
    """

    widths: tuple[int, ...] = (24, 48, 96, 160)
    expert_widths: tuple[int, ...] = (16, 24, 32, 48)
    sections: int = 1
    epochs: int = 24
    steps: int = 50
    patch_px: int = 128
    batch_size: int = 8
    lr: float = 3e-3
    weight_decay: float = 1e-2
    ema: float = 0.99
    clip: float = 5.0
    patience: int = 8
    augment: str = "strong"
    corrected_share: float = 0.5
    corrected_weight: float = 5.0
    held_out: float = 0.2
    band_px: int = 2
    certain: float = 0.6
    renew_every: int = 8
    segment: SegmentSettings = field(default_factory=lambda: SegmentSettings(multicut=MulticutSettings(bias=1.5)))


PRESETS = {
    "medium": SelftrainSettings(),
    "safe8gb": replace(SelftrainSettings(), epochs=12, steps=40, renew_every=4, patience=5),
}


def check_settings(settings: SelftrainSettings) -> None:
    """Refuse settings that nothing can be learnt with.

    Raises
    ------
    UserError
        Naming the first of them.

    Examples
    --------
    >>> check_settings(SelftrainSettings(epochs=0))
    Traceback (most recent call last):
    ...
    emlib.errors.UserError: --set epochs=0: must be at least 1
    """
    lowest = {"epochs": 1, "steps": 1, "patch_px": 32, "batch_size": 1, "patience": 0, "band_px": 1, "renew_every": 0}
    for name, low in lowest.items():
        if (value := getattr(settings, name)) < low:
            raise UserError(f"--set {name}={value}: must be at least {low}")
    if len(settings.widths) != len(settings.expert_widths) or min(*settings.widths, *settings.expert_widths) < 1:
        raise UserError("--set widths and expert_widths: give as many numbers above 0 for the one as for the other")
    ranges = {"held_out": (0.0, 0.5), "certain": (0.5, 1.0), "corrected_share": (0.0, 1.0), "ema": (0.0, 1.0)}
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value < high or (name == "held_out" and not value):
            raise UserError(f"--set {name}={value:g}: must lie between {low:g} and {high:g}")
    for name in ("lr", "corrected_weight"):
        if (value := getattr(settings, name)) <= 0:
            raise UserError(f"--set {name}={value:g}: must be above 0")
    if settings.sections < 1 or settings.sections % 2 == 0:
        raise UserError(f"--set sections={settings.sections}: must be an odd number, the section in the middle")
    if settings.segment.segmenter == "watershed":
        raise UserError("--set segment.segmenter=watershed: that segmenter uses no boundary probability; take another")
