"""Flags of the scripts that train; what is left out on the command line is the preset's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from emlib.runs import cli

PRESETS = ("laptop", "desktop", "paper")
HEADS = ("unet", "pspnet", "deeplabv3plus", "upernet", "experts")


class ListBackbones(argparse.Action):
    """Print the names of encoders that match a pattern, and exit: no other flag is needed then."""

    def __call__(self, parser: argparse.ArgumentParser, namespace, values, option_string=None) -> None:
        """Print one name a line."""
        from emlib.errors import UserError
        from emlib.learn.models.backbones import list_backbones  # heavy: timm

        names = list_backbones(values)
        if not names:
            raise UserError(
                f"no backbone is called like {values!r}; try 'resnet*', 'convnext*', 'vit*', or '*' for all"
            )
        print(*names, sep="\n")
        parser.exit(0)


def share(text: str) -> float:
    """Return a number of at least 0 and below 1; an argparse type."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value


def add_training(parser: argparse.ArgumentParser, one_organelle: bool = False) -> None:
    """Add all flags of a training; call it after `emlib.runs.cli.add_run`, in a parser that resolves conflicts.

    Parameters
    ----------
    parser : ArgumentParser
        With ``conflict_handler="resolve"``: ``--outdir`` becomes another name of ``--out_path``.
    one_organelle : bool
        ``--organelle NAME`` in place of ``--organelles NAME …``.
    """
    _add_data(parser, one_organelle)
    if not one_organelle:
        _add_volume(parser)
    _add_files(parser)
    _add_network(parser)
    _add_patches(parser)
    _add_optimisation(parser)
    _add_machine(parser)


def _add_data(parser: argparse.ArgumentParser, one_organelle: bool) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data_root", default="data", type=Path, metavar="DIR", help="folder of domains (default: data)")
    data.add_argument(
        "--domain",
        required=one_organelle,
        nargs="+",
        metavar="NAME",
        help="its folder, with {train,val}/{raw,<organelle>…}/NN.png, or {train,val}/{raw,masks}/NN.png whose values "
        "are ids of classes named in classes.yaml; several domains train one model",
    )
    if one_organelle:
        data.add_argument("--organelle", required=True, metavar="NAME", help="the folder of masks to learn")
    else:
        data.add_argument(
            "--organelles", nargs="+", metavar="NAME", help="one channel each (default: every folder of masks)"
        )
    above = cli.positive(float)
    data.add_argument(
        "--ignore_index",
        type=cli.at_least_zero(int),
        metavar="N",
        help="pixels of masks with this value are not annotated: left out of loss and scores (default: ignore in "
        "classes.yaml)",
    )
    data.add_argument(
        "--domain_weights",
        nargs="+",
        type=above,
        metavar="W",
        help="shares of the patches from each domain (default: by their number of patches)",
    )
    data.add_argument(
        "--resample_nm",
        type=above,
        metavar="NM",
        help="bring all sections to pixels of this side (default: as they are)",
    )
    data.add_argument(
        "--voxel_size",
        type=above,
        nargs="+",
        metavar="NM",
        help="Z Y X in nm, kept with the model; with several domains once or for each (default: the public data set's)",
    )
    data.add_argument(
        "--memory_gb",
        type=above,
        default=2.0,
        metavar="GB",
        help="sections, or a volume, that need more are not kept in memory but read again and again (default: 2)",
    )


