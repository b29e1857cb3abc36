"""Turn annotations of other programs into masks for training, or masks into annotations.

python convert_annotations.py --from labelme --input annotations/ --output data/mycells --split 0.7 0.15 0.15
python convert_annotations.py --from instances --input data/drosophila-vnc --to coco --output outputs/vnc_coco
"""

import sys
from pathlib import Path

from emlib.runs import cli

FORMATS = "labelme, coco, cvat, via, yolo-seg, geojson, napari-shapes, imagej-roi, index-mask, rgb-mask, instances"


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__, conflict_handler="resolve")
    source = parser.add_argument_group("annotations")
    source.add_argument("--from", dest="format", required=True, metavar="FORMAT", help=FORMATS)
    source.add_argument("--input", type=Path, required=True, metavar="PATH", help="file or folder of annotations")
    source.add_argument("--images", type=Path, metavar="DIR", help="the images (default: beside the annotations)")
    source.add_argument("--labels", type=Path, metavar="MAP.yaml", help="lines 'label: class'; null drops a label")
    source.add_argument("--classes", type=Path, metavar="FILE", help="classes.yaml: names, ids and colours")
    source.add_argument("--label", metavar="NAME", help="the label of shapes whose format has none")
    source.add_argument("--attribute", metavar="NAME", help="the property with the label (via, geojson)")
    source.add_argument("--skip_missing", action="store_true", help="leave out annotations whose image is missing")
    cli.add_run(parser)
    target = parser.add_argument_group("data set")
    # after add_run, whose --outdir becomes another name of this one
    target.add_argument("--output", "--outdir", type=Path, required=True, metavar="DIR", help="folder, new or empty")
    layouts = "index-masks, organelles, instances, coco or labelme (default: index-masks)"
    target.add_argument("--to", default="index-masks", metavar="LAYOUT", help=layouts)
    shares = "shares of train, val and test (default: 0.7 0.15 0.15, or as the input is divided)"
    target.add_argument("--split", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help=shares)
    target.add_argument("--split_file", type=Path, metavar="FILE", help="CSV name,split or YAML 'train: [...]'")
    overlap = "which shape wins a pixel: later, earlier, smaller or larger (default: later)"
    target.add_argument("--overlap", default="later", metavar="RULE", help=overlap)
    width = "px, of lines whose file does not say (default: 3)"
    target.add_argument("--line_width", type=cli.positive(float), default=3.0, metavar="W", help=width)
    radius = "px, of points (default: 3)"
    target.add_argument("--point_radius", type=cli.positive(float), default=3.0, metavar="R", help=radius)
    target.add_argument("--overlays", action="store_true", help="pictures with outlines and names, to look at")
    target.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.annotations.convert import ConvertSettings, convert  # heavy: after parsing

    names = ConvertSettings.__dataclass_fields__
    given = {name: value for name, value in vars(args).items() if name in names}
    given["split"] = None if args.split is None else tuple(args.split)
    lines = convert(ConvertSettings(**given))
    if not args.quiet:
        print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, outdir="--output", smaller="convert fewer images at a time"))
