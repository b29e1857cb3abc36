"""Flags of ``predict.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from emlib.runs import cli

INSTANCES = ("components", "watershed")


def share(text: str) -> float:
    """Return a number above 0 and at most 1; an argparse type."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def add_prediction(parser: argparse.ArgumentParser) -> None:
    """Add all flags of a prediction; after `emlib.runs.cli.add_run`, in a parser that resolves conflicts.

    ``--outdir`` becomes another name of ``--output``.
    """
    _add_files(parser)
    _add_what(parser)
    _add_how(parser)
    _add_machine(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--model_path", metavar="MODEL", help="checkpoint, .onnx file, or the name of a bundled model")
    files.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="images, folders of images, patterns; volumes: TIFF, .npy, MRC, file.h5:dataset, Zarr",
    )
    files.add_argument(
        "--output",
        "--outdir",
        dest="output",
        default=Path("outputs/predictions"),
        type=Path,
        metavar="DIR",
        help="(default: outputs/predictions)",
    )
    files.add_argument("--dataset", metavar="NAME", help="array in an HDF5 file, as behind file.h5:")
    files.add_argument("--stack", action="store_true", help="a folder is one volume, its images the sections")
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    files.add_argument("--voxel_size", help="nm, of all inputs (default: the file's)", **size)
    files.add_argument("--resume", action="store_true", help="go on where the same command was ended")
    files.add_argument("--overwrite", action="store_true", help="replace results of another model, input or setting")
    files.add_argument("--into_input", action="store_true", help="allow --output within a folder of --input")
    files.add_argument(
        "--export", nargs=2, metavar=("onnx|torchscript", "FILE"), help="write the network for other programs, and exit"
    )


def _add_what(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("results besides masks")
    what.add_argument("--organelles", nargs="+", metavar="NAME", help="(default: all of the model)")
    what.add_argument("--probabilities", action="store_true", help="float16: .npy of an image, Zarr of a volume")
    what.add_argument(
        "--instances", nargs="?", const="watershed", choices=INSTANCES, help="number objects (default: watershed)"
    )
    what.add_argument("--measure", action="store_true", help="a CSV row for each object")
    what.add_argument("--overlay", action="store_true", help="outlines over the EM, PNG")
    what.add_argument("--colour_masks", action="store_true", help="masks in the colours of their classes, PNG")
    what.add_argument(
        "--format", choices=("auto", "tiff", "zarr"), default="auto", help="of the masks of a volume (default: auto)"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("prediction")
    how.add_argument("--threshold", type=share, default=0.5, help="probability of foreground (default: 0.5)")
    how.add_argument("--tta", action="store_true", help="mean over 8 rotations and reflections; 8 times the time")
    how.add_argument("--orthogonal", action="store_true", help="mean over the three planes of a near isotropic volume")
    pixel = how.add_mutually_exclusive_group()
    pixel.add_argument("--resample", action="store_true", help="see pixels of the size that the model learnt on")
    pixel.add_argument("--resample_nm", type=cli.positive(float), metavar="NM", help="see pixels of this size")
    grey = {"type": cli.finite, "nargs": 2, "metavar": ("LOW", "HIGH")}
    how.add_argument("--grey_range", help="grey values of black and white (default: those of the integer type)", **grey)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    positive = {"type": cli.positive(int)}
    voxels = {"type": cli.positive(int), "nargs": 3, "metavar": ("X", "Y", "Z")}
    machine.add_argument("--blocks", help="predict volumes in blocks of this size, each on record once done", **voxels)
    machine.add_argument("--workers", metavar="N", help="processes for the blocks (default: 1)", **positive)
    machine.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="the workers of this Dask scheduler instead")
    machine.add_argument(
        "--memory_gb", type=cli.positive(float), default=4.0, metavar="GB", help="not to be exceeded (default: 4)"
    )
    machine.add_argument("--tile", metavar="PX", help="side of a tile (default: from --memory_gb)", **positive)
    machine.add_argument("--overlap", metavar="PX", help="of tiles (default: 192, less of small tiles)", **positive)
    machine.add_argument("--batch_size", default=1, metavar="N", help="tiles at once on a GPU (default: 1)", **positive)
    machine.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)")
    machine.add_argument("--precision", choices=("auto", "32", "bf16"), default="32", help="(default: 32)")
