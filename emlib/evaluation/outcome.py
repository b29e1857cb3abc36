"""What an evaluation leaves behind: a JSON with inputs, settings and versions, tables, and lines for the shell."""

from __future__ import annotations

from typing import Any

import pandas as pd

from emlib.runs.artefacts import Outputs
from emlib.runs.runlog import versions
from emlib.volumes.volume import ZYX, VolumeSource


def save_scores(
    outputs: Outputs, name: str, scores: dict[str, Any], inputs: dict[str, Any], settings: dict[str, Any], what: str
) -> None:
    """Write ``tables/evaluate_<name>.json``: the scores at the top level, then inputs, settings and versions.

    Parameters
    ----------
    outputs : Outputs
    name : str
        ``segmentation``, ``masks``, ``synapses`` or ``graph``.
    scores : dict
    inputs : dict
        What was compared; see `describe`.
    settings : dict
        Everything that decides the figures.
    what : str
        One line for the record.
    """
    content = {**scores, "inputs": inputs, "settings": settings, "versions": versions()}
    outputs.json(f"evaluate_{name}", content, what)


def describe(source: VolumeSource) -> dict[str, Any]:
    """What a label volume is, for the record."""
    return {"uri": source.uri, "shape": list(source.shape), "dtype": str(source.dtype)}


def table_lines(table: pd.DataFrame, digits: int = 3) -> list[str]:
    """Set a table for the shell: numbers with a fixed count of decimals, whole ones without, NaN as a dash."""
    text = table.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.{digits}f}")
    return text.splitlines()


def settings_of(voxel_size_nm: ZYX | None, **others: Any) -> dict[str, Any]:
    """Settings for the record, the voxel size first."""
    return {"voxel_size_nm": voxel_size_nm, **others}
