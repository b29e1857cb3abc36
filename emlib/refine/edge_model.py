"""A trained model of contacts: what it says of a volume, and its file, which holds numbers and no code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.refine.edge_boosting import calibrated
from emlib.refine.edge_contacts import CONTACT_NAMES, contact_features
from emlib.refine.forest import Forest
from emlib.refine.model_file import read_model, write_model
from emlib.runs.artefacts import plain
from emlib.stages.boundaries import near_isotropic
from emlib.stages.learned_edges import Cut, EdgeTuning
from emlib.stages.watershed import FragmentSettings
from emlib.volumes.volume import ZYX

KIND = "contacts"
TUNED = ("multicut", "gasp")
OTHER_SIZE = 1.5  # voxels that differ by more than this factor are worth a warning
INTENSITY = "intensity"
REMEDY = "train one with train_refine_rf.py --edges --volume EM --labels LABELS"


@dataclass(frozen=True)
class ContactModel:
    """How likely two fragments belong together, and how each segmenter uses it.

    Attributes
    ----------
    forest : Forest
        Probability of "the same neurite", not calibrated.
    slope, intercept : float
        Calibrated log-odds = slope · log-odds of the forest + intercept.
    tunings : mapping of str to EdgeTuning
        For ``"multicut"`` and ``"gasp"``.
    voxel_size_nm : (z, y, x) in nm
        Of the crop that it learnt from.
    fragments : FragmentSettings
        That its fragments were cut with.
    boundaries : str
        Where its boundary probability came from: ``"intensity"`` or a file.
    trained_on : dict
        ``uri``, ``sha256`` of the whole volume, ``z`` (first, end); JSON values.
    """

    forest: Forest
    slope: float
    intercept: float
    tunings: Mapping[str, EdgeTuning]
    voxel_size_nm: ZYX
    fragments: FragmentSettings = field(default_factory=FragmentSettings)
    boundaries: str = INTENSITY
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, cut: Cut) -> np.ndarray:
        """Return the probability, (E,), that the two fragments of each contact are parts of one neurite."""
        return self.probability(contact_features(cut))

    def probability(self, features: np.ndarray) -> np.ndarray:
        """Return the same for features as `emlib.refine.edge_contacts.describe` makes them."""
        return calibrated(self.forest.probability(features), self.slope, self.intercept)

    def tuning(self, segmenter: str) -> EdgeTuning:
        """Return what was chosen for ``"multicut"`` or ``"gasp"`` on the crop."""
        return self.tunings[segmenter]


def write_edge_model(path: Path, model: ContactModel) -> None:
    """Write a model; equal models give equal bytes."""
    stored = {name: getattr(model, name) for name in ("slope", "intercept", "voxel_size_nm", "fragments", "boundaries")}
    stored |= {"kind": KIND, "trained_on": dict(model.trained_on)}
    stored["tunings"] = {name: tuning._asdict() for name, tuning in model.tunings.items()}
    write_model(path, {"edges": model.forest}, plain(stored))


def read_edge_model(path: str | Path) -> ContactModel:
    """Read what `write_edge_model` wrote.

    Raises
    ------
    UserError
        If the file is not there, is damaged, or holds another model or one of other features.
    """
    forests, stored = read_model(path)
    if "edges" not in forests:
        raise UserError(f"the model {path} knows no contacts; {REMEDY}")
    if forests["edges"].names != CONTACT_NAMES:
        theirs, ours = forests["edges"].names, set(CONTACT_NAMES)
        other = next((name for name in theirs if name not in ours), None)
        what = f"{len(theirs)} features" + (f", {other!r} among them" if other else "")
        raise UserError(
            f"the edge model {path} was trained on {what}, and this emlib describes contacts by {len(CONTACT_NAMES)} "
            f"others; {REMEDY}"
        )
    try:
        if stored["kind"] != KIND:
            raise ValueError(f"its kind is {stored['kind']!r}")
        tunings = {
            name: EdgeTuning(*(_number(stored["tunings"][name][key]) for key in EdgeTuning._fields)) for name in TUNED
        }
        size = tuple(_number(side) for side in stored["voxel_size_nm"])
        if len(size) != 3 or min(size) <= 0:
            raise ValueError("its voxel size is none")
        trained_on = dict(stored["trained_on"])
        if "z" in trained_on and [type(z) for z in trained_on["z"]] != [int, int]:
            raise ValueError("its sections are none")
        return ContactModel(
            *(forests["edges"], _number(stored["slope"]), _number(stored["intercept"]), tunings, size),
            FragmentSettings(**{name: _number(value) for name, value in stored["fragments"].items()}),
            str(stored["boundaries"]),
            trained_on,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the edge model {path} is damaged: {' '.join(str(error).split())[:120]}; {REMEDY}") from error


def check_fit(
    model: ContactModel, path: str | Path, voxel_size_nm: ZYX, fragments: FragmentSettings, boundaries: str
) -> list[str]:
    """Say what differs between the crop that a model learnt from and a volume that it is used on.

    Parameters
    ----------
    model : ContactModel
    path : path
        For the messages.
    voxel_size_nm : (z, y, x) in nm
    fragments : FragmentSettings
    boundaries : str
        Where the volume's boundary probability comes from: ``"intensity"``, another method, or a file.

    Returns
    -------
    list of str
        A line for each thing that makes the probabilities less certain.

    Raises
    ------
    UserError
        If fragments are 3D on one side and 2D on the other.
    """
    name = f"the edge model {path}"
    shown = [" × ".join(f"{side:g}" for side in size) for size in (model.voxel_size_nm, voxel_size_nm)]
    flat = [not near_isotropic(size) for size in (model.voxel_size_nm, voxel_size_nm)]
    if flat[0] != flat[1]:
        how = ["of single sections" if one else "in 3D" for one in flat]
        raise UserError(
            f"{name} was trained on fragments {how[0]} (voxels of {shown[0]} nm), and those of this volume are "
            f"{how[1]} ({shown[1]} nm); train one on a crop of this kind"
        )
    lines = []
    ratios = [max(a / b, b / a) for a, b in zip(model.voxel_size_nm, voxel_size_nm, strict=True)]
    if max(ratios) > OTHER_SIZE:
        lines.append(f"{name} was trained on voxels of {shown[0]} nm, this volume has {shown[1]} nm")
    if fragments != model.fragments:
        lines.append(f"{name} was trained on fragments cut with other settings ({model.fragments})")
    if (boundaries == INTENSITY) != (model.boundaries == INTENSITY):
        lines.append(
            f"{name} was trained on boundaries from {model.boundaries}, this run takes them from {boundaries}: its "
            "probabilities do not hold for them"
        )
    return lines


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)
