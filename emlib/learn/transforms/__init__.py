"""Augmentation of EM patches: how sections differ in nature and in the microscope, drawn at random."""

from emlib.learn.transforms.augment import augment, margin
from emlib.learn.transforms.grey_range import find_grey_range
from emlib.learn.transforms.read import read_augment
from emlib.learn.transforms.settings import PRESETS, AugmentSettings

__all__ = ["PRESETS", "AugmentSettings", "augment", "find_grey_range", "margin", "read_augment"]
