"""Learn from corrected sections of a run and segment it anew, or learn from a labelled crop which fragments to join.

python train_refine_rf.py --slices 10 30 50
python train_refine_rf.py --outdir outputs --edges
python train_refine_rf.py --edges --volume em.tif --labels neurites.tif --boundaries boundaries.npy --z 0 120
"""

import sys

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = cli.add_corrections(parser, "input; the EM is that of the run in --outdir")
    crop = parser.add_argument_group("a labelled crop instead of a run, with --edges; --labels are its true neurites")
    crop.add_argument("--volume", metavar="EM", help="any input format; taken for aligned")
    crop.add_argument("--boundaries", metavar="FILE", help="boundary probability (default: from intensity)")
    crop.add_argument("--z", type=cli.at_least_zero(int), nargs=2, metavar=("FIRST", "END"), help="sections (all)")
    data.add_argument("--model", metavar="FILE.npz", help="apply a model that was trained before instead of training")
    learn = parser.add_argument_group("learning")
    learn.add_argument("--edges", action="store_true", help="also learn which fragments belong together")
    learn.add_argument("--classifier", choices=("rf", "hgb"), help="random forest or gradient boosting (default: hgb)")
    learn.add_argument("--trees", type=cli.positive(int), metavar="N", help="of the pixel forest (default: 200)")
    cli.add_settings(learn)
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.errors import UserError  # heavy: after parsing
    from emlib.refine.command import RefineRequest, refine_run
    from emlib.refine.edge_command import CropRequest, CropSettings, learn_from_crop
    from emlib.refine.refining import RefineSettings
    from emlib.runs.settings import listing, override

    forest = "contacts.forest" if args.volume else "forest"
    short = {f"{forest}.classifier": args.classifier, f"{forest}.trees": args.trees}
    given = [f"{name}={value}" for name, value in short.items() if value is not None]
    settings = override(CropSettings() if args.volume else RefineSettings(), given + args.set)
    if args.list_settings:
        print(*listing(settings), sep="\n")
        return 0
    if not args.volume and (args.boundaries or args.z):
        raise UserError("--boundaries and --z belong to a labelled crop; name it with --volume, or leave them out")
    if args.volume and not (args.edges and args.labels and args.slices is None and args.model is None):
        raise UserError(
            "--volume is a labelled crop: give --edges and --labels with it, and no --slices and no --model"
        )
    shared = {
        "outdir": args.outdir,
        "labels": args.labels,
        "voxel_size_nm": args.voxel_size and tuple(args.voxel_size),
        "seed": args.seed,
        "settings": settings,
    }
    how = {"command": cli.command_line(), "quiet": args.quiet}
    if args.volume:
        crop = {"boundaries": args.boundaries or "intensity", "z": args.z and tuple(args.z)}
        lines = learn_from_crop(CropRequest(volume=args.volume, **crop, **shared), **how)
    else:
        run = {"slices": args.slices and tuple(args.slices), "with_edges": args.edges, "model": args.model}
        lines = refine_run(RefineRequest(**run, **shared), **how)
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, smaller="correct a smaller cutout, or set features with fewer scales"))
