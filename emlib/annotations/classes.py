"""The classes of an index mask: ids, names and colours, kept in ``classes.yaml`` beside the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.runs.artefacts import write_text
from emlib.volumes.reading import reading

CLASSES_FILE = "classes.yaml"
BACKGROUND = "background"
MAX_ID = 65535  # index masks are uint8 or uint16

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskClass:
    """A class of an index mask.

    Attributes
    ----------
    id : int
        The pixel value, 0 to 65535.
    name : str
    colour : (red, green, blue), 0 to 255 each
    """

    id: int
    name: str
    colour: Colour


@dataclass(frozen=True)
class Classes:
    """The classes of a data set in rising order of their ids, background (id 0) first.

    Attributes
    ----------
    classes : tuple of MaskClass
    ignore : int, optional
        The pixel value that says that nobody annotated here; no class has it.
    """

    classes: tuple[MaskClass, ...]
    ignore: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order of the ids: the channels of a softmax network."""
        return tuple(one.name for one in self.classes)

    @property
    def ids(self) -> tuple[int, ...]:
        """The pixel values in rising order."""
        return tuple(one.id for one in self.classes)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a mask that holds all ids: uint8, or uint16 where it must be."""
        highest = max([*self.ids, self.ignore or 0])
        return np.dtype(np.uint8 if highest < 256 else np.uint16)

    def id_of(self, name: str) -> int:
        """Return the id of a name; KeyError if no class has it."""
        return {one.name: one.id for one in self.classes}[name]


def make_classes(names: Sequence[str], ignore: int | None = None) -> Classes:
    """Number and colour classes: background 0 in black, then the names from 1 on in the palette of the figures.

    Parameters
    ----------
    names : sequence of str
        A leading ``background`` may be there or not.
    ignore : int, optional

    Raises
    ------
    UserError
        If a name is given twice or is empty, or ``ignore`` is the id of a class.

    Examples
    --------
    >>> [(one.id, one.name, one.colour) for one in make_classes(["membrane", "nucleus"]).classes]
    [(0, 'background', (0, 0, 0)), (1, 'membrane', (236, 181, 58)), (2, 'nucleus', (124, 197, 238))]
    """
    rest = names[1:] if names and names[0] == BACKGROUND else names
    found = tuple(MaskClass(i, name, default_colour(i)) for i, name in enumerate([BACKGROUND, *rest]))
    return checked(Classes(found, ignore), "the class names")


def read_classes(path: str | Path) -> Classes:
    """Read ``classes.yaml``: ``classes: [{id: 0, name: background, colour: "#000000"}, …]``, ``ignore: 255``.

    A class without ``colour`` gets the one that `make_classes` would give it.

    Raises
    ------
    UserError
        If the file is missing or no YAML of this form, an id or a name occurs twice, no class has id 0, or ``ignore``
        is the id of a class.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}; it lists the classes: {{id: 0, name: background, colour: '#000000'}} …")
    content = read_yaml(path)
    listed = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path} holds no list called classes; begin with: classes: [{{id: 0, name: background}}]")
    if unknown := set(content) - {"classes", "ignore"}:
        raise UserError(f"{path} has {min(map(str, unknown))}, which means nothing there; it holds classes and ignore")
    found = sorted((_read_class(one, path) for one in listed), key=lambda one: one.id)
    ignore = content.get("ignore")
    if ignore is not None and not _is_id(ignore):
        raise UserError(f"{path}: ignore must be a whole number from 0 to {MAX_ID}, not {ignore!r}")
    return checked(Classes(tuple(found), ignore), str(path))


def write_classes(path: str | Path, classes: Classes) -> None:
    """Write ``classes.yaml``, whole or not at all; `read_classes` gives the same back."""
    import yaml

    lines = [
        f"  - {{id: {one.id}, name: {yaml.dump(one.name, allow_unicode=True, width=10**6).splitlines()[0]}, "
        f'colour: "{hex_colour(one.colour)}"}}'
        for one in classes.classes
    ]
    ignore = [] if classes.ignore is None else [f"ignore: {classes.ignore}"]
    write_text(Path(path), "\n".join(["classes:", *lines, *ignore]) + "\n")


def checked(classes: Classes, where: str) -> Classes:
    """Return the classes if they make sense together.

    Raises
    ------
    UserError
        See `read_classes`.
    """
    for what, values in (("id", classes.ids), ("name", classes.names)):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise UserError(f"{where}: the {what} {twice[0]!r} is given to several classes; each needs its own")
    if not all(name.strip() for name in classes.names):
        raise UserError(f"{where}: a class has an empty name; give it one")
    if 0 not in classes.ids:
        raise UserError(f"{where}: no class has id 0; add {{id: 0, name: background}}")
    if classes.ignore in classes.ids:
        raise UserError(f"{where}: ignore is {classes.ignore}, which is a class too; choose a number that is none")
    return classes


def hex_colour(colour: Colour) -> str:
    """Return a colour as ``#RRGGBB``.

    Examples
    --------
    >>> hex_colour((230, 159, 0))
    '#E69F00'
    """
    return "#{:02X}{:02X}{:02X}".format(*colour)


def parse_colour(text: Any, where: str) -> Colour:
    """Return a colour that is written as ``#RRGGBB`` or as a list of three numbers from 0 to 255.

    Raises
    ------
    UserError
        If it is written otherwise.

    Examples
    --------
    >>> parse_colour("#e69f00", "here"), parse_colour([0, 10, 255], "here")
    ((230, 159, 0), (0, 10, 255))
    """
    if isinstance(text, str) and len(text) == 7 and text[0] == "#":
        try:
            return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
        except ValueError:
            pass
    if isinstance(text, list) and len(text) == 3 and all(_is_id(value) and value < 256 for value in text):
        return tuple(text)
    raise UserError(f'{where}: {text!r} is no colour; write it as "#E69F00", in quotes')


def read_yaml(path: Path) -> Any:
    """Read a small YAML file.

    Raises
    ------
    UserError
        If it cannot be read, is no YAML, or is so long, nested or self-referring that reading it would never end.
    """
    import yaml

    with reading(path):
        text = path.read_text(encoding="utf-8-sig")
        if len(text) > 2**20 or text.count("[") > 10_000:  # PyYAML takes minutes for what nests deeply
            raise UserError(f"{path} is too long for a list of names")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # a few of them make gigabytes
            raise UserError(f"{path} refers to another part of itself with *; write the value out")
        return yaml.safe_load(text)


def _read_class(one: Any, path: Path) -> MaskClass:
    """A class from its entry in the file."""
    if not isinstance(one, dict) or not {"id", "name"} <= set(one) <= {"id", "name", "colour", "color"}:
        raise UserError(f'{path}: {str(one)[:80]} is no class; write {{id: 1, name: membrane, colour: "#E69F00"}}')
    if not _is_id(one["id"]):
        raise UserError(f"{path}: the id {one['id']!r} is no whole number from 0 to {MAX_ID}")
    name = str(one["name"])
    colour = one.get("colour", one.get("color"))
    if colour is None:
        return MaskClass(one["id"], name, default_colour(one["id"]))
    return MaskClass(one["id"], name, parse_colour(colour, f"{path}, class {name}"))


def default_colour(number: int) -> Colour:
    """Return black for 0, and from 1 on the palette of the figures, which comes round again after 63 ids."""
    from emlib.publish.style import PALETTE  # draws in Matplotlib, which reading classes does not need

    return (0, 0, 0) if number == 0 else tuple(int(value) for value in PALETTE[(number - 1) % len(PALETTE)].round())


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID
