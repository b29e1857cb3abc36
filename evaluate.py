"""Score a segmentation, organelle masks, synapses or a graph against truth, and against chance.

python evaluate.py segmentation --pred outputs/data/neurite_labels_i32_zyx.npy --truth neurites.tif
python evaluate.py masks --pred outputs/predictions --truth data/drosophila-vnc/test --voxel_size 50 4.6 4.6
"""

import sys

from emlib.runs import cli


def add_segmentation(commands):
    parser = commands.add_parser("segmentation", help="VOI, adapted Rand error, CREMI score, ERL of neurite labels")
    data = cli.add_pair(parser, "labels")
    data.add_argument("--em", metavar="VOLUME", help="EM of the same shape, to draw the worst errors on")
    how = parser.add_argument_group("scoring")
    zeros = ("fill", "background", "singletons", "ignore")
    how.add_argument("--zero", choices=zeros, default="fill", help="what becomes of predicted 0 (default: fill)")
    how.add_argument(
        "--border_nm", type=cli.at_least_zero(float), default=0.0, help="leave out truth this near a border, in plane"
    )
    how.add_argument("--relabel", choices=("3d", "2d"), help="score the truth's connected pieces, not its ids")
    how.add_argument("--per_section", action="store_true", help="score each section for itself, report the means")
    how.add_argument("--skeletons", metavar="SWC|make", help="file or folder of SWC, or make them from the truth: ERL")
    how.add_argument(
        "--skeleton_unit", choices=("nm", "um", "voxel"), default="nm", help="of SWC coordinates (default: nm)"
    )
    corner = {"type": cli.finite, "nargs": 3, "metavar": ("Z", "Y", "X")}
    how.add_argument(
        "--skeleton_offset", help="nm, where the first voxel lies in the SWC (default: the file's)", **corner
    )
    how.add_argument(
        "--worst", type=cli.positive(int), default=20, metavar="N", help="rows of worst merges and of splits"
    )


def add_masks(commands):
    parser = commands.add_parser("masks", help="Dice, IoU, boundary F1, objects … of organelle masks")
    data = cli.add_pair(parser, "masks: a folder with one folder of sections per organelle, or one stack")
    data.add_argument("--organelles", nargs="+", metavar="NAME", help="(default: all folders of the truth)")
    how = parser.add_argument_group("scoring")
    positive = cli.positive
    how.add_argument("--boundary_nm", type=positive(float), default=20.0, help="tolerance of boundary F1 (default: 20)")
    how.add_argument(
        "--min_object_nm2", type=cli.at_least_zero(float), default=0.0, help="smaller components are no objects"
    )
    how.add_argument("--patch", type=positive(int), default=256, help="side of a patch in pixels (default: 256)")
    how.add_argument("--stride", type=positive(int), default=128, help="between patches in pixels (default: 128)")
    how.add_argument("--bootstrap", type=positive(int), default=1000, help="draws of sections (default: 1000)")


def add_synapses(commands):
    parser = commands.add_parser("synapses", help="detection, average precision, partners, direction of synapses")
    data = cli.add_pair(parser, "tables z,y,x[,pre_id,post_id,score]; the truth may be a mask")
    cli.add_partner_labels(data)
    how = parser.add_argument_group("scoring")
    far = {"type": cli.positive(float), "default": 200.0}
    how.add_argument("--max_distance_nm", help="farthest match (default: 200)", **far)
    how.add_argument("--min_score", type=cli.finite, metavar="S", help="predictions below count for the curve alone")
    how.add_argument("--per_section", action="store_true", help="each section for itself: components and matches")
    how.add_argument(
        "--min_size",
        type=cli.at_least_zero(float),
        default=0.0,
        help="of a mask: smaller components are ignored, nm³ or nm²",
    )
    how.add_argument("--draws", type=cli.positive(int), default=100, help="draws of chance (default: 100)")


def add_graph(commands):
    parser = commands.add_parser("graph", help="edges and degrees of a wiring graph")
    data = cli.add_pair(parser, "edge tables source,target[,weight]", voxels=False)
    cli.add_partner_labels(data)
    how = parser.add_argument_group("scoring")
    how.add_argument("--draws", type=cli.positive(int), default=100, help="random rewirings (default: 100)")


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True, metavar="segmentation|masks|synapses|graph")
    for add in (add_segmentation, add_masks, add_synapses, add_graph):
        add(commands)
    for command in commands.choices.values():
        cli.add_run(command)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.evaluation import evaluate  # heavy: after parsing

    lines = evaluate(**vars(args))
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, smaller="cut both to a smaller box, or close other programs"))
