"""EM volume to wiring graph, with figures and a report.

    python run_pipeline.py --preset safe8gb --save_minimal --aligned_dtype float16
    python run_pipeline.py --dataset stack.tif --voxel_size 40 4 4 --cutout 512 512 64 --truth neurites.tif
"""

import sys

from emlib.runs import cli

PRESETS = {"none": (256, 256, 64), "safe8gb": (192, 192, 48), "medium": (256, 256, 48)}


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = parser.add_argument_group("input")
    data.add_argument(
        "--dataset",
        help=".npy, .tif, .mrc, a folder of PNG/TIFF sections, file.h5:dataset, .zarr, sample://phantom or "
        "bossdb://collection/experiment/channel (default: the C. elegans larva of Mulcahy et al. 2022 on BossDB)",
    )
    data.add_argument("--voxel_size", type=cli.positive(float), nargs=3, metavar=("Z", "Y", "X"), help="nm; wins over the file's")
    data.add_argument("--preset", choices=PRESETS, default="none", help="cutout size: none 256 256 64, safe8gb 192 192 48, medium 256 256 48")
    data.add_argument("--cutout", type=int, nargs=3, metavar=("X", "Y", "Z"), help="size in voxels; wins over --preset")
    data.add_argument("--offset", type=int, nargs=3, metavar=("X", "Y", "Z"), help="first voxel (default: the centre, moved by up to 5 %% drawn from --seed)")
    data.add_argument("--truth", metavar="LABELS", help="true neurite labels, to score the run; any input format")
    data.add_argument("--boundaries", default="intensity", metavar="intensity|FILE", help="where the boundary probability comes from")
    data.add_argument("--labels", metavar="FILE", help="neurite labels of your own instead of segmenting")
    data.add_argument("--no_fallback", action="store_true", help="fail when BossDB cannot be reached, rather than use the phantom")
    data.add_argument("--network_timeout", type=cli.positive(float), default=30.0, metavar="S", help="seconds per request (default: 30)")
    steps = parser.add_argument_group("stages")
    aligning = steps.add_mutually_exclusive_group()
    aligning.add_argument("--align", action="store_true", default=None, help="align also near-isotropic volumes")
    aligning.add_argument("--no_align", "--no-align", dest="align", action="store_false", help="never align")
    steps.add_argument("--simulate_misalignment", type=cli.positive(float), default=0.0, metavar="PX", help="move sections at random first and report how well that is undone")
    steps.add_argument("--segmenter", choices=("multicut", "watershed"), default="multicut", help="how fragments become neurites; watershed is the slice-wise baseline")
    steps.add_argument("--min_score", type=float, default=0.10, help="candidates below are left out of the graph (default: 0.10)")
    steps.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="any setting of a stage, as in segment.multicut.bias=0.8; --list_settings names them")
    steps.add_argument("--list_settings", action="store_true", help="print the settings of all stages and exit")
    steps.add_argument("--until", choices=("cutout", "preprocess", "align", "boundaries", "segment", "synapses", "graph"), help="stop after this stage")
    keep = parser.add_argument_group("output")
    keep.add_argument("--save_minimal", action="store_true", help="keep no intermediate arrays")
    keep.add_argument("--aligned_dtype", choices=("float32", "float16"), default="float32")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.pipeline import PipelineSettings, StageSettings, report_lines, run_pipeline  # heavy: after parsing
    from emlib.runs.settings import listing, override

    stages = override(
        StageSettings(), [f"segment.segmenter={args.segmenter}", f"graph.min_score={args.min_score}", *args.set]
    )
    if args.list_settings:
        print(*listing(stages), sep="\n")
        return 0
    settings = PipelineSettings(
        **({"dataset": args.dataset} if args.dataset else {}),
        cutout_xyz=tuple(args.cutout or PRESETS[args.preset]),
        offset_xyz=tuple(args.offset) if args.offset else None,
        voxel_size_nm=tuple(args.voxel_size) if args.voxel_size else None,
        seed=args.seed,
        fallback=not args.no_fallback,
        network_timeout_s=args.network_timeout,
        until=args.until or "publish",
        save_minimal=args.save_minimal,
        aligned_dtype=args.aligned_dtype,
        align_sections=args.align,
        simulate_misalignment_px=args.simulate_misalignment,
        boundaries_from=args.boundaries,
        labels_from=args.labels,
        truth=args.truth,
        stages=stages,
    )
    run = run_pipeline(settings, args.outdir, command=cli.command_line(), quiet=args.quiet)
    if not args.quiet:
        print(*report_lines(run), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
