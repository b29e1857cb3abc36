"""Settings of the stages by name: ``--set segment.multicut.bias=0.8`` and the list of what can be set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from emlib.errors import UserError


def override(settings: Any, assignments: list[str]) -> Any:
    """Return settings with some values replaced, each named by its path.

    Parameters
    ----------
    settings : dataclass, possibly nested
    assignments : list of str
        As in ``segment.multicut.bias=0.8``.

    Raises
    ------
    UserError
        If a name does not exist or a value has the wrong type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write NAME=VALUE, as in --set segment.multicut.bias=0.8")
        settings = _replaced(settings, path.strip().split("."), text.strip(), path.strip())
    return settings


def _replaced(settings: Any, path: list[str], text: str, whole: str) -> Any:
    old = {f.name: getattr(settings, f.name) for f in fields(settings)}
    name = path[0]
    if name not in old:
        raise UserError(f"--set {whole}: there is no {name!r}; choose from {', '.join(old)}")
    if is_dataclass(old[name]):
        if len(path) == 1:
            raise UserError(f"--set {whole}: choose one of its values: {', '.join(f.name for f in fields(old[name]))}")
        return replace(settings, **{name: _replaced(old[name], path[1:], text, whole)})
    if len(path) > 1:
        raise UserError(f"--set {whole}: {name} has no values of its own")
    return replace(settings, **{name: _converted(text, old[name], whole)})


def _converted(text: str, old: Any, whole: str) -> Any:
    """Read a value of the kind of the old one."""
    try:
        if isinstance(old, str):
            return text
        new = json.loads(text)
        if isinstance(old, tuple):
            if not isinstance(new, list) or len(new) != len(old):
                raise ValueError
            return tuple(_converted(json.dumps(item), kind, whole) for item, kind in zip(new, old, strict=True))
        if isinstance(old, bool) or isinstance(new, bool):
            fits = isinstance(old, bool) and isinstance(new, bool)
        else:
            fits = isinstance(new, int) or (isinstance(new, float) and not isinstance(old, int))
        if fits and math.isfinite(new):
            return float(new) if isinstance(old, float) else new
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise UserError(f"--set {whole}={text[:60]}: expected a value like {json.dumps(old)}")


def listing(settings: Any, prefix: str = "") -> Iterator[str]:
    """Yield a line ``name=value`` for each setting, in the form that ``--set`` takes."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            yield from listing(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}={value if isinstance(value, str) else json.dumps(value)}"
