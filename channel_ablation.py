"""Which encoder channels do the experts of a trained network rely on, and what of it is more than chance?

python channel_ablation.py --data_root data --domain drosophila-vnc --model_path ./models/model.pth --top_k 100
python channel_ablation.py --data_root data --domain drosophila-vnc --model_path drosophila-vnc-experts --quick
"""

import sys
from functools import partial

from emlib.runs import cli

MEASURES = ("gradient", "gradient_x_activation", "ablation")
RUN_FLAGS = ("config", "threads", "debug")  # what the analysis need not know


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    positive = cli.positive(int)
    data = parser.add_argument_group("input")
    data.add_argument("--data_root", default="data", metavar="DIR", help="folder of the data sets (default: data)")
    data.add_argument("--domain", required=True, metavar="NAME", help="data set: a folder of --data_root")
    data.add_argument("--model_path", metavar="MODEL", help="checkpoint, or the name of a bundled one")
    data.add_argument("--split", default="test", choices=("train", "val", "test"), help="(default: test)")
    data.add_argument("--organelles", nargs="+", metavar="NAME", help="experts of imported MExConn weights, in order")
    data.add_argument("--sections", nargs="+", metavar="NAME", help="sections to draw patches from (default: all)")
    what = parser.add_argument_group("analysis")
    what.add_argument("--top_k", type=positive, metavar="K", help="channels in a top set (default: 100, at most half)")
    what.add_argument(
        "--rank_by", choices=MEASURES, default="gradient", help="measure that chooses them (default: gradient)"
    )
    what.add_argument(
        "--levels", type=positive, nargs="+", metavar="L", help="encoder levels, 1 is the shallowest (default: all)"
    )
    what.add_argument("--exact_all_levels", action="store_true", help="exact ablation above the deepest level; slow")
    what.add_argument("--random_sets", type=positive, metavar="N", help="per size of a set, at least 20 (default: 30)")
    what.add_argument("--orders", type=positive, metavar="N", help="random deletion curves (default: 20)")
    what.add_argument("--points", type=positive, metavar="N", help="of a deletion curve (default: 6)")
    how = parser.add_argument_group("sampling")
    how.add_argument("--patches", type=positive, metavar="N", help="half to rank, half to judge (default: 24)")
    how.add_argument("--patch_size", type=positive, metavar="PX", help="side in pixels (default: 256)")
    how.add_argument("--batch_size", type=positive, metavar="N", help="patches at once (default: 8)")
    how.add_argument("--quick", action="store_true", help="12 patches, 20 random sets, 4 points: a first look")
    how.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.interpret.report import channel_analysis  # heavy: after parsing

    note = partial(print, file=sys.stderr, flush=True)  # also with --quiet
    lines = channel_analysis(**{name: value for name, value in vars(args).items() if name not in RUN_FLAGS}, note=note)
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
