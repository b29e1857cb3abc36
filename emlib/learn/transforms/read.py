"""Augmentation by name, or from a file."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from emlib.annotations.classes import read_yaml
from emlib.errors import UserError, nearest
from emlib.learn.transforms.settings import PRESETS, AugmentSettings


def read_augment(name: str) -> AugmentSettings | None:
    """Return the augmentation of a name, or of a YAML file of settings.

    Parameters
    ----------
    name : str
        In `emlib.learn.transforms.PRESETS`, or the path of a file that ends in .yaml or .yml: its keys are attributes
        of `AugmentSettings`, and ``base`` names the preset that gives all others, ``none`` where it is absent.

    Returns
    -------
    AugmentSettings, or None for ``none``

    Raises
    ------
    UserError
        If there is no such name or file, or a key or a value of it cannot be; the file and the key are named.

    Examples
    --------
    >>> read_augment("light").flip, read_augment("none")
    (0.5, None)

    A file that adds blur to the light one::

        base: light
        blur: 0.3
        blur_range: [0.5, 2.0]
    """
    if name in PRESETS:
        return None if name == "none" else PRESETS[name]
    path = Path(name).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"there is no augmentation {name[:80]!r}; {nearest(name, [*PRESETS])} (or name a .yaml file)")
    if not path.is_file():
        raise UserError(f"there is no augmentation file {path}; name a YAML file, or {', '.join(PRESETS)}")
    return _from_content(read_yaml(path), path)


def _from_content(content: Any, path: Path) -> AugmentSettings:
    """Settings from what a file holds."""
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form 'flip: 0.5'")
    content = {str(key): value for key, value in content.items()}
    base = content.pop("base", "none")
    if str(base) not in PRESETS:
        raise UserError(f"{path}: base: there is no augmentation {base!r}; {nearest(str(base), [*PRESETS])}")
    values = asdict(PRESETS[str(base)])
    defaults = {field.name: field.default for field in fields(AugmentSettings)}
    for key, value in content.items():
        if key not in defaults:
            raise UserError(f"{path}: there is no key {key[:60]!r}; {nearest(key, ['base', *defaults])}")
        values[key] = _checked(value, defaults[key], f"{path}: {key}")
    try:
        return AugmentSettings(**values)
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('augmentation: ')}") from error


def _checked(value: Any, default: Any, where: str) -> Any:
    """A value of the type of the default; ``where`` names file and key."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{where} is true or false, not {_short(value)}")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or len(value) != len(default):
            raise UserError(
                f"{where} is {len(default)} numbers in brackets such as {list(default)}, not {_short(value)}"
            )
        return tuple(_checked(one, one_default, where) for one, one_default in zip(value, default, strict=True))
    if isinstance(default, str):
        return str(value)
    if isinstance(default, int):
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(f"{where} is a whole number, not {_short(value)}")
        return value
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # also of text: YAML takes 1e-3 for it
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} is a number, not {_short(value)}") from error


def _short(value: Any) -> str:
    return repr(value)[:60]
