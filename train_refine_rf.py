"""Learn neurite against background from corrected sections of a run, and segment the run anew.

python train_refine_rf.py --slices 10 30 50
python train_refine_rf.py --outdir outputs --edges
"""

import sys

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = parser.add_argument_group("input; the EM is that of the run in --outdir")
    section = {"type": cli.at_least_zero(int), "nargs": "+", "metavar": "Z"}
    data.add_argument("--slices", help="corrected sections (default: <outdir>/tables/proofread_slices.json)", **section)
    data.add_argument(
        "--labels",
        metavar="FILE",
        help="labels with the corrected sections (default: <outdir>/data/neurite_labels_corrected_i32_zyx.npy)",
    )
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    data.add_argument("--voxel_size", help="nm; wins over the files'", **size)
    data.add_argument("--model", metavar="FILE.npz", help="apply a model that was trained before instead of training")
    learn = parser.add_argument_group("learning")
    learn.add_argument("--edges", action="store_true", help="also learn which fragments belong together")
    learn.add_argument(
        "--classifier", choices=("rf", "hgb"), default="rf", help="random forest or gradient boosting (default: rf)"
    )
    learn.add_argument("--trees", type=cli.positive(int), metavar="N", help="of the pixel forest (default: 40)")
    named = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    learn.add_argument("--set", help="any setting that --list_settings names", **named)
    learn.add_argument("--list_settings", action="store_true", help="print all settings and exit")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.refine.command import RefineRequest, refine_run  # heavy: after parsing
    from emlib.refine.refining import RefineSettings
    from emlib.runs.settings import listing, override

    short = {"forest.classifier": args.classifier, "forest.trees": args.trees}
    given = [f"{name}={value}" for name, value in short.items() if value is not None]
    settings = override(RefineSettings(), given + args.set)
    if args.list_settings:
        print(*listing(settings), sep="\n")
        return 0
    request = RefineRequest(
        outdir=args.outdir,
        slices=args.slices and tuple(args.slices),
        labels=args.labels,
        voxel_size_nm=args.voxel_size and tuple(args.voxel_size),
        with_edges=args.edges,
        model=args.model,
        seed=args.seed,
        settings=settings,
    )
    lines = refine_run(request, command=cli.command_line(), quiet=args.quiet)
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, smaller="correct a smaller cutout, or set features with fewer scales"))
