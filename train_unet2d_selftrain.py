"""Learn boundaries with a small 2D U-Net from corrected sections and the run's own segmentation, and segment it anew.

python train_unet2d_selftrain.py --slices 10 30 50 --preset safe8gb
python train_unet2d_selftrain.py --outdir outputs --time_budget 10
"""

import sys

from emlib.runs import cli

PRESETS = ("medium", "safe8gb")


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = cli.add_corrections(parser, "input; EM and segmentation are those of the run in --outdir")
    data.add_argument(
        "--without_corrections",
        action="store_true",
        help="learn from the segmentation alone, which can make its mistakes worse; see docs/refinement.md",
    )
    learn = parser.add_argument_group("learning")
    learn.add_argument("--preset", choices=PRESETS, default="medium", help="how long it trains (default: medium)")
    whole, number = {"type": cli.positive(int), "metavar": "N"}, {"type": cli.positive(float), "metavar": "X"}
    learn.add_argument("--epochs", help="passes; an epoch has the preset's number of steps", **whole)
    learn.add_argument("--batch_size", help="patches of a step", **whole)
    learn.add_argument("--patch_size", help="side of a patch in pixels", **whole)
    learn.add_argument("--lr", help="highest learning rate", **number)
    budget = {"type": cli.positive(float), "metavar": "MIN"}
    learn.add_argument("--time_budget", help="end the training after so many minutes; the clock then matters", **budget)
    learn.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")
    learn.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)")
    cli.add_settings(learn)
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.refine.unet.settings import PRESETS as SETTINGS  # heavy: after parsing
    from emlib.runs.settings import listing, override

    short = {"epochs": args.epochs, "batch_size": args.batch_size, "patch_px": args.patch_size, "lr": args.lr}
    given = [f"{name}={value}" for name, value in short.items() if value is not None]
    settings = override(SETTINGS[args.preset], given + args.set)
    if args.list_settings:
        print(*listing(settings), sep="\n")
        return 0
    from emlib.refine.unet.command import SelftrainRequest, selftrain_run

    request = SelftrainRequest(
        outdir=args.outdir,
        slices=args.slices and tuple(args.slices),
        labels=args.labels,
        voxel_size_nm=args.voxel_size and tuple(args.voxel_size),
        without_corrections=args.without_corrections,
        resume=args.resume,
        time_budget_min=args.time_budget,
        device=args.device,
        seed=args.seed,
        settings=settings,
    )
    lines, interrupted = selftrain_run(request, command=cli.command_line(), quiet=args.quiet)
    if interrupted:
        again = cli.command_line() + ("" if args.resume else " --resume")
        print(f"{lines[0]}; to go on: {again}", file=sys.stderr)
        return cli.INTERRUPTED
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, smaller="use a smaller --batch_size, then a smaller --patch_size"))
