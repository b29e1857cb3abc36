"""How the report writes values: few digits, grouped thousands, ids and coordinates as they are."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def format_value(value: Any, column: str = "") -> str:
    """Write a value for a reader: four significant digits, thin spaces between thousands, ids as they are.

    Parameters
    ----------
    value : any
    column : str
        Name of the value; ids and coordinates are not grouped.

    Examples
    --------
    >>> format_value(0.123456), format_value(41250.7), format_value(7, "pre_id"), format_value(float("nan"))
    ('0.1235', '41\u202f251', '7', '–')
    """
    if value is None or value is Ellipsis:
        return "–"
    if type(value).__name__ in ("bool", "bool_"):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(int(value)) if is_id(column) else f"{int(value):,}".replace(",", "\u202f")
    if isinstance(value, Real):
        return _format_real(float(value), column)
    if isinstance(value, tuple | list):
        return ", ".join(format_value(item, column) for item in value)
    return "–" if str(value) in ("<NA>", "NaT") else str(value)


def _format_real(value: float, column: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if is_id(column):
        return f"{value:.0f}" if value.is_integer() else f"{value:.1f}"
    if (value.is_integer() and abs(value) < 1e15) or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.4g}"


def is_id(column: str) -> bool:
    """Return whether a column holds ids or coordinates: whole numbers that are names, not amounts.

    Examples
    --------
    >>> is_id("pre_id"), is_id("post_y"), is_id("score")
    (True, True, False)
    """
    name = column.lower()
    return name.split("_")[-1] in ("id", "z", "y", "x") or name in ("source", "target", "node", "seed", "neurite")


def is_number(value: Any) -> bool:
    """Return whether a cell is aligned to the right."""
    return value is None or (isinstance(value, Real) and type(value).__name__ not in ("bool", "bool_"))


def format_bytes(size: int | None) -> str:
    """Write a file size.

    Examples
    --------
    >>> format_bytes(512), format_bytes(4_400_000)
    ('512 B', '4.2 MiB')
    """
    if size is None:
        return "–"
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