def _add_volume(parser: argparse.ArgumentParser) -> None:
    volume = parser.add_argument_group("a labelled volume in place of --domain: boundaries are learnt")
    volume.add_argument(
        "--volume", metavar="EM", help="of any format that run_pipeline.py reads; its voxel size or --voxel_size"
    )
    volume.add_argument(
        "--labels",
        metavar="LABELS",
        help="neurite labels of the same voxels; 0 is boundary, or with --ignore_index 0 not annotated",
    )
    span = {"type": int, "nargs": 2, "metavar": ("FIRST", "END")}
    volume.add_argument("--z", help="sections to learn from, END not among them (default: all)", **span)
    volume.add_argument(
        "--val_z", help="sections that judge the epochs, left out of the training (default: the last sixth)", **span
    )
    volume.add_argument(
        "--sections",
        type=cli.positive(int),
        metavar="N",
        help="neighbouring sections that the network sees, odd (default: 5 where voxels are near isotropic, else 3)",
    )
    volume.add_argument(
        "--axes",
        type=int,
        choices=(1, 3),
        help="learn sections along z, or along all three axes (default: 3 where voxels are near isotropic, else 1)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "--out_path",
        "--outdir",
        required=True,
        type=Path,
        metavar="FILE.pth",
        help="the best model by validation IoU. The folder of this name without .pth holds last.pth (the final model "
        "and all that --resume needs), history.csv, the curves, augmentation.png and args.yaml; models of other epochs "
        "are not kept",
    )
    files.add_argument(
        "--half", action="store_true", help="store the best model's weights in float16, in half the space"
    )
    files.add_argument("--resume", action="store_true", help="go on from last.pth of an interrupted training")
    files.add_argument(
        "--contact_sheet",
        type=cli.at_least_zero(int),
        default=16,
        metavar="N",
        help="augmented patches to draw into augmentation.png before the first step; 0: none (default: 16)",
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")
    network.add_argument("--preset", choices=PRESETS, default="laptop", help="network and recipe (default: laptop)")
    network.add_argument(
        "--head",
        metavar="|".join(HEADS),
        help="in place of the preset's network: this decoder on an encoder of timm, with --loss ce+dice; experts: a "
        "decoder for each organelle",
    )
    network.add_argument("--backbone", metavar="NAME", help="the encoder of --head (default: resnet18)")
    network.add_argument(
        "--weights", metavar="none|imagenet|FILE", help="what the encoder of --head begins with (default: none)"
    )
    network.add_argument(
        "--list-backbones", action=ListBackbones, metavar="PATTERN", help="print encoders, such as 'resnet*', and exit"
    )


def _add_patches(parser: argparse.ArgumentParser) -> None:
    patches = parser.add_argument_group("patches (default: the preset's)")
    whole = {"type": cli.positive(int), "metavar": "N"}
    patches.add_argument("--patch_size", help="side in pixels", **whole)
    patches.add_argument("--stride", help="from one patch of the grid to the next, in pixels", **whole)
    patches.add_argument("--sampling", choices=("grid", "random"), help="overlapping grid, or crops from anywhere")
    patches.add_argument("--patches_per_epoch", help="of random crops (default: as many as the grid has)", **whole)
    patches.add_argument("--batch_size", help="patches in a step, on each device", **whole)
    patches.add_argument(
        "--augment", metavar="none|light|strong|FILE.yaml", help="how much patches are varied on the fly"
    )


def _add_optimisation(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("optimisation (default: the preset's)")
    number: dict[str, Callable] = {"type": cli.positive(float)}
    or_zero = {"type": cli.at_least_zero(float)}
    how.add_argument("--epochs", type=cli.positive(int), metavar="N", help="passes over the patches, at most")
    how.add_argument("--time_budget", metavar="MIN", help="end after so many minutes, validation included", **number)
    how.add_argument(
        "--patience", type=cli.positive(int), metavar="N", help="end after N epochs without a better validation IoU"
    )
    how.add_argument("--loss", metavar="TERMS", help='as "dice+0.5*focal+ce", or paper')
    how.add_argument(
        "--class_weights",
        nargs="+",
        metavar="W",
        help="of organelles or classes (background first) in the loss, or auto: inverse root of their share of pixels",
    )
    how.add_argument("--optimizer", choices=("adamw", "adam"), help="which")
    how.add_argument("--lr", metavar="RATE", help="highest learning rate", **number)
    how.add_argument("--weight_decay", metavar="W", help="of convolutions alone with adamw", **or_zero)
    how.add_argument(
        "--warmup", type=share, metavar="SHARE", help="of the training in which the learning rate rises, 0 to 1"
    )
    how.add_argument("--schedule", choices=("cosine", "constant"), help="of the learning rate after that")
    how.add_argument("--ema", type=share, metavar="DECAY", help="of the moving average of the weights, which is kept")
    how.add_argument("--no_ema", action="store_true", help="keep the weights themselves, not their moving average")
    how.add_argument("--clip", metavar="NORM", help="largest norm of the gradient; 0: any", **or_zero)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), help="auto: a GPU if there is one (default: auto)"
    )
    machine.add_argument(
        "--precision", choices=("auto", "32", "bf16"), help="auto: bf16 where the processor has it (default: auto)"
    )
    machine.add_argument(
        "--devices", type=cli.positive(int), metavar="N", help="processes that share each step out (default: 1)"
    )
    machine.add_argument(
        "--workers", type=cli.at_least_zero(int), metavar="N", help="processes per device that cut patches (default: 0)"
    )
    machine.add_argument(
        "--memory_format",
        choices=("auto", "contiguous", "channels_last"),
        help="auto: channels_last with bf16 (default: the preset's choice)",
    )
