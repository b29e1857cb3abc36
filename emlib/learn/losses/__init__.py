"""Losses for organelles that may overlap (sigmoid) and classes that exclude each other (softmax), and their sums."""

from emlib.learn.losses.comparison import ACTIVATIONS, Comparison
from emlib.learn.losses.parse import LOSSES, LossSum, parse_loss

__all__ = ["ACTIVATIONS", "LOSSES", "Comparison", "LossSum", "parse_loss"]
