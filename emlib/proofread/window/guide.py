"""What to look at next: suspected errors by rank, and sections that are worth correcting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from emlib.errors import UserError

if TYPE_CHECKING:
    from emlib.proofread.window.proofreader import Proofreader, Voxel


class Guide:
    """A list, and how far one has come in it.

    Parameters
    ----------
    table : DataFrame
        Best first.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self.table, self.at = table.reset_index(drop=True), -1

    def step(self, way: int, wanted) -> int:
        """Go to the next row, or the one before, that is wanted, and return its number.

        Raises
        ------
        UserError
            If there is none.
        """
        ahead = range(self.at + 1, len(self.table)) if way > 0 else range(self.at - 1, -1, -1)
        found = next((n for n in ahead if wanted(self.table.iloc[n])), None)
        if found is None:
            raise UserError("that was the last one of the list" if way > 0 else "that was the first one of the list")
        self.at = found
        return found


def next_suspect(proofreader: Proofreader, at: Voxel | None) -> None:
    """Go to the next suspected error."""
    _go(proofreader, 1)


def previous_suspect(proofreader: Proofreader, at: Voxel | None) -> None:
    """Go back to the suspected error before."""
    _go(proofreader, -1)


def _go(proofreader: Proofreader, way: int) -> None:
    guide = proofreader.suspects
    if guide is None:
        guide = proofreader.suspects = Guide(proofreader.session.suspects())
    boxes, standing = proofreader.session.boxes, set(proofreader.session.suspects()["rank"])

    def stands(row: pd.Series) -> bool:  # edits may have settled it
        return row["rank"] in standing and all(not row[name] or row[name] in boxes for name in ("id_a", "id_b"))

    row = guide.table.iloc[guide.step(way, stands)]
    ids = tuple(dict.fromkeys(int(row[name]) for name in ("id_a", "id_b") if row[name]))
    proofreader.choose(ids[0])
    proofreader.show(ids)
    proofreader.layers.look_at(row["z"], row["y"], row["x"])
    names = " and ".join(map(str, ids))
    proofreader.tell(f"{guide.at + 1} of {len(guide.table)}: {row['kind']}, {names}, score {row['score']:.3g}")


def next_section(proofreader: Proofreader, at: Voxel | None) -> None:
    """Go to the next section that is worth correcting and not yet accepted."""
    guide = proofreader.sections
    if guide is None:
        guide = proofreader.sections = Guide(proofreader.session.slices_to_correct())
    accepted = set(proofreader.session.accepted_sections)
    row = guide.table.iloc[guide.step(1, lambda row: row["z"] not in accepted)]
    proofreader.layers.look_at(row["z"])
    proofreader.tell(f"section {row['z']:.0f}, {guide.at + 1} of {len(guide.table)}: {row['reason']}")


def accept_section(proofreader: Proofreader, at: Voxel | None) -> None:
    """Accept the section in view as corrected; an accepted one no longer is."""
    z = proofreader.layers.section
    accepted = z in proofreader.session.accepted_sections
    proofreader.apply("unaccept_section" if accepted else "accept_section", z=z)


def go_to_section(proofreader: Proofreader, z: int) -> None:
    """Look at a section.

    Raises
    ------
    UserError
        If there is none of that number.
    """
    depth = proofreader.session.labels.shape[0]
    if not 0 <= z < depth:
        raise UserError(f"there is no section {z}; they are numbered 0 … {depth - 1}")
    proofreader.layers.look_at(z)
