"""Train a model that finds organelles, classes or boundaries: the multi-expert model, or any head on any encoder.

python train.py --data_root data --domain drosophila-vnc --out_path ./models/drosophila-vnc/model.pth --time_budget 7
python train.py --data_root data --domain mycells --head upernet --backbone resnet18 --loss ce+dice --epochs 50 \
--patience 8 --out_path ./models/mycells/model.pth
python train.py --volume em.tif --labels neurites.tif --voxel_size 10 10 10 --z 0 120 --time_budget 60 \
--patch_size 128 --out_path ./models/boundaries/model.pth
"""

import sys

from emlib.learn.training.flags import add_training
from emlib.runs import cli


def parse_args(argv=None):
    parser = cli.Parser(description=__doc__, conflict_handler="resolve")
    cli.add_run(parser)
    add_training(parser)
    return cli.parse(parser, argv)


def main(argv=None):
    args = parse_args(argv)
    from emlib.learn.training.command import train_from_flags  # heavy: after parsing

    return train_from_flags(args)


if __name__ == "__main__":
    sys.exit(cli.run(main, outdir="--out_path", smaller="use a smaller --batch_size, --patch_size or --memory_gb"))
