"""Synapses, graph, tables, figures and report of a run anew from other labels, and what changed.

python rebuild_graph_and_figures.py --outdir outputs
python rebuild_graph_and_figures.py --labels outputs/data/neurite_labels_corrected_i32_zyx.npy
"""

import sys

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("input; EM, truth and settings are those of the run in --outdir")
    group.add_argument(
        "--labels",
        metavar="PATH",
        help="neurites in the frame of the aligned EM, any format (default: the newest of refined, corrected and the "
        "run's own in <outdir>/data)",
    )
    group.add_argument(
        "--synapse_edits",
        metavar="FILE|none",
        help="decisions of a proofreader; none leaves them out (default: <outdir>/tables/synapse_edits.csv, if there)",
    )
    near = {"type": cli.positive(float), "default": 100.0, "metavar": "NM"}
    group.add_argument(
        "--match_nm", help="farthest that a candidate lies from the one that was decided on (default: 100)", **near
    )
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.pipeline.rebuild import RebuildSettings, rebuild  # heavy: after parsing

    settings = RebuildSettings(args.labels, args.synapse_edits, args.match_nm)
    rebuilt = rebuild(settings, args.outdir, command=cli.command_line(), quiet=args.quiet)
    if not args.quiet:
        print(*rebuilt.lines(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
