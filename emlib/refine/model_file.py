"""A trained model as one ``.npz`` of plain numbers, its settings and a checksum: no pickle, which could run code."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.refine.features import FeatureSettings, feature_names
from emlib.refine.forest import Forest
from emlib.runs.artefacts import plain
from emlib.volumes.atomic import atomic_path
from emlib.volumes.volume import ZYX

FORMAT = "emlib refinement forest, 1"
ARRAYS = ("starts", "left", "right", "feature", "threshold", "value")
_LARGEST = 2**30  # bytes of one array; a damaged or hostile file may claim anything


def write_model(path: Path, forests: Mapping[str, Forest], settings: Mapping[str, Any]) -> None:
    """Write forests with the settings that they need.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``. Equal models give equal bytes.
    forests : mapping of str to Forest
    settings : mapping
        JSON values and dataclasses.
    """
    arrays = {f"{name}/{part}": getattr(forest, part) for name, forest in forests.items() for part in ARRAYS}
    heads = {
        name: {"names": forest.names, "boosted": forest.boosted, "offset": forest.offset}
        for name, forest in forests.items()
    }
    head = json.dumps(plain({"format": FORMAT, "forests": heads, "settings": dict(settings)}), sort_keys=True)
    arrays["head"] = np.frombuffer(head.encode(), np.uint8)
    arrays["sha256"] = np.frombuffer(_digest(arrays), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_model(path: str | Path) -> tuple[dict[str, Forest], dict[str, Any]]:
    """Read what `write_model` wrote.

    Returns
    -------
    forests : dict of str to Forest
    settings : dict
        As JSON gives them back.

    Raises
    ------
    UserError
        If the file is not there, damaged, or no model of this kind.
    """
    path = Path(path)
    try:
        arrays = _read_arrays(path)
        if _digest(arrays) != arrays["sha256"].tobytes():
            raise UserError(f"{path} is damaged: its checksum does not fit; train it anew or copy it again")
        head = json.loads(arrays["head"].tobytes())
        if head["format"] != FORMAT:
            raise UserError(f"{path} has the format {head['format']!r}, this emlib reads {FORMAT!r}; train it anew")
        forests = {
            name: _checked(
                Forest(
                    tuple(about["names"]),
                    **{part: arrays[f"{name}/{part}"] for part in ARRAYS},
                    boosted=bool(about["boosted"]),
                    offset=float(about["offset"]),
                )
            )
            for name, about in head["forests"].items()
        }
        return forests, head["settings"]
    except OSError as error:
        raise UserError(f"cannot read the model {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is no model that train_refine_rf.py wrote, or is damaged: {reason}") from error


def feature_settings(
    settings: Mapping[str, Any], forest: Forest, voxel_size_nm: ZYX, path: str | Path
) -> FeatureSettings:
    """Return the feature settings that a pixel forest was trained with, if they fit a volume.

    Parameters
    ----------
    settings : mapping
        As `read_model` returns them.
    forest : Forest
    voxel_size_nm : (z, y, x) in nm
        Of the volume that is to be classified.
    path : path
        For the message.

    Returns
    -------
    FeatureSettings

    Raises
    ------
    UserError
        If the volume gives other features than the forest knows.
    """
    given = settings.get("features")
    known = {f.name for f in fields(FeatureSettings)}
    if not isinstance(given, dict) or set(given) != known:
        raise UserError(f"the model {path} has other feature settings than this emlib makes; train it anew")
    made = FeatureSettings(**{name: tuple(map(float, scales)) for name, scales in given.items()})
    names = feature_names(voxel_size_nm, made)
    if list(forest.names) != names:
        size = " × ".join(f"{side:g}" for side in voxel_size_nm)
        raise UserError(
            f"the model {path} was trained on other features: {len(forest.names)}, where this volume of {size} nm "
            f"gives {len(names)} (3D filters where it is near isotropic, 2D else); train a model on this volume"
        )
    return made


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        large = [member.filename for member in archive.infolist() if member.file_size > _LARGEST]
    if large:
        raise ValueError(f"{large[0]} is too large")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 over names, kinds and bytes of all arrays but the digest itself."""
    digest = hashlib.sha256()
    for name in sorted(set(arrays) - {"sha256"}):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array)
    return digest.digest()


def _checked(forest: Forest) -> Forest:
    """Refuse trees that lead out of their arrays or in a circle: they are walked by code that does not look."""
    nodes = len(forest.left)
    if not all(getattr(forest, part).shape == (nodes,) for part in ARRAYS[1:]):
        raise ValueError("its arrays differ in length")
    for part in ARRAYS:
        if getattr(forest, part).dtype != (np.float64 if part in ("threshold", "value") else np.int64):
            raise ValueError(f"{part} has the wrong type")
    sizes = np.diff(forest.starts)
    if len(sizes) == 0 or forest.starts[0] != 0 or forest.starts[-1] != nodes or (sizes < 1).any():
        raise ValueError("its trees do not cover their nodes")
    own, size = np.arange(nodes) - np.repeat(forest.starts[:-1], sizes), np.repeat(sizes, sizes)
    inner = forest.left >= 0
    for child in (forest.left, forest.right):
        # A child comes after its parent, so there is no circle.
        if not np.where(inner, (child > own) & (child < size), child == -1).all():
            raise ValueError("a child lies outside of its tree")
    if ((forest.feature < 0) | (forest.feature >= len(forest.names))).any():
        raise ValueError("a node asks for a feature that is not there")
    if not (np.isfinite(forest.threshold).all() and np.isfinite(forest.value).all() and np.isfinite(forest.offset)):
        raise ValueError("it holds what is no number")
    if not forest.boosted and ((forest.value < 0) | (forest.value > 1)).any():
        raise ValueError("it holds a probability outside of 0 to 1")
    return forest
