"""Predict masks of images and volumes with a trained model.

python predict.py --model_path models/mycells/model.pth --input stack.tif --output outputs/predictions --overlay
python predict.py --model_path drosophila-vnc-experts --input 'em/*.png' --organelles mitochondria --instances --measure
python predict.py --model_path models/mycells/model.pth --input big.zarr --blocks 2048 2048 64 --workers 2
"""

import sys

from emlib.learn.prediction.flags import add_prediction
from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__, conflict_handler="resolve")
    cli.add_run(parser)
    add_prediction(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.learn.prediction.command import predict_from_flags  # heavy: after parsing

    way = None
    if args.blocks:
        from emlib.blockwise.predicting import way_of_flags

        way = way_of_flags(args)
    lines = predict_from_flags(args, way)
    if not args.quiet:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, outdir="--output", smaller="use a smaller --memory_gb"))
