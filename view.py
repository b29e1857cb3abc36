"""Look at a run in the browser: EM, boundaries, neurites in 3D, synapses with their partners; or export it.

python view.py --outdir outputs
python view.py --outdir outputs --export precomputed shared/run1 --skeletons
python view.py --outdir outputs --export cave tables_for_cave
"""

import sys

from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    data = parser.add_argument_group("input; EM, labels and synapses are those of the run in --outdir")
    data.add_argument("--labels", metavar="FILE", help="other labels of the same volume: corrected, refined")
    size = {"type": cli.positive(float), "nargs": 3, "metavar": ("Z", "Y", "X")}
    data.add_argument("--voxel_size", help="nm; wins over the files'", **size)
    page = parser.add_argument_group("page")
    page.add_argument("--port", type=cli.at_least_zero(int), default=0, help="of this machine (default: any free one)")
    page.add_argument("--no_browser", action="store_true", help="print the address, open nothing")
    page.add_argument("--share", action="store_true", help="let other machines open the address too")
    files = parser.add_argument_group("files for other programs, and no page")
    where = {"nargs": 2, "metavar": ("FORMAT", "DIR")}
    files.add_argument("--export", help="precomputed (Neuroglancer), cave or neuprint (CSV), into a folder", **where)
    files.add_argument("--url", default="http://127.0.0.1:9000", help="where the precomputed folder will be served")
    files.add_argument("--skeletons", action="store_true", help="SWC in nm, into <outdir>/data/skeletons")
    cli.add_run(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.view.opening import view  # heavy: after parsing

    view(args)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
