"""Which label becomes which class: ``--labels map.yaml``, or each label a class of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from emlib.annotations.classes import BACKGROUND, Classes, MaskClass, checked, default_colour, make_classes, read_yaml
from emlib.errors import UserError, nearest

FIELDS = ("labels", "priority")


@dataclass(frozen=True)
class LabelMap:
    """The names that labels get.

    Attributes
    ----------
    names : dict of str to str or None
        Class of each label; None drops its shapes.
    priority : tuple of str
        Classes that win over all that come later in this list, and over those not in it.
    where : str
        The file, for messages; empty for a map that leaves all names as they are.
    """

    names: dict[str, str | None] = field(default_factory=dict)
    priority: tuple[str, ...] = ()
    where: str = ""

    def class_of(self, label: str) -> str | None:
        """Return the class of a label; None where its shapes are dropped.

        Raises
        ------
        UserError
            If the map lacks the label; names the nearest that it has.
        """
        if not self.where:
            return label
        if label not in self.names:
            raise UserError(
                f"{self.where} does not map the label {label!r}; {nearest(label, list(self.names))}; "
                f"add a line '{label}: CLASS', or '{label}: null' to drop its shapes"
            )
        return self.names[label]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the map names, in its order, each once."""
        return tuple(dict.fromkeys(name for name in self.names.values() if name is not None and name != BACKGROUND))


def read_label_map(path: str | Path) -> LabelMap:
    """Read ``map.yaml``: ``label: class`` on each line, ``null`` to drop; or that under ``labels``, with ``priority``.

    Shapes mapped to ``background`` are drawn as background, over what they cover.

    Raises
    ------
    UserError
        If the file cannot be read or has another form, or ``priority`` names a class that no label becomes.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: --labels {path}; it holds lines 'label: class'")
    content = read_yaml(path)
    nested = isinstance(content, dict) and isinstance(content.get("labels"), dict)
    table = content["labels"] if nested else content
    if not isinstance(table, dict) or any(isinstance(value, (dict, list)) for value in table.values()):
        raise UserError(f"--labels {path} must hold lines 'label: class', alone or under 'labels:'")
    if nested and (unknown := set(map(str, content)) - set(FIELDS)):
        raise UserError(f"--labels {path}: unknown key {min(unknown)!r}; {nearest(min(unknown), FIELDS)}")
    names = {str(label): None if name is None else str(name) for label, name in table.items()}
    priority = content.get("priority") or [] if nested else []
    if not isinstance(priority, list):
        raise UserError(f"--labels {path}: priority must be a list of classes, the strongest first")
    there = [name for name in dict.fromkeys(names.values()) if name]
    for name in map(str, priority):
        if name not in there:
            raise UserError(f"--labels {path}: priority names {name!r}, which no label becomes; {nearest(name, there)}")
    return LabelMap(names, tuple(map(str, priority)), f"--labels {path}")


def plan_classes(
    label_map: LabelMap,
    labels: Iterable[str],
    given: Classes | None,
    *,
    strict: bool = False,
    ignore: int | None = None,
) -> Classes:
    """Return the classes of the output.

    Parameters
    ----------
    label_map : LabelMap
    labels : iterable of str
        All that occur in the input.
    given : Classes, optional
        ``--classes``, or those of the input: names, ids and colours as they are.
    strict : bool
        ``given`` was asked for, and must have every class; else classes that the map renames are numbered anew.
    ignore : int, optional
        The pixel value that the new classes get for pixels that nobody annotated; None where there are none.

    Raises
    ------
    UserError
        If the map lacks a label, or a class is not among ``given``.
    """
    wanted = {label: label_map.class_of(label) for label in sorted(labels)}
    used = {name for name in wanted.values() if name is not None and name != BACKGROUND}
    if given is not None and used <= set(given.names):
        return given
    if given is not None and (strict or not label_map.where):
        name = min(used - set(given.names))
        raise UserError(f"no class is called {name!r}; {nearest(name, given.names)}; add it to classes.yaml or map it")
    order = [*label_map.classes, *sorted(used - set(label_map.classes))]
    if given is None:
        return make_classes(order, ignore)
    known = {one.name: one.colour for one in given.classes}  # renamed: numbered anew, colours kept where names are
    listed = [MaskClass(i, name, known.get(name, default_colour(i))) for i, name in enumerate([BACKGROUND, *order])]
    return checked(Classes(tuple(listed), ignore if given.ignore is None else given.ignore), label_map.where)
