"""Morphometry: size, shape, place and grey value of every object of a label image or volume."""

from emlib.measure.morphometry.objects import measure_objects

__all__ = ["measure_objects"]
