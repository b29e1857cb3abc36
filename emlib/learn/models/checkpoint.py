"""Checkpoints: one file that says which network it holds, on what it was trained, and how well it did.

A file in PyTorch's zip format with four entries: ``format``, ``about`` (JSON: all that is not a tensor), ``weights``
and ``training`` (what is needed to go on, or None). Loading takes tensors and plain values and nothing else
(``weights_only``), so that no code of a file ever runs; ``about`` is JSON because it cannot refer to itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emlib import __version__
from emlib.errors import UserError
from emlib.learn.models.mexconn import mexconn_architecture, mexconn_weights
from emlib.learn.models.model_files import find_checkpoint
from emlib.learn.models.tensor_files import read_tensors
from emlib.learn.models.weights import fill_network
from emlib.learn.normalisation import Normalisation
from emlib.runs.artefacts import plain
from emlib.volumes.atomic import atomic_path
from emlib.volumes.volume import ZYX

FORMAT = "emlib checkpoint 1"
WANTED = "give a file that train.py wrote, or the plain weights of MExConn"


@dataclass(frozen=True)
class Checkpoint:
    """A network and what its file says about it.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, float32.
    architecture : dict
        For `emlib.learn.models.build.build_model`.
    organelles : tuple of str
        One for each channel of the output.
    normalisation : Normalisation
        What to do with grey values before the network sees them.
    voxel_size_nm : (z, y, x), or None
        Of the data it was trained on.
    metrics, settings : dict
        JSON values: scores on the validation sections, and how it was trained.
    training : dict or None
        What `save_checkpoint` was given: the state of a training that can go on.
    versions : dict
        Of emlib, PyTorch and Python that wrote it.
    path : Path
    sha256 : str
        Of the file.
    """

    model: nn.Module
    architecture: dict[str, Any]
    organelles: tuple[str, ...]
    normalisation: Normalisation
    voxel_size_nm: ZYX | None
    metrics: dict[str, Any]
    settings: dict[str, Any]
    training: dict[str, Any] | None
    versions: dict[str, str]
    path: Path
    sha256: str


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    *,
    architecture: Mapping[str, Any],
    normalisation: Normalisation,
    voxel_size_nm: Sequence[float] | None,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Path:
    """Write a network whole or not at all; an older file of that name stays until the new one is complete.

    Parameters
    ----------
    path : str or Path
        Folders are made.
    model : nn.Module
        Built by `emlib.learn.models.build.build_model` from ``architecture``.
    architecture, metrics, settings : mapping
        Values that JSON can hold; tuples come back as lists, NaN as None.
    normalisation : Normalisation
    voxel_size_nm : (z, y, x), optional
    training : mapping, optional
        Tensors, numbers, strings, None, and dicts, lists and tuples of them, which come back as they are.
    half : bool
        Store weights as float16, in half the space. They come back as float32, rounded to 11 significant bits; tensors
        with a number beyond float16 stay float32.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        If it cannot be written (disk full, no permission).
    ValueError
        If ``training`` holds what cannot be loaded again.
    """
    about = {
        "architecture": architecture,
        "normalisation": normalisation,
        "voxel_size_nm": voxel_size_nm,
        "metrics": metrics,
        "settings": settings,
        "versions": {"emlib": __version__, "torch": torch.__version__, "python": sys.version.split()[0]},
    }
    weights = {name: _stored(tensor, half) for name, tensor in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "about": json.dumps(plain(about), ensure_ascii=False),
        "weights": weights,
        "training": None if training is None else _kept(training),
    }
    buffer = io.BytesIO()  # torch.save puts the name of a file into it, and a temporary one is never the same
    torch.save(content, buffer)
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return path


def load_checkpoint(
    path_or_name: str | Path, device: str | torch.device = "cpu", *, organelles: Sequence[str] | None = None
) -> Checkpoint:
    """Read a network from a file, or a bundled one by its name.

    Parameters
    ----------
    path_or_name : str or Path
        As for `find_checkpoint`.
    device : str or torch.device
        Where the network goes; ``training`` stays on the CPU.
    organelles : sequence of str, optional
        Names for the experts of plain MExConn weights, which carry none (default ``expert_0`` …). A checkpoint has its
        own, and this is not looked at.

    Raises
    ------
    UserError
        If there is no such file, or it is none of ours, damaged, cut short, from a later emlib, or holds Python
        objects other than weights (none of which is made).
    """
    path = find_checkpoint(path_or_name)
    content = read_tensors(path, WANTED)
    weights = mexconn_weights(content) if not _is_ours(content) else None
    try:
        if weights is not None:
            about: dict[str, Any] = {"architecture": mexconn_architecture(weights, organelles)}
            about |= {"settings": {"imported": "MExConn"}}
            training = None
        else:
            about, weights, training = _parts(content)
        model = fill_network(about["architecture"], weights)
        normalisation = Normalisation(**{key: float(value) for key, value in about.get("normalisation", {}).items()})
        size = about.get("voxel_size_nm")
        voxel_size_nm = None if size is None else tuple(map(float, size))
        described = [dict(about.get(name, {})) for name in ("metrics", "settings", "versions")]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is a damaged checkpoint ({type(error).__name__}); {WANTED}") from error
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    model = model.to(device).eval()
    architecture = about["architecture"]
    names = tuple(architecture["organelles"])
    metrics, settings, versions = described
    return Checkpoint(
        model, architecture, names, normalisation, voxel_size_nm, metrics, settings, training, versions, path, sha256
    )


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    """A copy on the CPU in C order, so that neither the device nor the memory format changes the file."""
    tensor = tensor.detach().cpu()
    if half and tensor.dtype == torch.float32:
        rounded = tensor.half()
        if torch.isfinite(rounded).equal(torch.isfinite(tensor)):
            tensor = rounded
    return tensor.clone(memory_format=torch.contiguous_format)


def _kept(value: Any) -> Any:
    """The state of a training with its tensors copied; only what ``weights_only`` loads again passes."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {_kept(key): _kept(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_kept(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    raise ValueError(f"the state of a training is made of tensors and plain values, not {type(value).__name__}")


def _is_ours(content: Any) -> bool:
    return isinstance(content, dict) and str(content.get("format", ""))[:16] == FORMAT[:16]


def _parts(content: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """What the file says, the weights, the state of a training."""
    if not _is_ours(content):
        raise UserError(f"it is a PyTorch file, but neither a checkpoint of emlib nor weights of MExConn; {WANTED}")
    if content["format"] != FORMAT:
        raise UserError(f"it was written by a later emlib ({content['format'][:40]!r}); update emlib")
    return json.loads(content["about"]), dict(content["weights"]), content["training"]
