"""An ONNX file as a network: what ``--export onnx`` wrote, run by onnxruntime on the CPU.

All that inference needs stands in the file's ``metadata_props``, under the keys of `KEYS`, as JSON.
"""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.models.model_files import find_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.prediction.channels import channel_classes
from emlib.learn.prediction.predictor import Predictor
from emlib.threads import get_threads
from emlib.volumes.reading import reading

FORMAT = "emlib onnx 1"
KEYS = ("organelles", "activation", "normalisation", "voxel_size_nm", "colours", "class_ids", "bytes_per_pixel")


def need(package: str) -> Any:
    """Import a package that only ONNX files need.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"ONNX needs the package {package}, which is not installed; pip install {package}") from error


class OnnxNetwork(nn.Module):
    """Runs an onnxruntime session on tensors.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        One input (B, 1, Y, X), one output (B, E, Y, X), both float32.
    activation : "sigmoid" or "softmax"
    """

    def __init__(self, session: Any, activation: str) -> None:
        super().__init__()
        self.session, self.activation = session, activation
        self.input = session.get_inputs()[0].name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of (B, 1, Y, X) grey values."""
        grey = x.detach().to("cpu", torch.float32).contiguous().numpy()
        logits = [self.session.run(None, {self.input: one[None]})[0] for one in grey]  # exported for one image
        return torch.cat([torch.from_numpy(one) for one in logits])


def load_onnx(path: Path) -> Predictor:
    """Open an ONNX file that ``predict.py --export onnx`` wrote.

    Raises
    ------
    UserError
        If onnxruntime is missing, or the file is missing, damaged, or lacks the metadata that says what its channels
        are.
    """
    if not path.is_file():
        find_checkpoint(path)  # names what is there
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = get_threads()
    options.log_severity_level = 3
    with reading(path):
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    if told.get("format") != FORMAT:
        raise UserError(f"{path} does not say what its channels are; give an ONNX file of predict.py --export onnx")
    try:
        about = {key: json.loads(told[key]) for key in KEYS}
        mean_std = Normalisation(**{key: float(value) for key, value in about["normalisation"].items()})
        size = about["voxel_size_nm"]
        voxel_size_nm = None if size is None else tuple(map(float, size))
        classes = channel_classes(about["organelles"], about["activation"], about)
        network = OnnxNetwork(session, str(about["activation"]))
        bytes_per_pixel = float(about["bytes_per_pixel"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its metadata are damaged ({type(error).__name__}); export it again") from error
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Predictor(network, classes, network.activation, mean_std, voxel_size_nm, path, sha256, bytes_per_pixel)
