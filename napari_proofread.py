"""Correct the neurites and synapses of a run in a napari window; or apply or print the journal of edits without one.

python napari_proofread.py --outdir outputs
python napari_proofread.py --replay outputs/runs/proofreading.sqlite --outdir outputs
"""

import sys

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = parser.add_argument_group("input; EM, labels and candidates are those of the run in --outdir")
    data.add_argument("--labels", metavar="FILE", help="labels to correct instead of the run's, of the same shape")
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    data.add_argument("--voxel_size", help="nm; wins over the files'", **size)
    data.add_argument(
        "--journal", metavar="FILE", help="made if it is not there (default: <outdir>/runs/proofreading.sqlite)"
    )
    data.add_argument("--user", metavar="NAME", help="who edits, for the journal (default: the name of the login)")
    without = parser.add_argument_group("without a window").add_mutually_exclusive_group()
    without.add_argument("--replay", metavar="JOURNAL", help="apply a journal to the labels, write the corrected ones")
    without.add_argument("--export", choices=("csv",), help="print the edits of the journal as CSV")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    if not (args.replay or args.export):
        from emlib.proofread.display import require_window

        require_window()
    from emlib.proofread import Journal, Session  # heavy: after parsing
    from emlib.proofread.journal import FILE
    from emlib.proofread.results import export_csv

    if args.export:
        print(export_csv(Journal(args.journal or args.outdir / FILE)), end="")
        return 0
    given = {"labels": args.labels, "voxel_size_nm": args.voxel_size, "user": args.user}
    if not args.replay:
        from emlib.proofread.window.opening import run_window

        with Session.open(args.outdir, journal=args.journal, **given) as session:
            run_window(session)
        return 0
    with Session.open(args.outdir, journal=args.replay, create=False, **given) as session:
        written = session.save()
        lines = [f"{session.edits_in_force} of {session.journal.last} journal entries are edits in force", *written]
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
