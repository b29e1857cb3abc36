"""EM volume to wiring graph, with figures and a report.

python run_pipeline.py --preset safe8gb --save_minimal --aligned_dtype float16
python run_pipeline.py --dataset stack.tif --voxel_size 40 4 4 --cutout 512 512 64 --truth neurites.tif
"""

import sys
from contextlib import nullcontext

from emlib.runs import block_flags, cli

STOPS = ("cutout", "preprocess", "align", "boundaries", "segment", "synapses", "graph")


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = cli.add_volume(parser)
    data.add_argument("--truth", metavar="LABELS", help="true neurite labels, to score the run")
    data.add_argument("--truth_synapses", metavar="CSV", help="true synapses: z,y,x[,pre_id,post_id] in voxels")
    sources = "intensity|forest|experts|FILE"
    data.add_argument("--boundaries", default="intensity", metavar=sources, help="boundary probability")
    data.add_argument("--model_path", metavar="NAME|FILE", help="of --boundaries experts (.pth) or forest (.npz)")
    data.add_argument("--synapses", choices=("heuristic", "experts"), help="(default: experts if the network can)")
    data.add_argument("--no_resample", action="store_true", help="refuse a network for another voxel size")
    data.add_argument("--labels", metavar="FILE", help="neurite labels of your own instead of segmenting")
    steps = parser.add_argument_group("stages")
    aligning = steps.add_mutually_exclusive_group()
    aligning.add_argument("--align", action="store_true", default=None, help="align also near-isotropic volumes")
    aligning.add_argument("--no_align", dest="align", action="store_false", help="never align")
    moved = {"type": cli.positive(float), "default": 0.0, "metavar": "PX"}
    steps.add_argument("--simulate_misalignment", help="move sections at random and report the recovery", **moved)
    steps.add_argument(
        "--segmenter",
        choices=("multicut", "gasp", "watershed"),
        help="gasp joins by mean affinity, watershed is the slice-wise baseline",
    )
    steps.add_argument("--edge_model", metavar="FILE", help="learned contacts, of train_refine_rf.py --edges --volume")
    steps.add_argument("--undirected", action="store_true", help="leave open which neurite of a synapse sends")
    steps.add_argument("--min_score", type=float, metavar="S", help="of a candidate in the graph (default: 0.10)")
    named = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    steps.add_argument("--set", help="any setting that --list_settings names", **named)
    steps.add_argument("--list_settings", action="store_true", help="print the settings of all stages and exit")
    steps.add_argument("--until", choices=STOPS, help="stop after this stage")
    steps.add_argument(
        "--resume", action="store_true", help="continue after the last whole stage of an interrupted run"
    )
    keep = parser.add_argument_group("output")
    keep.add_argument("--save_minimal", action="store_true", help="keep no intermediate arrays")
    keep.add_argument("--aligned_dtype", choices=("float32", "float16"), default="float32")
    keep.add_argument("--force", action="store_true", help="run although the planned memory exceeds what is free")
    block_flags.add_blocks(parser)
    cli.add_history(parser)
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    block_flags.check_blocks(args)
    from emlib import pipeline  # heavy: after parsing
    from emlib.pipeline import PipelineSettings, stage_defaults
    from emlib.runs import history_lines
    from emlib.runs.settings import listing, override

    if args.runs or args.show is not None or args.export:
        print(*history_lines.answer(args.outdir, pipeline.defaults(), show=args.show, export=args.export), sep="\n")
        return 0
    if args.list:
        from emlib.volumes.bossdb import BossOptions, list_bossdb, listing_lines

        options = BossOptions(timeout_s=args.network_timeout, config_file=args.boss_config)
        print(*listing_lines(list_bossdb(args.list, options, progress=not args.quiet), args.list), sep="\n")
        return 0
    short = {"segment.segmenter": args.segmenter, "graph.min_score": args.min_score}
    short["synapses.directed"] = "false" if args.undirected else None
    named = [f"{k}={v}" for k, v in short.items() if v is not None]
    stages = override(stage_defaults(args.boundaries), named + args.set)
    if args.list_settings:
        print(*listing(stages), sep="\n")
        return 0
    settings = PipelineSettings(
        cutout_xyz=block_flags.cutout_of(args),
        offset_xyz=args.offset and tuple(args.offset),
        voxel_size_nm=args.voxel_size and tuple(args.voxel_size),
        seed=args.seed,
        fallback=not args.no_fallback,
        network_timeout_s=args.network_timeout,
        resolution=cli.boss_resolution(args),
        refresh=args.refresh,
        fill_missing=args.fill_missing,
        boss_config=args.boss_config,
        until=args.until or "publish",
        save_minimal=args.save_minimal,
        aligned_dtype=args.aligned_dtype,
        align_sections=args.align,
        simulate_misalignment_px=args.simulate_misalignment,
        boundaries_from=args.boundaries,
        model_path=args.model_path,
        resample=not args.no_resample,
        synapses_from=args.synapses or "auto",
        labels_from=args.labels,
        edge_model=args.edge_model,
        truth=args.truth,
        truth_synapses=args.truth_synapses,
        blocks_xyz=args.blocks and tuple(args.blocks),
        npy=args.npy or "auto",
        stages=stages,
        **({"dataset": args.dataset} if args.dataset else {}),
    )
    outdir, again = args.outdir, None
    if args.rerun is not None:
        again = pipeline.recall(args.rerun, outdir, settings)
        settings, outdir = again.settings, again.folder
    how = {"command": cli.command_line(), "quiet": args.quiet, "resume": args.resume}
    with again.place() if again else nullcontext():
        pipeline.announce(settings, again, force=args.force, quiet=args.quiet)
        if args.cutouts:
            cutouts = pipeline.run_cutouts(settings, args.cutouts, outdir, **how)
            lines, code = pipeline.cutout_lines(cutouts, outdir), 2 if any(cutout.error for cutout in cutouts) else 0
        else:
            carriage = pipeline.Carriage(args.workers or 1, args.scheduler, args.memory_gb)
            run = pipeline.run_any(settings, outdir, carriage, **how)
            lines, code = pipeline.report_lines(run) + ([again.verdict()] if again else []), 0
    if not args.quiet:
        print(*lines, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(cli.run(main))
