"""A checkpoint as ONNX or TorchScript, compared with the network that it came from."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emlib.annotations.classes import hex_colour
from emlib.errors import UserError
from emlib.learn.prediction.memory import measure_bytes_per_pixel
from emlib.learn.prediction.onnx_file import FORMAT, KEYS, need
from emlib.learn.prediction.predictor import Predictor
from emlib.learn.tiles import GRID
from emlib.threads import get_threads
from emlib.volumes.atomic import atomic_path

OPSET = 18
EXAMPLE = (2 * GRID, 3 * GRID)
CHECKED = ((2 * GRID, 3 * GRID), (5 * GRID, 2 * GRID), (GRID, GRID))  # Y, X of the images that are compared
TOLERANCE = 1e-3  # of probabilities: more than this is another network, not rounding


def export_network(predictor: Predictor, kind: str, path: str | Path) -> list[str]:
    """Write a network for other programs, and compare it with the original on random images.

    Parameters
    ----------
    predictor : Predictor
        Of a checkpoint; exported in float32 on the CPU.
    kind : "onnx" or "torchscript"
    path : path
        The file. It takes normalised grey values ``image`` (1, 1, Y, X), Y and X any multiples of 32, and gives
        ``logits`` (1, E, Y, X).

    Returns
    -------
    list of str
        Lines: the largest difference from the original, the format, the path.

    Raises
    ------
    UserError
        If a package is missing, the network cannot be exported, the result differs from it, or the file cannot be
        written. In each case no file is left.
    """
    path, network = Path(path), predictor.network.to("cpu", memory_format=torch.contiguous_format).eval()
    if predictor.path.suffix.lower() == ".onnx":
        raise UserError(f"--export: {predictor.path} is an ONNX file already; give the checkpoint it came from")
    with atomic_path(path) as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch's exporters warn of their own parts
        run = {"onnx": _write_onnx, "torchscript": _write_torchscript}[kind](predictor, network, temporary)
        difference = _largest_difference(network, run, predictor.activation)
        if not difference < TOLERANCE:
            raise UserError(
                f"--export {kind}: the result differs from {predictor.path} by {difference:.2g} in probability; "
                "this network cannot be exported"
            )
    form = f"ONNX, opset {OPSET}" if kind == "onnx" else "TorchScript"
    return [
        f"{form}: image (1, 1, Y, X) to logits (1, {len(predictor.classes)}, Y, X); Y and X are multiples of {GRID}",
        f"largest difference from the checkpoint: {difference:.2g} in probability, over {len(CHECKED)} random images",
        f"written: {path}",
    ]


def metadata(predictor: Predictor) -> dict[str, str]:
    """Return what an ONNX file says of itself, JSON by key: see `emlib.learn.prediction.onnx_file.KEYS`."""
    about: dict[str, Any] = {
        "organelles": [one.name for one in predictor.classes],
        "activation": predictor.activation,
        "normalisation": vars(predictor.normalisation),
        "voxel_size_nm": predictor.voxel_size_nm,
        "colours": {one.name: hex_colour(one.colour) for one in predictor.classes},
        "class_ids": [one.id for one in predictor.classes],
        "bytes_per_pixel": measure_bytes_per_pixel(predictor.network),
    }
    return {"format": FORMAT, "source_sha256": predictor.sha256, **{key: json.dumps(about[key]) for key in KEYS}}


def _write_onnx(predictor: Predictor, network: nn.Module, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    onnx, ort = need("onnx"), need("onnxruntime")
    need("onnxscript")
    height, width = (torch.export.Dim(name, min=1, max=2**10) for name in ("height", "width"))
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 1, *EXAMPLE),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({2: GRID * height, 3: GRID * width},),
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:  # the exporter has errors of its own without end
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise UserError(f"--export onnx: PyTorch cannot export the network of {predictor.path}: {first}") from error
    proto = program.model_proto
    for key, value in metadata(predictor).items():
        proto.metadata_props.add(key=key, value=value)
    _strip_paths(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = get_threads(), 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def _strip_paths(proto: Any) -> None:
    """Take the exporter's notes on source files out of the graph: they name folders of this machine."""
    for node in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]


def _write_torchscript(predictor: Predictor, network: nn.Module, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    try:
        traced = torch.jit.trace(network, torch.zeros(1, 1, *EXAMPLE), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files=metadata(predictor))
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise UserError(f"--export torchscript: PyTorch cannot trace {predictor.path}: {first}") from error
    return lambda image: traced(torch.from_numpy(image)).numpy()


def _largest_difference(network: nn.Module, run: Callable[[np.ndarray], np.ndarray], activation: str) -> float:
    """Between the probabilities of two networks, over random images of several sizes."""
    generator = torch.Generator().manual_seed(0)
    apply = torch.sigmoid if activation == "sigmoid" else lambda logits: torch.softmax(logits, 1)
    largest = 0.0
    for shape in CHECKED:
        image = torch.randn(1, 1, *shape, generator=generator)
        difference = apply(network(image)) - apply(torch.from_numpy(run(image.numpy())))
        largest = max(largest, float(difference.abs().max().nan_to_num(nan=float("inf"))))
    return largest
