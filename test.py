"""Test a multi-expert organelle model on whole sections: scores in two protocols, chance beside them, a figure each.

python test.py --data_root data --domain drosophila-vnc --model_path ./models/drosophila-vnc/model.pth --batch_size 8 \
--device cuda
python test.py --data_root data --domain drosophila-vnc --model_path drosophila-vnc-experts --tta --save_probabilities
"""

import argparse
import sys
from functools import partial

from emlib.runs import cli

RUN_FLAGS = ("config", "threads", "debug")  # what the test need not know


def probability(text):
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def add_input(parser):
    data = parser.add_argument_group("input")
    data.add_argument("--data_root", default="data", metavar="DIR", help="folder of the data sets (default: data)")
    data.add_argument("--domain", required=True, metavar="NAME", help="data set: a folder of --data_root")
    data.add_argument("--model_path", metavar="MODEL", help="checkpoint, or the name of a bundled one")
    data.add_argument("--split", default="test", choices=("test", "val", "train"), help="(default: test)")
    data.add_argument(
        "--organelles", nargs="+", metavar="NAME", help="(default: all that both model and data set have)"
    )
    ignored = "value of pixels of masks that nobody annotated (default: as classes.yaml or the model's training has it)"
    data.add_argument("--ignore_index", type=cli.at_least_zero(int), metavar="N", help=ignored)
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    data.add_argument("--voxel_size", help="nm (default: the public data set's, else the model's)", **size)


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    add_input(parser)
    positive = cli.positive
    how = parser.add_argument_group("prediction")
    how.add_argument("--batch_size", type=positive(int), default=4, metavar="N", help="tiles at once (default: 4)")
    how.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)")
    how.add_argument("--precision", choices=("auto", "32", "bf16"), default="32", help="(default: 32)")
    how.add_argument("--tile", type=positive(int), default=1024, metavar="PX", help="largest side (default: 1024)")
    how.add_argument("--overlap", type=positive(int), default=192, metavar="PX", help="of tiles (default: 192)")
    how.add_argument("--tta", action="store_true", help="mean over 8 rotations and reflections; 8 times the time")
    how.add_argument("--save_probabilities", action="store_true", help="and masks, to <outdir>/predictions/<domain>")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--threshold", type=probability, default=0.5, help="probability of foreground (default: 0.5)")
    scoring.add_argument("--boundary_nm", type=positive(float), default=20.0, help="of boundary F1 (default: 20)")
    scoring.add_argument("--bootstrap", type=positive(int), default=1000, help="draws of sections (default: 1000)")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.learn.testing import test_model  # heavy: after parsing

    note = partial(print, file=sys.stderr, flush=True)  # also with --quiet
    lines = test_model(**{name: value for name, value in vars(args).items() if name not in RUN_FLAGS}, note=note)
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
